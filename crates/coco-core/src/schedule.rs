//! Schedules of flows: how often, or at which times, a worker updates a flow.
//!
//! Times are in microseconds since 1970.

use crate::cron::{CronLine, TimeZone};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The longest interval.
const LONGEST: i64 = 36_500 * DAY;

/// By how much a clock may be set back without an effect on schedules.
const SMALL_STEP: i64 = SECOND;

/// When a worker updates a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// So many microseconds after the beginning of the previous update.
    Every(i64),
    /// At the times that match a cron line.
    Cron(CronLine),
}

impl Schedule {
    /// Reads an interval (`5 minutes`, `1 day 02:00`) or a cron line (`0 3 * * *`, `@daily`). Returns
    /// a sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix('@') {
            let line = match name.to_ascii_lowercase().as_str() {
                "hourly" => "0 * * * *",
                "daily" | "midnight" => "0 0 * * *",
                "weekly" => "0 0 * * 0",
                "monthly" => "0 0 1 * *",
                "yearly" | "annually" => "0 0 1 1 *",
                _ => return Err(format!("\"{text}\" is not the name of a cron line.")),
            };
            return CronLine::parse(line).map(Schedule::Cron);
        }
        match is_cron_line(text) {
            true => CronLine::parse(text).map(Schedule::Cron),
            false => interval(text).map(Schedule::Every),
        }
    }

    /// Returns when a flow is updated next: a time that is not after `now` means at once. `last` is
    /// when its last update began. A time that was missed therefore counts once. `None` if no time
    /// matches.
    pub fn next_update(&self, last: Option<i64>, now: i64, zone: &impl TimeZone) -> Option<i64> {
        match last {
            // Otherwise the clock was ahead when the last update began, so its time says nothing.
            Some(last) if last <= now.saturating_add(SMALL_STEP) => self.next_after(last, zone),
            _ => Some(now),
        }
    }

    fn next_after(&self, time: i64, zone: &impl TimeZone) -> Option<i64> {
        match self {
            Schedule::Every(interval) => Some(time.saturating_add(*interval)),
            Schedule::Cron(line) => {
                line.next_after(time.div_euclid(SECOND), zone).map(|time| time * SECOND)
            }
        }
    }
}

/// Reports whether a text is a cron line, and not an interval: neither its minute nor its hour has
/// a letter, and it has no time of the form 02:00.
fn is_cron_line(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let is_field = |word: Option<&str>| {
        word.is_some_and(|word| !word.contains(|c: char| c.is_alphabetic() || c == ':'))
    };
    is_field(words.next()) && is_field(words.next())
}

/// Reads an interval: numbers with units, or a time of the form 02:00:00.
fn interval(text: &str) -> Result<i64, String> {
    let wrong = || format!("\"{text}\" is neither an interval nor a cron line.");
    let mut words = text.split_whitespace();
    let mut sum: Option<i64> = None;
    while let Some(word) = words.next() {
        let part = match word.contains(':') {
            true => time_of_day(word).ok_or_else(wrong)?,
            false => {
                let digits = word.bytes().take_while(u8::is_ascii_digit).count();
                let (number, mut unit) = word.split_at(digits);
                if unit.is_empty() {
                    unit = words.next().unwrap_or_default();
                }
                let unit = micros_of(unit, text)?.ok_or_else(wrong)?;
                let number: i64 = number.parse().map_err(|_| wrong())?;
                number.checked_mul(unit).ok_or_else(wrong)?
            }
        };
        sum = Some(sum.unwrap_or(0).checked_add(part).ok_or_else(wrong)?);
    }
    match sum.ok_or_else(wrong)? {
        ..SECOND => Err("The interval is shorter than one second.".to_owned()),
        interval if interval > LONGEST => Err("The interval is longer than 36500 days.".to_owned()),
        interval => Ok(interval),
    }
}

/// Returns a unit in microseconds; `None` if there is no such unit.
fn micros_of(unit: &str, text: &str) -> Result<Option<i64>, String> {
    Ok(match unit.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(MINUTE),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some(HOUR),
        "d" | "day" | "days" => Some(DAY),
        "w" | "week" | "weeks" => Some(7 * DAY),
        "mon" | "mons" | "month" | "months" | "y" | "yr" | "yrs" | "year" | "years" => {
            return Err(format!(
                "\"{text}\" contains months or years, which have no fixed length; a cron line can \
                 name a day of a month."
            ));
        }
        _ => None,
    })
}

/// Reads hours and minutes, and seconds if they are given.
fn time_of_day(text: &str) -> Option<i64> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |text: &str| -> Option<i64> {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let below_60 = |text: &str| number(text).filter(|n| *n < 60);
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] => (number(hours)?, below_60(minutes)?, 0),
        [hours, minutes, seconds] => (number(hours)?, below_60(minutes)?, below_60(seconds)?),
        _ => return None,
    };
    hours.checked_mul(HOUR)?.checked_add(minutes * MINUTE + seconds * SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Utc;

    impl TimeZone for Utc {
        fn offset_at(&self, _: i64) -> i64 {
            0
        }
    }

    fn parse(text: &str) -> Schedule {
        Schedule::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"))
    }

    #[test]
    fn intervals_are_read_as_people_write_them() {
        for (text, length) in [
            ("5 minutes", 5 * MINUTE),
            ("1 second", SECOND),
            ("90s", 90 * SECOND),
            (" 1 hour 30 min ", 90 * MINUTE),
            ("2 DAYS", 2 * DAY),
            ("1 week", 7 * DAY),
            ("00:05:00", 5 * MINUTE),
            ("1 day 02:30", DAY + 150 * MINUTE),
            ("36:00:00", 36 * HOUR),
        ] {
            assert_eq!(parse(text), Schedule::Every(length), "{text}");
        }
    }

    #[test]
    fn cron_lines_are_told_from_intervals() {
        for text in ["0 3 * * *", "*/5 * * * *", "@daily", "@HOURLY", "0 0 1 jan mon"] {
            assert!(matches!(parse(text), Schedule::Cron(_)), "{text}");
        }
        assert_eq!(parse("@midnight"), parse("0 0 * * *"));
        assert_eq!(parse("@annually"), parse("0 0 1 1 *"));
    }

    #[test]
    fn wrong_schedules_are_told() {
        for (text, said) in [
            ("", "\"\" is neither an interval nor a cron line."),
            ("often", "\"often\" is neither an interval nor a cron line."),
            ("5", "\"5\" is neither an interval nor a cron line."),
            ("5 apples", "\"5 apples\" is neither an interval nor a cron line."),
            ("-5 minutes", "\"-5 minutes\" is neither an interval nor a cron line."),
            ("minutes", "\"minutes\" is neither an interval nor a cron line."),
            ("1:75", "\"1:75\" is neither an interval nor a cron line."),
            (
                "99999999999999999999 s",
                "\"99999999999999999999 s\" is neither an interval nor a cron line.",
            ),
            (
                "9223372036854775807 w",
                "\"9223372036854775807 w\" is neither an interval nor a cron line.",
            ),
            ("0 seconds", "The interval is shorter than one second."),
            ("40000 days", "The interval is longer than 36500 days."),
            (
                "1 month",
                "\"1 month\" contains months or years, which have no fixed length; a cron line can name a day of a month.",
            ),
            ("@never", "\"@never\" is not the name of a cron line."),
            (
                "1 2 3",
                "A cron line has five fields: minute, hour, day of the month, month, day of the week.",
            ),
        ] {
            assert_eq!(Schedule::parse(text), Err(said.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_update_comes_after_the_beginning_of_the_last_one() {
        let hourly = parse("1 hour");
        assert_eq!(hourly.next_update(Some(0), 10 * MINUTE, &Utc), Some(HOUR));
        // Missed times count once: the flow is due until an update begins.
        assert_eq!(hourly.next_update(Some(0), 5 * HOUR, &Utc), Some(HOUR));
        assert_eq!(hourly.next_update(Some(5 * HOUR), 5 * HOUR, &Utc), Some(6 * HOUR));
        let at_three = parse("0 3 * * *");
        assert_eq!(at_three.next_update(Some(3 * HOUR), 4 * HOUR, &Utc), Some(DAY + 3 * HOUR));
        assert_eq!(at_three.next_update(Some(3 * HOUR - 1), 4 * HOUR, &Utc), Some(3 * HOUR));
    }

    #[test]
    fn a_flow_that_was_never_updated_is_due() {
        assert_eq!(parse("@yearly").next_update(None, DAY, &Utc), Some(DAY));
        assert_eq!(parse("1 day").next_update(None, DAY, &Utc), Some(DAY));
    }

    #[test]
    fn a_clock_that_was_ahead_delays_no_update() {
        for text in ["1 hour", "@yearly"] {
            let schedule = parse(text);
            assert_eq!(schedule.next_update(Some(400 * DAY), DAY, &Utc), Some(DAY), "{text}");
            // A small step back has no effect.
            let next = schedule.next_update(Some(DAY + SECOND / 2), DAY, &Utc);
            assert!(next.is_some_and(|next| next > DAY + SECOND), "{text}: {next:?}");
        }
        // A clock that jumps ahead causes one update.
        let hourly = parse("1 hour");
        assert_eq!(hourly.next_update(Some(0), 400 * DAY, &Utc), Some(HOUR));
    }

    #[test]
    fn no_time_overflows() {
        assert_eq!(parse("1 hour").next_update(Some(i64::MAX), i64::MAX, &Utc), Some(i64::MAX));
        let far = parse("0 0 29 2 *").next_update(Some(i64::MAX), i64::MAX, &Utc);
        assert!(far.is_some());
        let early = parse("0 0 29 2 *").next_update(Some(i64::MIN), 0, &Utc);
        assert!(early.is_some());
    }
}
