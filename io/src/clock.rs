//! The two clocks of the machine, read here and nowhere else.

use std::time::{Instant as SystemInstant, SystemTime, UNIX_EPOCH};
use terraform_core::time::{Instant, WallClock};

/// Reads monotonic time since the agent's start, and civil time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: SystemInstant,
}

impl Clock {
    /// A clock whose epoch is now.
    pub fn start() -> Self {
        Self { epoch: SystemInstant::now() }
    }

    /// Monotonic time since the epoch.
    pub fn now(&self) -> Instant {
        let nanos = self.epoch.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The system instant at which the core's `at` is reached.
    pub fn system_instant(&self, at: Instant) -> SystemInstant {
        self.epoch + at.since(Instant::ZERO)
    }

    /// Civil time.
    pub fn wall(&self) -> WallClock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallClock::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
