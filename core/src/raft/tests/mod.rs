//! Tests of consensus: rules of the paper, and small clusters under faults.

mod disk_full;
mod faults;
mod paper;
mod reads;
mod recovering;
mod server;
mod snapshots;
mod transfer;

use super::cluster::disk::blank;
use super::cluster::{address, cluster_id, configuration, node, settings, store};
use super::*;
use crate::id::{ClusterId, LogIndex, Term};
use bytes::Bytes;
use std::time::Duration;
