//! What is left of an answer's rows, and in which order: `?filter=` and `?near=`.
//!
//! Neither touches the index of the answer, nor what it waits for: a change that only another row
//! shows wakes the read all the same, and one of coordinates wakes none (http-api.md §1.6, §1.9).

use super::Tables;
use super::overview::Overview;
use super::query::{Query, Rows};
use crate::filter::Filter;
use crate::id::NodeName;
use std::borrow::Borrow;
use std::time::Duration;

impl Tables {
    /// The rows that `query` wants, of those that it gave, on a server of the datacenter `own`.
    ///
    /// - Cost: O(rows), and O(rows log rows) with an order.
    pub(crate) fn refined(&self, query: &Query, mut rows: Rows, own: &str) -> Rows {
        match (query, &mut rows) {
            (Query::Nodes(wanted), Rows::Nodes(rows)) => {
                keep(rows, wanted.filter.as_ref(), own);
                self.sort_by_distance(rows, wanted.near.as_ref(), |node| &node.name);
            }
            (Query::ServiceNodes(wanted), Rows::ServiceNodes(rows)) => {
                keep(rows, wanted.filter.as_ref(), own);
                self.sort_by_distance(rows, wanted.near.as_ref(), |row| &row.node.name);
            }
            (Query::ServiceHealth(wanted), Rows::Instances(rows)) => {
                keep(rows, wanted.filter.as_ref(), own);
                self.sort_by_distance(rows, wanted.near.as_ref(), |row| &row.node.name);
            }
            (Query::ServiceChecks(wanted), Rows::Checks(rows)) => {
                keep(rows, wanted.filter.as_ref(), own);
                self.sort_by_distance(rows, wanted.near.as_ref(), |check| &check.node);
            }
            (Query::ChecksInState(wanted), Rows::Checks(rows)) => {
                keep(rows, wanted.filter.as_ref(), own);
                self.sort_by_distance(rows, wanted.near.as_ref(), |check| &check.node);
            }
            (Query::NodeChecks(wanted), Rows::Checks(rows)) => {
                keep(rows, wanted.filter.as_ref(), own);
            }
            (Query::Overview(Overview::Nodes(filter)), Rows::NodeOverviews(rows)) => {
                keep(rows, filter.as_ref(), own);
            }
            (Query::Overview(Overview::Instances(filter)), Rows::Instances(rows)) => {
                keep(rows, filter.as_ref(), own);
            }
            (Query::Node(wanted), Rows::Node(Some(found))) => {
                keep(&mut found.services, wanted.filter.as_ref(), own);
            }
            _ => {}
        }
        rows
    }

    /// Sorts by the round trip from `near`; rows whose nodes are at an unknown place come last, and
    /// from an unknown place nothing is sorted.
    pub(super) fn sort_by_distance<T>(
        &self,
        rows: &mut [T],
        near: Option<&NodeName>,
        node: fn(&T) -> &NodeName,
    ) {
        let Some(from) = near.and_then(|near| self.coordinate_of(near)).flatten() else { return };
        rows.sort_by_cached_key(|row| {
            let to = self.coordinate_of(node(row)).flatten();
            to.map_or(Duration::MAX, |to| from.distance(to))
        });
    }
}

fn keep<T: Borrow<R>, R>(rows: &mut Vec<T>, filter: Option<&Filter<R>>, own: &str) {
    if let Some(filter) = filter {
        rows.retain(|row| filter.wants(row.borrow(), own));
    }
}
