//! Times and durations as Go prints them, always in UTC.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// The date and time of nanoseconds since the epoch.
pub(super) fn date(nanoseconds: i64) -> DateTime {
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    TimeZone::UTC.to_datetime(time)
}

/// `Time.String`: `2006-01-02 15:04:05.999999999 -0700 MST`.
pub(super) fn time_text(nanoseconds: i64) -> String {
    format(nanoseconds, "2006-01-02 15:04:05.999999999 -0700 MST")
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

pub(super) fn month(date: &DateTime) -> &'static str {
    MONTHS.get(date.month() as usize - 1).copied().unwrap_or_default()
}

pub(super) fn weekday(date: &DateTime) -> &'static str {
    DAYS.get(date.weekday().to_monday_zero_offset() as usize).copied().unwrap_or_default()
}

/// `Time.Format`: the layout shows how it would print Monday, 2 January 2006, 15:04:05 (-0700, MST).
pub(super) fn format(nanoseconds: i64, layout: &str) -> String {
    // Longer names before their beginnings.
    const PARTS: [&str; 33] = [
        "January",
        "Jan",
        "Monday",
        "Mon",
        "MST",
        "2006",
        "-07:00:00",
        "-07:00",
        "-0700",
        "-07",
        "Z07:00:00",
        "Z07:00",
        "Z0700",
        "Z07",
        "002",
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "15",
        "PM",
        "pm",
        "_2",
        "1",
        "2",
        "3",
        "4",
        "5",
        ".0",
        ".9",
        ",0",
    ];
    let date = date(nanoseconds);
    let hour = date.hour();
    let hour12 = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut out = String::new();
    let mut rest = layout;
    while let Some(c) = rest.chars().next() {
        let Some(part) = PARTS.iter().find(|part| rest.starts_with(**part)) else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let mut after = &rest[part.len()..];
        match *part {
            // A short month is not the beginning of a longer word: `Janet` is no `Jan`.
            "Jan" | "Mon" if after.starts_with(|c: char| c.is_ascii_lowercase()) => out.push_str(part),
            "January" => out.push_str(month(&date)),
            "Jan" => out.push_str(&month(&date)[..3]),
            "Monday" => out.push_str(weekday(&date)),
            "Mon" => out.push_str(&weekday(&date)[..3]),
            "MST" => out.push_str("UTC"),
            "2006" => out.push_str(&format!("{:04}", date.year())),
            "06" => out.push_str(&format!("{:02}", date.year().rem_euclid(100))),
            "-07:00:00" => out.push_str("+00:00:00"),
            "-07:00" => out.push_str("+00:00"),
            "-0700" => out.push_str("+0000"),
            "-07" => out.push_str("+00"),
            "Z07:00:00" | "Z07:00" | "Z0700" | "Z07" => out.push('Z'),
            "002" => out.push_str(&format!("{:03}", date.day_of_year())),
            "01" => out.push_str(&format!("{:02}", date.month())),
            "02" => out.push_str(&format!("{:02}", date.day())),
            "03" => out.push_str(&format!("{hour12:02}")),
            "04" => out.push_str(&format!("{:02}", date.minute())),
            "05" => out.push_str(&format!("{:02}", date.second())),
            "15" => out.push_str(&format!("{hour:02}")),
            "PM" => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            "pm" => out.push_str(if hour < 12 { "am" } else { "pm" }),
            "_2" => out.push_str(&format!("{:2}", date.day())),
            "1" => out.push_str(&date.month().to_string()),
            "2" => out.push_str(&date.day().to_string()),
            "3" => out.push_str(&hour12.to_string()),
            "4" => out.push_str(&date.minute().to_string()),
            "5" => out.push_str(&date.second().to_string()),
            fraction => {
                let digit = &fraction[1..];
                let count = rest[1..].len() - rest[1..].trim_start_matches(digit).len();
                after = &rest[1 + count..];
                if count > 9 || after.starts_with(|c: char| c.is_ascii_digit()) {
                    out.push_str(&rest[..1 + count]);
                } else {
                    let all = format!("{:09}", date.subsec_nanosecond());
                    let digits = &all[..count];
                    let digits = if digit == "9" { digits.trim_end_matches('0') } else { digits };
                    if !digits.is_empty() {
                        out.push_str(&fraction[..1]);
                        out.push_str(digits);
                    }
                }
            }
        }
        rest = after;
    }
    out
}

/// `Duration.String`: `1h2m3.5s`, `1.5ms`, `0s`.
pub(super) fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let size = nanoseconds.unsigned_abs();
    let decimal = |unit: u64, digits: usize| {
        let text = format!("{}.{:0digits$}", size / unit, size % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(1_000_000, 6)),
        _ => {
            let (minutes, rest) = (size / 60_000_000_000, size % 60_000_000_000);
            let seconds = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}
