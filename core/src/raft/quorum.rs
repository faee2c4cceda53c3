//! Majority arithmetic over one set of voters (Raft thesis §3.4, §3.6.2).
//!
//! Elections, commitment, leases and the leader's own check all use these functions, so that they
//! cannot disagree about what a quorum is.

use crate::id::NodeId;
use std::collections::BTreeMap;

/// How many of `voters` servers are a quorum; nobody is one of none.
pub(super) const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// Whether the voters for which `has` holds are a quorum.
pub(super) fn reached<V>(voters: &BTreeMap<NodeId, V>, has: impl Fn(&NodeId) -> bool) -> bool {
    voters.keys().filter(|id| has(id)).count() >= majority(voters.len())
}

/// The highest value that a quorum has reached, given each voter's; `None` without voters.
pub(super) fn reached_by_quorum<V, T: Ord + Copy>(
    voters: &BTreeMap<NodeId, V>,
    value: impl Fn(&NodeId) -> T,
) -> Option<T> {
    let mut values: Vec<T> = voters.keys().map(value).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(majority(voters.len()) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(count: u8) -> BTreeMap<NodeId, ()> {
        (0..count).map(|n| (NodeId::from_bytes([n; 16]), ())).collect()
    }

    #[test]
    fn any_two_quorums_of_a_set_share_a_member() {
        for count in 1..8 {
            assert!(2 * majority(count) > count);
        }
        assert!(!reached(&voters(0), |_| true));
    }

    #[test]
    fn the_quorum_value_is_the_one_that_enough_voters_have() {
        let value = |id: &NodeId| id.as_bytes()[0];
        assert_eq!(reached_by_quorum(&voters(3), value), Some(1));
        assert_eq!(reached_by_quorum(&voters(4), value), Some(1));
        assert_eq!(reached_by_quorum(&voters(5), value), Some(2));
        assert_eq!(reached_by_quorum(&voters(0), value), None);
    }
}
