//! Schedules, thresholds, expiry and reaping, driven by hand.
