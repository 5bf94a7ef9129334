//! When what has expired is removed, where that is not done at once: by five fields, as cron has them.

use super::time::Timestamp;
use cronexpr::{Crontab, FallbackTimezoneOption, ParseOptions};
use std::fmt;

/// When partitions are dropped or written anew because of their age: `0 2 * * *` is every night at two.
/// Minute, hour, day of the month, month and day of the week, in UTC; or in another zone, which
/// stands before them as `CRON_TZ=Europe/Berlin`.
#[derive(Debug, Clone)]
pub struct CleanupSchedule {
    text: String,
    crontab: Crontab,
}

/// A text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no schedule: {why}")]
pub struct ScheduleError {
    text: String,
    why: String,
}

impl CleanupSchedule {
    /// The schedule of a text.
    ///
    /// # Errors
    /// It has not five fields, a field says what no cron would do, the zone is not known (those of the
    /// system are, else those that came with this program), or the time never comes.
    pub fn new(text: &str) -> Result<CleanupSchedule, ScheduleError> {
        let fault = |why: String| ScheduleError { text: text.to_owned(), why };
        let mut fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let zone = fields.first().and_then(|first| first.strip_prefix("CRON_TZ="));
        if zone.is_some() {
            fields.remove(0);
        }
        if fields.len() != 5 {
            return Err(fault(format!(
                "five fields are needed (minute, hour, day of the month, month, day of the week), there are {}",
                fields.len()
            )));
        }
        let zone = zone.unwrap_or("UTC");
        if let Err(error) = jiff::tz::TimeZone::get(zone) {
            return Err(fault(format!("the time zone {zone:?} is not known: {error}")));
        }
        fields.push(zone);
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::None;
        let crontab = cronexpr::parse_crontab_with(&fields.join(" "), options);
        // The other lines repeat the text, and point at the place.
        let reason = |error: cronexpr::Error| {
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default();
            last.trim_start_matches([' ', '^']).to_owned()
        };
        let crontab = crontab.map_err(|error| fault(reason(error)))?;
        let schedule = CleanupSchedule { text: text.to_owned(), crontab };
        match schedule.next_after(Timestamp::from_millis(0)) {
            Some(_) => Ok(schedule),
            None => Err(fault("such a time never comes".to_owned())),
        }
    }

    /// The next time after `now`; `None` if none comes within four years.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let now = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?;
        let next = self.crontab.find_next(now).ok()?;
        Some(Timestamp::from_millis(next.timestamp().as_millisecond()))
    }
}

impl PartialEq for CleanupSchedule {
    fn eq(&self, other: &CleanupSchedule) -> bool {
        self.text == other.text
    }
}

impl Eq for CleanupSchedule {}

/// As it was written.
impl fmt::Display for CleanupSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Until when what expired may be removed.
#[derive(Debug, Default)]
pub(crate) struct Cleanups {
    schedule: Option<CleanupSchedule>,
    /// The last time that came.
    last_ms: Option<i64>,
    next_ms: Option<i64>,
    /// When that was looked at.
    seen_ms: i64,
}

impl Cleanups {
    /// By this schedule; `None` is at once.
    pub fn new(schedule: Option<CleanupSchedule>) -> Cleanups {
        // The first look finds the next time.
        Cleanups { schedule, seen_ms: i64::MAX, ..Cleanups::default() }
    }

    /// The schedule.
    pub fn schedule(&self) -> Option<&CleanupSchedule> {
        self.schedule.as_ref()
    }

    /// When the next time comes.
    pub fn next_ms(&self) -> Option<i64> {
        self.next_ms
    }

    /// What expired until then may be removed; `None`: nothing yet.
    pub fn until_ms(&mut self, now_ms: i64) -> Option<i64> {
        let Some(schedule) = &self.schedule else { return Some(now_ms) };
        let came = self.next_ms.is_some_and(|next_ms| next_ms <= now_ms);
        if came {
            self.last_ms = self.next_ms;
        }
        // A clock that went back would make the next time a far one.
        if came || now_ms < self.seen_ms {
            self.next_ms = schedule.next_after(Timestamp::from_millis(now_ms)).map(Timestamp::as_millis);
        }
        self.seen_ms = now_ms;
        self.last_ms.map(|last_ms| last_ms.min(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn the_next_time_is_the_one_of_the_clock_on_the_wall() {
        for (schedule, now, next) in [
            ("0 2 * * *", "2026-11-21T18:00:00Z", "2026-11-22T02:00:00Z"),
            ("0 2 * * *", "2026-11-22T01:59:59.999Z", "2026-11-22T02:00:00Z"),
            ("0 2 * * *", "2026-11-22T02:00:00Z", "2026-11-23T02:00:00Z"),
            ("*/15 * * * *", "2026-11-22T02:01:00Z", "2026-11-22T02:15:00Z"),
            ("30 4 1 1 *", "2026-11-22T02:00:00Z", "2027-01-01T04:30:00Z"),
            ("0 3 * * 0", "2026-11-21T18:00:00Z", "2026-11-22T03:00:00Z"),
            ("0 3 * * SUN", "2026-11-21T18:00:00Z", "2026-11-22T03:00:00Z"),
            ("CRON_TZ=Europe/Berlin 0 2 * * *", "2026-11-21T18:00:00Z", "2026-11-22T01:00:00Z"),
            ("CRON_TZ=Europe/Berlin  0 2 * * *", "2026-07-21T18:00:00Z", "2026-07-22T00:00:00Z"),
            // There is no half past two on that day.
            ("CRON_TZ=Europe/Berlin 30 2 * * *", "2027-03-27T12:00:00Z", "2027-03-29T00:30:00Z"),
            // It comes twice on this one.
            ("CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("CRON_TZ=America/St_Johns 0 0 * * *", "2026-11-21T18:00:00Z", "2026-11-22T03:30:00Z"),
        ] {
            let found = CleanupSchedule::new(schedule).unwrap().next_after(Timestamp::from_millis(at(now)));
            assert_eq!(found.map(Timestamp::as_millis), Some(at(next)), "{schedule} after {now}");
        }
    }

    #[test]
    fn what_is_no_schedule_says_why() {
        for (text, why) in [
            (
                "",
                "five fields are needed (minute, hour, day of the month, month, day of the week), there are 0",
            ),
            ("0 2 * *", "there are 4"),
            ("0 2 * * * UTC", "there are 6"),
            ("@daily", "there are 1"),
            ("60 2 * * *", "must be in range 0..=59; found 60"),
            ("0 2 * * 8", "must be in range 0..=7; found 8"),
            ("0 x * * *", ""),
            ("0 0 30 2 *", "such a time never comes"),
            ("CRON_TZ=Mars/Olympus 0 2 * * *", "the time zone \"Mars/Olympus\" is not known"),
        ] {
            let error = CleanupSchedule::new(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no schedule: ")), "{error}");
            assert!(error.contains(why) && !error.contains(['\n', '^']), "{error}");
            assert!(error.len() > text.len() + 30, "{error}");
        }
    }

    #[test]
    fn what_expired_waits_for_the_next_time_and_no_longer() {
        assert_eq!(Cleanups::new(None).until_ms(5), Some(5));
        let mut cleanups = Cleanups::new(CleanupSchedule::new("0 2 * * *").ok());
        for (now, until, next) in [
            ("2026-11-21T18:00:00Z", None, "2026-11-22T02:00:00Z"),
            ("2026-11-22T01:59:00Z", None, "2026-11-22T02:00:00Z"),
            ("2026-11-22T02:00:03Z", Some("2026-11-22T02:00:00Z"), "2026-11-23T02:00:00Z"),
            ("2026-11-22T12:00:00Z", Some("2026-11-22T02:00:00Z"), "2026-11-23T02:00:00Z"),
            ("2026-11-25T12:00:00Z", Some("2026-11-23T02:00:00Z"), "2026-11-26T02:00:00Z"),
            // A clock that was wrong, and came back.
            ("2027-11-25T12:00:00Z", Some("2026-11-26T02:00:00Z"), "2027-11-26T02:00:00Z"),
            ("2026-11-25T13:00:00Z", Some("2026-11-25T13:00:00Z"), "2026-11-26T02:00:00Z"),
            ("2026-11-26T02:00:00Z", Some("2026-11-26T02:00:00Z"), "2026-11-27T02:00:00Z"),
        ] {
            assert_eq!(cleanups.until_ms(at(now)), until.map(at), "{now}");
            assert_eq!(cleanups.next_ms(), Some(at(next)), "{now}");
        }
    }
}
