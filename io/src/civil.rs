//! Civil time as text, in UTC and the Gregorian calendar.

use terraform_core::time::WallClock;

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A time in its parts; one before 1970 counts as its first moment.
struct Civil {
    /// Days since 1970-01-01.
    days: u64,
    year: u64,
    /// From 0.
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millis: u64,
}

impl Civil {
    fn of(wall: WallClock) -> Self {
        let millis = wall.as_millis().max(0).unsigned_abs();
        let (seconds, millis) = (millis / 1000, millis % 1000);
        let (days, time) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        Self { days, year, month, day, hour, minute, second, millis }
    }

    /// `2026-11-22T14:07:08`.
    fn stamp(&self) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        let month = month + 1;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// To the second: `2026-11-22T14:07:08Z` (RFC 3339).
pub fn timestamp(wall: WallClock) -> String {
    format!("{}Z", Civil::of(wall).stamp())
}

/// To the millisecond: `2026-11-22T14:07:08.123Z` (RFC 3339).
pub fn exact_timestamp(wall: WallClock) -> String {
    let civil = Civil::of(wall);
    format!("{}.{:03}Z", civil.stamp(), civil.millis)
}

/// To the second, as metrics have it: `2026-11-22 14:07:08 +0000 UTC` (http-api.md §4.3).
pub fn spaced_timestamp(wall: WallClock) -> String {
    format!("{} +0000 UTC", Civil::of(wall).stamp().replace('T', " "))
}

/// As HTTP has it: `Sun, 22 Nov 2026 14:07:08 GMT` (RFC 9110 §5.6.7).
pub fn http_date(wall: WallClock) -> String {
    let Civil { days, year, month, day, hour, minute, second, .. } = Civil::of(wall);
    let name = |names: &[&'static str], at: u64| {
        usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or_default()
    };
    let (weekday, month) = (name(&WEEKDAYS, days % 7), name(&MONTHS, month));
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// To the second, as syslog has it: `Nov 22 14:07:08` (RFC 3164 §4.1.2).
pub fn syslog_date(wall: WallClock) -> String {
    let Civil { month, day, hour, minute, second, .. } = Civil::of(wall);
    let month = usize::try_from(month).ok().and_then(|at| MONTHS.get(at)).copied();
    format!("{} {day:2} {hour:02}:{minute:02}:{second:02}", month.unwrap_or_default())
}

/// Year, month (0–11) and day of the month of a day counted from 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    // Years are counted from March, so that leap days come last; eras are 400 years long.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps.min(day_of_era)) / 365;
    let passed = 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    let day_of_year = day_of_era - passed;
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_reads_the_same_in_every_form() {
        let wall = WallClock::from_millis(1_795_356_593_374);
        assert_eq!(timestamp(wall), "2026-11-22T14:09:53Z");
        assert_eq!(exact_timestamp(wall), "2026-11-22T14:09:53.374Z");
        assert_eq!(spaced_timestamp(wall), "2026-11-22 14:09:53 +0000 UTC");
        assert_eq!(http_date(wall), "Sun, 22 Nov 2026 14:09:53 GMT");
        assert_eq!(syslog_date(wall), "Nov 22 14:09:53");
        let ninth = WallClock::from_millis(8 * 86_400_000);
        assert_eq!(syslog_date(ninth), "Jan  9 00:00:00");
    }

    #[test]
    fn dates_know_leap_years() {
        let cases = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_709_164_800, "2024-02-29"),
            (4_107_542_400, "2100-03-01"),
        ];
        for (seconds, expected) in cases {
            let shown = timestamp(WallClock::from_millis(seconds * 1000));
            assert_eq!(shown, format!("{expected}T00:00:00Z"));
        }
        assert_eq!(timestamp(WallClock::from_millis(-1)), "1970-01-01T00:00:00Z");
    }
}
