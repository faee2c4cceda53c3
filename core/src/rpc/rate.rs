//! How many requests a client agent sends to servers: a bucket that fills at a steady rate.
//!
//! A request takes one token each time it is sent to a server, also where it is tried again
//! (cluster-behaviour.md §5). The bucket is one instant, that at which it will be full: a token is
//! there as long as the ones that are missing would come within the time that all but one take.

use crate::pack_struct;
use crate::time::Instant;
use std::time::Duration;

/// Between two lines of the log that tell of refusals.
const TELL_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How many requests may be sent to servers (`limits.rpc_rate`, `limits.rpc_max_burst`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate {
    /// Time in which one more may be sent.
    pub interval: Duration,
    /// How many may be sent at once after a long time without any; 0 counts as 1.
    pub burst: u32,
}
pack_struct!(RequestRate { interval, burst });

/// What may be sent now.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// `None` for as much as one likes.
    rate: Option<RequestRate>,
    full_at: Instant,
    told_at: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub(super) const fn new(rate: Option<RequestRate>, now: Instant) -> Self {
        Self { rate, full_at: now, told_at: None }
    }

    /// A full one if the rate is another; else nothing changes.
    pub(super) fn set(&mut self, now: Instant, rate: Option<RequestRate>) {
        if self.rate != rate {
            *self = Self::new(rate, now);
        }
    }

    /// Takes a token; `false` if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let Some(RequestRate { interval, burst }) = self.rate else { return true };
        let others = interval.saturating_mul(burst.saturating_sub(1));
        if self.full_at.since(now) > others {
            return false;
        }
        self.full_at = self.full_at.max(now) + interval;
        true
    }

    /// Whether a refusal is to be told, which is so once a minute; the rate it broke.
    pub(super) fn tell(&mut self, now: Instant) -> Option<RequestRate> {
        let due = self.told_at.is_none_or(|at| now.since(at) >= TELL_AGAIN_AFTER);
        let rate = self.rate.filter(|_| due)?;
        self.told_at = Some(now);
        Some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(interval: Duration, burst: u32) -> Option<RequestRate> {
        Some(RequestRate { interval, burst })
    }

    fn taken(bucket: &mut Bucket, now: Instant) -> usize {
        (0..20).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_burst_may_go_at_once_and_then_one_each_interval() {
        let start = Instant::from_nanos(5);
        let mut bucket = Bucket::new(rate(SECOND, 3), start);
        assert_eq!(taken(&mut bucket, start), 3);
        let at = |nanos| start + Duration::from_nanos(nanos);
        assert_eq!(taken(&mut bucket, at(999_999_999)), 0);
        assert_eq!(taken(&mut bucket, at(1_000_000_000)), 1);
        assert_eq!(taken(&mut bucket, at(3_500_000_000)), 2);
        assert_eq!(taken(&mut bucket, at(4_000_000_000)), 1);
        assert_eq!(taken(&mut bucket, start + SECOND * 1000), 3, "no more than the burst is saved");
    }

    #[test]
    fn a_rate_out_of_all_bounds_never_overflows() {
        let end = Instant::from_nanos(u64::MAX);
        for now in [Instant::ZERO, end] {
            let mut bucket = Bucket::new(rate(Duration::MAX, u32::MAX), now);
            assert_eq!(taken(&mut bucket, now), 20);
            let mut bucket = Bucket::new(rate(SECOND, 0), Instant::ZERO);
            assert!(bucket.take(now), "a burst of 0 counts as 1");
        }
        assert_eq!(taken(&mut Bucket::new(None, end), end), 20);
    }

    #[test]
    fn another_rate_begins_with_a_full_bucket_and_the_same_one_goes_on() {
        let now = Instant::from_nanos(1);
        let mut bucket = Bucket::new(rate(SECOND, 2), now);
        assert_eq!(taken(&mut bucket, now), 2);
        bucket.set(now, rate(SECOND, 2));
        assert_eq!(taken(&mut bucket, now), 0);
        bucket.set(now, rate(SECOND, 4));
        assert_eq!(taken(&mut bucket, now), 4);
        bucket.set(now, None);
        assert_eq!(taken(&mut bucket, now), 20);
    }

    #[test]
    fn refusals_are_told_once_a_minute() {
        let now = Instant::from_nanos(1);
        let mut bucket = Bucket::new(rate(SECOND, 2), now);
        assert_eq!(bucket.tell(now), rate(SECOND, 2));
        assert_eq!(bucket.tell(now + SECOND * 59), None);
        assert_eq!(bucket.tell(now + SECOND * 60), rate(SECOND, 2));
    }
}
