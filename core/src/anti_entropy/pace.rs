//! How often the catalog is compared, by size of the cluster (cluster-behaviour.md §4).

use crate::rng::Rng;
use std::time::Duration;

/// Time between full syncs in a small cluster, before its random part.
const PERIOD: Duration = Duration::from_secs(60);
/// Time until a failed full sync is repeated, before its random part.
const RETRY: Duration = Duration::from_secs(15);
/// Full syncs of a small cluster spread over this long once a server can be reached.
const STAGGER: Duration = Duration::from_secs(3);
/// Each member adds this much to the stagger until it is whole, so that a lone agent is quick.
const STAGGER_OF_MEMBER: Duration = Duration::from_millis(25);
/// How long a leave waits for writes in flight: a server that answers at all has answered by then.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(2);

/// How many times slower than in a small cluster: 1 up to 128 members, one more for each doubling.
///
/// 129 to 256 members give 2, 257 to 512 give 3, 8192 give 7.
pub fn scale(members: usize) -> u32 {
    members.div_ceil(128).max(1).next_power_of_two().trailing_zeros() + 1
}

/// Time from a full sync to the next one.
pub(super) fn period(members: usize, rng: &mut Rng) -> Duration {
    let span = PERIOD * scale(members);
    span + rng.jitter(span)
}

/// Time from a failed full sync to the next attempt.
pub(super) fn retry(members: usize, rng: &mut Rng) -> Duration {
    RETRY + rng.jitter(RETRY * scale(members))
}

/// Time from a server's appearance to an agent's full sync.
pub(super) fn stagger(members: usize, rng: &mut Rng) -> Duration {
    let members_u32 = u32::try_from(members).unwrap_or(u32::MAX);
    let span = STAGGER_OF_MEMBER.saturating_mul(members_u32).min(STAGGER * scale(members));
    rng.jitter(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_grows_by_one_with_each_doubling_above_128_members() {
        let table = [(0, 1), (1, 1), (128, 1), (129, 2), (256, 2), (257, 3), (512, 3), (1024, 4)];
        for (members, expected) in table.into_iter().chain([(8192, 7)]) {
            assert_eq!(scale(members), expected, "{members} members");
        }
    }
}
