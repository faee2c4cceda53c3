//! Metrics: what the agent counts and measures, kept for a minute and handed to whoever collects.
//!
//! - Source: agent-config.md §7, http-api.md §4.3. Intervals have ten seconds; the last six are
//!   kept.
//! - What happens often is recorded by the thread it happens on, in a place of its own
//!   ([`Metrics::time`]); what the node knows is asked of it once an interval ([`observe`]).
//! - Names and labels come from the tables of this module and from the agent's own settings, so
//!   there are only so many of them, whatever clients send.

mod config;
mod dump;
mod filter;
mod interval;
mod json;
mod metrics;
mod observe;
mod process;
mod prometheus;
mod run;
mod sink;

pub use config::TelemetryConfig;
pub use dump::dump;
pub use filter::{Filter, FilterRuleError};
pub use interval::{INTERVAL, INTERVALS_KEPT, Interval, Key};
pub use json::display;
pub use metrics::{Counted, Metrics, Sought, Timed};
pub use prometheus::exposition;
pub use run::{Sources, run};
