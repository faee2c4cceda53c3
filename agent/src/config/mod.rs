//! Configuration: files and flags, merged in a fixed order, validated into what `io` starts with.
//!
//! Order (agent-config.md §2): defaults, development defaults, list-valued flags, files and folders
//! in command-line order, scalar flags, fragments of the command line.

mod definition;
mod file;
mod hcl;
mod host;
mod keys;
mod load;
mod merge;
mod resolve;
mod telemetry;
mod template;
mod watches;

pub use file::{
    FileError, Format, NetworkSettings, Settings, TuningSettings, Unbuilt, parse, parse_as,
};
pub use host::{HostConfig, HostSettings, LogConfig, LogFileConfig};
pub use keys::Safety;
pub use load::{LoadError, Loaded, flags, fragment, load};
pub use merge::overlay;
pub use resolve::{Joins, Listeners, Machine, ResolveError, Resolved, resolve, with_recursors};
pub use telemetry::TelemetrySettings;
