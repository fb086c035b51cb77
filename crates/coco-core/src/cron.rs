//! Cron lines: five fields that select minutes of a local time, and the next of these minutes.
//!
//! A zone changes its offset from UTC, so local times can be skipped or repeated. A line whose hour
//! is fixed (the field does not begin with `*`) counts a skipped time right after the change, and a
//! repeated time once. Other lines count every minute that a local clock shows.

/// A time zone.
pub trait TimeZone {
    /// Returns how many seconds local time is ahead of UTC at a time: seconds since 1970.
    fn offset_at(&self, time: i64) -> i64;
}

const DAY: i64 = 86_400;

/// The number of days in which every line that has a match has one: a 29 February that is also a
/// certain day of the week comes back within 40 years.
const SEARCHED_DAYS: i64 = 41 * 366;

/// Limits times to years in which no computation overflows.
const LATEST: i64 = 4_000_000 * DAY;

/// A number of steps that no search for the next time needs.
const STEPS: usize = 200;

/// What a field of a line selects.
struct FieldKind {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names of the values, from `first` on.
    names: &'static [&'static str],
}

const MINUTE: FieldKind = FieldKind { name: "minute", first: 0, last: 59, names: &[] };
const HOUR: FieldKind = FieldKind { name: "hour", first: 0, last: 23, names: &[] };
const DAY_OF_MONTH: FieldKind =
    FieldKind { name: "day of the month", first: 1, last: 31, names: &[] };
const MONTH: FieldKind = FieldKind {
    name: "month",
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// Sunday is 0 and 7.
const DAY_OF_WEEK: FieldKind = FieldKind {
    name: "day of the week",
    first: 0,
    last: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// The values that a field selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    /// A bit for each value.
    values: u64,
    /// Whether the field begins with `*`.
    is_open: bool,
}

impl Field {
    /// Reads a field: values, ranges and steps, separated by commas.
    fn parse(text: &str, kind: &FieldKind) -> Result<Field, String> {
        let mut values = 0;
        for part in text.split(',') {
            values |= kind.parse_part(part)?;
        }
        Ok(Field { values, is_open: text.starts_with('*') })
    }

    fn has(self, value: i64) -> bool {
        (0..64).contains(&value) && self.values & (1 << value) != 0
    }
}

impl FieldKind {
    /// Reads a part of a field: `*`, a value or a range, the first and the last of these with a step.
    fn parse_part(&self, part: &str) -> Result<u64, String> {
        let wrong = || {
            let FieldKind { name, first, last, .. } = self;
            format!("\"{part}\" is not valid for the {name}, which is from {first} to {last}.")
        };
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let step = match step {
            None => 1,
            Some(step) => number(step).filter(|step| *step > 0).ok_or_else(wrong)?,
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (self.first, self.last),
            Some((first, last)) => {
                (self.value(first).ok_or_else(wrong)?, self.value(last).ok_or_else(wrong)?)
            }
            // A step needs a range.
            None if part.contains('/') => return Err(wrong()),
            None => {
                let value = self.value(range).ok_or_else(wrong)?;
                (value, value)
            }
        };
        if first > last {
            return Err(wrong());
        }
        let steps = usize::try_from(step).unwrap_or(usize::MAX);
        Ok((first..=last).step_by(steps).fold(0, |bits, value| bits | (1 << value)))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let mut named = self.names.iter().zip(self.first..);
        let named = named.find(|(name, _)| name.eq_ignore_ascii_case(text));
        let value = named.map_or_else(|| number(text), |(_, value)| Some(value))?;
        (self.first..=self.last).contains(&value).then_some(value)
    }
}

/// Returns a number that consists of digits only.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// A cron line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CronLine {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
}

impl CronLine {
    /// Reads a line of five fields. Returns a sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<CronLine, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(
                "A cron line has five fields: minute, hour, day of the month, month, day of \
                        the week."
                    .to_owned(),
            );
        };
        let mut line = CronLine {
            minute: Field::parse(minute, &MINUTE)?,
            hour: Field::parse(hour, &HOUR)?,
            day: Field::parse(day, &DAY_OF_MONTH)?,
            month: Field::parse(month, &MONTH)?,
            weekday: Field::parse(weekday, &DAY_OF_WEEK)?,
        };
        if line.weekday.has(7) {
            line.weekday.values = (line.weekday.values | 1) & !(1 << 7);
        }
        match line.next_local(0) {
            Some(_) => Ok(line),
            None => Err("No day matches the cron line.".to_owned()),
        }
    }

    /// Returns the first matching time after a time, both in seconds since 1970; `None` if there is
    /// none for decades.
    pub fn next_after(&self, time: i64, zone: &impl TimeZone) -> Option<i64> {
        let mut at = time.clamp(-LATEST, LATEST);
        // The local time after which to search. It is that of `at`, or less after a change of the
        // offset, at which the search includes the time of the change.
        let mut after = at + zone.offset_at(at);
        for _ in 0..STEPS {
            let offset = zone.offset_at(at);
            let local = self.next_local(after)?;
            let next = local - offset;
            let is_far = next - at > 2 * DAY;
            let end = if is_far { at + DAY } else { next };
            if zone.offset_at(end) == offset {
                if is_far {
                    at = next - 2 * DAY;
                    after = at + zone.offset_at(at);
                    continue;
                }
                if !self.hour.is_open && was_before(local, next, offset, zone) {
                    (at, after) = (next, local);
                    continue;
                }
                return Some(next);
            }
            let change = first_change(at, end, offset, zone);
            let new = zone.offset_at(change);
            // The change skips the local times up to that of its end.
            if !self.hour.is_open && new > offset && local < change + new {
                return Some(change);
            }
            (at, after) = (change, change + new - 1);
        }
        None
    }

    /// Returns the first matching local time after a local time. Both are counted as if a day always
    /// had 24 hours.
    fn next_local(&self, after: i64) -> Option<i64> {
        let minute = after.div_euclid(60) + 1;
        let (today, mut from) = (minute.div_euclid(1440), minute.rem_euclid(1440));
        for day in today..today + SEARCHED_DAYS {
            if self.matches_day(day)
                && let Some(minute) = (from..1440).find(|m| self.matches_minute(*m))
            {
                return Some((day * 1440 + minute) * 60);
            }
            from = 0;
        }
        None
    }

    fn matches_minute(&self, minute_of_day: i64) -> bool {
        self.hour.has(minute_of_day / 60) && self.minute.has(minute_of_day % 60)
    }

    /// Reports whether a day, counted from 1970-01-01, matches. As in cron, one of the days is enough
    /// if both are restricted.
    fn matches_day(&self, day: i64) -> bool {
        let (month, of_month) = month_and_day(day);
        // 1970-01-01 was a Thursday.
        let (of_month, of_week) =
            (self.day.has(of_month), self.weekday.has((day + 4).rem_euclid(7)));
        let is_day = match self.day.is_open || self.weekday.is_open {
            true => of_month && of_week,
            false => of_month || of_week,
        };
        self.month.has(month) && is_day
    }
}

/// Reports whether clocks have shown a local time before, because they were set back since.
fn was_before(local: i64, time: i64, offset: i64, zone: &impl TimeZone) -> bool {
    let before = zone.offset_at(time - DAY);
    before > offset && zone.offset_at(local - before) == before
}

/// Returns the first time, after `from` and not after `end`, at which the offset is another one.
fn first_change(from: i64, end: i64, offset: i64, zone: &impl TimeZone) -> i64 {
    let (mut same, mut other) = (from, end);
    while other - same > 1 {
        let middle = same + (other - same) / 2;
        match zone.offset_at(middle) == offset {
            true => same = middle,
            false => other = middle,
        }
    }
    other
}

/// Returns the month and the day of the month of a day that is counted from 1970-01-01.
fn month_and_day(day: i64) -> (i64, i64) {
    // Counted from 1 March of a year that 400 divides, so that a leap day ends a year.
    let of_era = (day + 719_468).rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(i64);

    impl TimeZone for Fixed {
        fn offset_at(&self, _: i64) -> i64 {
            self.0
        }
    }

    /// Berlin in 2026: summer time from 29 March to 25 October, each at 01:00 UTC.
    struct Berlin;

    impl TimeZone for Berlin {
        fn offset_at(&self, time: i64) -> i64 {
            let is_summer = (utc(3, 29, 1, 0)..utc(10, 25, 1, 0)).contains(&time);
            if is_summer { 7200 } else { 3600 }
        }
    }

    /// Lord Howe Island in 2026: half an hour, back on 5 April at 15:00 UTC of the day before.
    struct LordHowe;

    impl TimeZone for LordHowe {
        fn offset_at(&self, time: i64) -> i64 {
            if time < utc(4, 4, 15, 0) { 39_600 } else { 37_800 }
        }
    }

    /// Seconds from 1970 to a time in 2026.
    fn utc(month: i64, day: i64, hour: i64, minute: i64) -> i64 {
        const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let days = 20_454 + BEFORE[month as usize - 1] + day - 1;
        days * DAY + hour * 3600 + minute * 60
    }

    fn line(text: &str) -> CronLine {
        CronLine::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"))
    }

    /// The next times after a time.
    fn next(text: &str, after: i64, zone: &impl TimeZone, count: usize) -> Vec<i64> {
        let line = line(text);
        let mut all = vec![];
        let mut at = after;
        for _ in 0..count {
            at = line.next_after(at, zone).unwrap_or_else(|| panic!("{text}: no next time"));
            all.push(at);
        }
        all
    }

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        assert_eq!(month_and_day(0), (1, 1));
        assert_eq!(month_and_day(-1), (12, 31));
        // 2000-02-29, 2026-01-01, 2100-02-28 and the day after it.
        assert_eq!(month_and_day(11_016), (2, 29));
        assert_eq!(month_and_day(20_454), (1, 1));
        assert_eq!(month_and_day(47_540), (2, 28));
        assert_eq!(month_and_day(47_541), (3, 1));
    }

    #[test]
    fn the_next_time_comes_after_the_given_one() {
        let zone = Fixed(0);
        assert_eq!(
            next("*/5 * * * *", utc(1, 1, 0, 0), &zone, 2),
            [utc(1, 1, 0, 5), utc(1, 1, 0, 10)]
        );
        assert_eq!(next("*/5 * * * *", utc(1, 1, 0, 0) - 1, &zone, 1), [utc(1, 1, 0, 0)]);
        assert_eq!(next("59 23 31 12 *", utc(1, 1, 0, 0), &zone, 1), [utc(12, 31, 23, 59)]);
        assert_eq!(
            next("0 9-17/4 * * *", utc(1, 1, 10, 0), &zone, 3),
            [utc(1, 1, 13, 0), utc(1, 1, 17, 0), utc(1, 2, 9, 0)]
        );
        assert_eq!(
            next("0,30 3 * * *", utc(1, 1, 4, 0), &zone, 2),
            [utc(1, 2, 3, 0), utc(1, 2, 3, 30)]
        );
    }

    #[test]
    fn days_are_those_of_the_month_or_of_the_week() {
        let zone = Fixed(0);
        // 2026-01-01 is a Thursday.
        assert_eq!(
            next("0 0 * * mon", utc(1, 1, 0, 0), &zone, 2),
            [utc(1, 5, 0, 0), utc(1, 12, 0, 0)]
        );
        assert_eq!(next("0 0 * * 7", utc(1, 1, 0, 0), &zone, 1), [utc(1, 4, 0, 0)]);
        assert_eq!(next("0 0 * * SUN", utc(1, 1, 0, 0), &zone, 1), [utc(1, 4, 0, 0)]);
        assert_eq!(
            next("0 0 * * 5-7", utc(1, 1, 0, 0), &zone, 4),
            [utc(1, 2, 0, 0), utc(1, 3, 0, 0), utc(1, 4, 0, 0), utc(1, 9, 0, 0)]
        );
        // Both are restricted: one of them is enough.
        assert_eq!(
            next("0 0 13 * fri", utc(1, 1, 0, 0), &zone, 3),
            [utc(1, 2, 0, 0), utc(1, 9, 0, 0), utc(1, 13, 0, 0)]
        );
        assert_eq!(next("0 0 1 feb *", utc(1, 1, 0, 0), &zone, 1), [utc(2, 1, 0, 0)]);
        // The next leap day.
        assert_eq!(next("0 0 29 2 *", utc(1, 1, 0, 0), &zone, 1), [21_243 * DAY]);
    }

    #[test]
    fn a_line_means_local_time() {
        assert_eq!(next("0 3 * * *", utc(1, 1, 0, 0), &Fixed(3600), 1), [utc(1, 1, 2, 0)]);
        assert_eq!(next("0 3 * * *", utc(1, 1, 0, 0), &Fixed(-5 * 3600), 1), [utc(1, 1, 8, 0)]);
        // In winter, and in summer of the same year.
        assert_eq!(next("0 12 1 1,7 *", utc(1, 1, 11, 0), &Berlin, 1), [utc(7, 1, 10, 0)]);
        assert_eq!(next("0 12 1 7,12 *", utc(7, 1, 10, 0), &Berlin, 1), [utc(12, 1, 11, 0)]);
    }

    #[test]
    fn a_skipped_time_counts_right_after_the_change() {
        let change = utc(3, 29, 1, 0);
        let before = utc(3, 28, 12, 0);
        assert_eq!(next("30 2 * * *", before, &Berlin, 2), [change, utc(3, 30, 0, 30)]);
        // Several skipped times count once.
        assert_eq!(next("0,15,30 2 * * *", before, &Berlin, 2), [change, utc(3, 30, 0, 0)]);
        // The time of the change itself is no skipped one.
        assert_eq!(next("0 3 * * *", before, &Berlin, 2), [change, utc(3, 30, 1, 0)]);
        // Whatever runs every hour runs an hour later by the clock.
        assert_eq!(
            next("30 * * * *", utc(3, 29, 0, 0), &Berlin, 2),
            [utc(3, 29, 0, 30), utc(3, 29, 1, 30)]
        );
        assert_eq!(
            next("*/20 * * * *", utc(3, 29, 0, 40), &Berlin, 2),
            [change, utc(3, 29, 1, 20)]
        );
    }

    #[test]
    fn a_repeated_time_counts_once() {
        let before = utc(10, 24, 12, 0);
        // 02:30 in summer time is 00:30 UTC.
        assert_eq!(
            next("30 2 * * *", before, &Berlin, 2),
            [utc(10, 25, 0, 30), utc(10, 26, 1, 30)]
        );
        assert_eq!(next("0 3 * * *", before, &Berlin, 2), [utc(10, 25, 2, 0), utc(10, 26, 2, 0)]);
        // In the repeated hour, only the next day is left.
        assert_eq!(next("30 2 * * *", utc(10, 25, 1, 10), &Berlin, 1), [utc(10, 26, 1, 30)]);
        // Whatever runs every hour runs in both hours.
        assert_eq!(
            next("30 * * * *", utc(10, 25, 0, 0), &Berlin, 3),
            [utc(10, 25, 0, 30), utc(10, 25, 1, 30), utc(10, 25, 2, 30)]
        );
        assert_eq!(
            next("*/30 * * * *", utc(10, 25, 0, 30), &Berlin, 3),
            [utc(10, 25, 1, 0), utc(10, 25, 1, 30), utc(10, 25, 2, 0)]
        );
        // Half an hour is set back from 02:00 to 01:30.
        assert_eq!(
            next("45 1 * * *", utc(4, 4, 12, 0), &LordHowe, 2),
            [utc(4, 4, 14, 45), utc(4, 5, 15, 15)]
        );
        assert_eq!(
            next("45 * * * *", utc(4, 4, 14, 0), &LordHowe, 3),
            [utc(4, 4, 14, 45), utc(4, 4, 15, 15), utc(4, 4, 16, 15)]
        );
    }

    #[test]
    fn the_last_hour_of_a_day_can_be_repeated() {
        /// At midnight, clocks are set back to 23:00.
        struct AtMidnight;
        impl TimeZone for AtMidnight {
            fn offset_at(&self, time: i64) -> i64 {
                if time < utc(4, 5, 3, 0) { -3 * 3600 } else { -4 * 3600 }
            }
        }
        // 23:30 on 4 April comes at 02:30 UTC, and again at 03:30.
        let times = next("30 * 4 4 *", utc(4, 5, 2, 0), &AtMidnight, 2);
        assert_eq!(times, [utc(4, 5, 2, 30), utc(4, 5, 3, 30)]);
    }

    #[test]
    fn wrong_lines_are_told() {
        for (text, said) in [
            (
                "* * * *",
                "A cron line has five fields: minute, hour, day of the month, month, day of the week.",
            ),
            (
                "* * * * * *",
                "A cron line has five fields: minute, hour, day of the month, month, day of the week.",
            ),
            ("60 * * * *", "\"60\" is not valid for the minute, which is from 0 to 59."),
            ("* 24 * * *", "\"24\" is not valid for the hour, which is from 0 to 23."),
            ("* * 0 * *", "\"0\" is not valid for the day of the month, which is from 1 to 31."),
            ("* * * 13 *", "\"13\" is not valid for the month, which is from 1 to 12."),
            ("* * * * 8", "\"8\" is not valid for the day of the week, which is from 0 to 7."),
            ("5/2 * * * *", "\"5/2\" is not valid for the minute, which is from 0 to 59."),
            ("*/0 * * * *", "\"*/0\" is not valid for the minute, which is from 0 to 59."),
            ("9-5 * * * *", "\"9-5\" is not valid for the minute, which is from 0 to 59."),
            ("1, * * * *", "\"\" is not valid for the minute, which is from 0 to 59."),
            ("-1 * * * *", "\"-1\" is not valid for the minute, which is from 0 to 59."),
            ("+1 * * * *", "\"+1\" is not valid for the minute, which is from 0 to 59."),
            (
                "99999999999 * * * *",
                "\"99999999999\" is not valid for the minute, which is from 0 to 59.",
            ),
            ("0 0 30 2 *", "No day matches the cron line."),
        ] {
            assert_eq!(CronLine::parse(text), Err(said.to_owned()), "{text}");
        }
    }

    #[test]
    fn lines_that_mean_the_same_are_equal() {
        assert_eq!(line("0 0 * * 0"), line("0  0 * * 7"));
        assert_eq!(line("0,30 0 1 jan *"), line("0-59/30 0 1 1 *"));
        assert_ne!(line("0 0 * * 0"), line("0 0 * * 1"));
    }
}
