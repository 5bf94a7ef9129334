//! Time: when the query is evaluated, and what the calendar (UTC) says of a time.

use super::super::steps::Steps;

const DAY_SECONDS: i64 = 86_400;

/// `time()`: the time of the step in seconds since the epoch.
pub(super) fn time(t_ms: i64, _: &[f64]) -> f64 {
    seconds(t_ms)
}

/// `start()`: the first step.
pub(super) fn start(steps: &Steps) -> f64 {
    seconds(steps.start_ms())
}

/// `end()`: the end of the query.
pub(super) fn end(steps: &Steps) -> f64 {
    seconds(steps.end_ms())
}

/// `step()`: the distance between steps; 0 in an instant query.
pub(super) fn step(steps: &Steps) -> f64 {
    seconds(steps.step_ms())
}

/// `range()`: from the first step to the end of the query.
pub(super) fn range(steps: &Steps) -> f64 {
    seconds(steps.end_ms().saturating_sub(steps.start_ms()))
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// A day of the Gregorian calendar.
struct Date {
    year: i64,
    /// From 1.
    month: i64,
    /// From 1.
    day: i64,
}

/// Whole days since the epoch, if `seconds` is a number.
fn days(seconds: f64) -> Option<i64> {
    // A float that is no i64 becomes the nearest one; the calendar below bears it.
    (!seconds.is_nan()).then(|| (seconds as i64).div_euclid(DAY_SECONDS))
}

/// The date of a day, by years that begin in March, so that the leap day comes last (Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn date(days: i64) -> Date {
    const ERA_DAYS: i64 = 146_097;
    let shifted = days + 719_468;
    let era = shifted.div_euclid(ERA_DAYS);
    let day_of_era = shifted.rem_euclid(ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / (ERA_DAYS - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Date { year, month, day }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// How many days the months of a year have.
fn month_days(year: i64) -> [i64; 12] {
    [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

/// A figure of the date at `seconds`; NaN stays NaN.
fn of_date(seconds: f64, figure: impl Fn(Date) -> i64) -> f64 {
    days(seconds).map_or(f64::NAN, |days| figure(date(days)) as f64)
}

/// `year(v)`
pub(super) fn year(seconds: f64) -> f64 {
    of_date(seconds, |date| date.year)
}

/// `month(v)`, from 1.
pub(super) fn month(seconds: f64) -> f64 {
    of_date(seconds, |date| date.month)
}

/// `day_of_month(v)`, from 1.
pub(super) fn day_of_month(seconds: f64) -> f64 {
    of_date(seconds, |date| date.day)
}

/// `day_of_year(v)`, from 1.
pub(super) fn day_of_year(seconds: f64) -> f64 {
    of_date(seconds, |date| {
        let before = &month_days(date.year)[..(date.month - 1) as usize];
        before.iter().sum::<i64>() + date.day
    })
}

/// `days_in_month(v)`
pub(super) fn days_in_month(seconds: f64) -> f64 {
    of_date(seconds, |date| month_days(date.year)[(date.month - 1) as usize])
}

/// `day_of_week(v)`: 0 is Sunday.
pub(super) fn day_of_week(seconds: f64) -> f64 {
    // The epoch was a Thursday.
    days(seconds).map_or(f64::NAN, |days| (days + 4).rem_euclid(7) as f64)
}

/// `hour(v)`
pub(super) fn hour(seconds: f64) -> f64 {
    if seconds.is_nan() { seconds } else { ((seconds as i64).rem_euclid(DAY_SECONDS) / 3_600) as f64 }
}

/// `minute(v)`
pub(super) fn minute(seconds: f64) -> f64 {
    if seconds.is_nan() { seconds } else { ((seconds as i64).rem_euclid(3_600) / 60) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_agrees_with_jiff() {
        // Every 13 days and some from 1800 to 2200, and the days around the ends of February.
        let all = (-5_364_662_400_i64..7_258_118_400).step_by(13 * 86_400 + 4_321);
        let february = [951_696_000, 951_782_400, 951_868_800, 4_107_456_000, 4_107_542_400, -86_400, -1, 0];
        for seconds in all.chain(february) {
            let known = jiff::Timestamp::from_second(seconds).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
            let t = seconds as f64;
            let ours =
                [year(t), month(t), day_of_month(t), day_of_year(t), hour(t), minute(t), day_of_week(t)];
            let theirs = [
                f64::from(known.year()),
                f64::from(known.month()),
                f64::from(known.day()),
                f64::from(known.day_of_year()),
                f64::from(known.hour()),
                f64::from(known.minute()),
                f64::from(known.weekday().to_sunday_zero_offset()),
            ];
            assert_eq!(ours, theirs, "{seconds}");
            assert_eq!(days_in_month(t), f64::from(known.days_in_month()), "{seconds}");
        }
    }

    #[test]
    fn times_beyond_the_calendar_do_no_harm() {
        for t in [f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            for f in [year, month, day_of_month, day_of_year, days_in_month, day_of_week, hour, minute] {
                assert!(f(t).is_finite());
            }
        }
        assert!(year(f64::NAN).is_nan() && hour(f64::NAN).is_nan());
    }
}
