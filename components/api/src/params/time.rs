//! Points and ranges in time, as clients write them.

use std::time::Duration;

use tempo_traceql::duration;

use super::QueryParams;
use crate::{BadRequest, go::parse_int};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A range of whole seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First second.
    pub start: u32,
    /// Last second.
    pub end: u32,
}

/// What a range may be, and what is meant when none is given.
#[derive(Debug, Clone, Copy)]
pub struct Clamp {
    /// Nanoseconds since the epoch.
    pub now_nanos: i64,
    /// How far back a request without a range looks.
    pub default_lookback: Duration,
    /// How long before now every range ends: newer data may not have arrived.
    pub end_cutoff: Duration,
}

impl Clamp {
    /// The range that a search or tag request means: `since`, or `start` and `end`, or the recent
    /// past; never later than the cutoff.
    pub fn range(&self, params: &QueryParams) -> Result<TimeRange, BadRequest> {
        self.range_nanos(params)
            .map(|(start, end)| TimeRange {
                start: whole_seconds(start),
                // With the whole of its last second, unlike Tempo's: what has just arrived is
                // found at once where there is no cutoff.
                end: whole_seconds(end_of_second(end)),
            })
            .map_err(|text| BadRequest::new(format!("error parsing date range: {text}")))
    }

    fn range_nanos(&self, params: &QueryParams) -> Result<(i64, i64), String> {
        let latest = back(self.now_nanos, self.end_cutoff);
        let recent = back(self.now_nanos, self.default_lookback);
        if let Some(since) = params.get("since") {
            let since = since_nanos(since)?;
            return Ok((latest.saturating_sub(since), latest));
        }
        let (start, end) = match (params.get("start"), params.get("end")) {
            (None, None) => return Ok((recent, latest)),
            (Some(start), Some(end)) => (start, end),
            _ => {
                return Err(
                    "only one of start and end provided: must provide both or neither".to_owned(),
                );
            }
        };
        let start = named_timestamp("start", start)?;
        let end = named_timestamp("end", end)?;
        Ok(match (end > latest, start > latest) {
            (false, _) => (start, end),
            (true, false) => (start, latest),
            (true, true) => (recent, latest),
        })
    }
}

fn back(nanos: i64, by: Duration) -> i64 {
    nanos.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
}

fn end_of_second(nanos: i64) -> i64 {
    match nanos.rem_euclid(NANOS_PER_SECOND) {
        0 => nanos,
        into_second => nanos.saturating_add(NANOS_PER_SECOND - into_second),
    }
}

/// Seconds that the API's messages can carry: 1970 to 2106.
fn whole_seconds(nanos: i64) -> u32 {
    u32::try_from(nanos.div_euclid(NANOS_PER_SECOND).max(0)).unwrap_or(u32::MAX)
}

/// The `since` parameter as nanoseconds.
pub(super) fn since_nanos(text: &str) -> Result<i64, String> {
    duration::parse_prometheus(text)
        .map_err(|error| format!("could not parse 'since' parameter: {error}"))
}

/// A timestamp parameter as nanoseconds; the error names the parameter.
pub(super) fn named_timestamp(name: &str, text: &str) -> Result<i64, String> {
    timestamp(text).map_err(|error| format!("could not parse '{name}' parameter: {error}"))
}

/// Reads seconds (up to 10 characters), nanoseconds (more), decimal seconds (to the millisecond)
/// or RFC 3339, and returns nanoseconds since the epoch.
fn timestamp(text: &str) -> Result<i64, String> {
    if text.contains('.')
        && let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        let millis = (seconds.fract() * 1_000.0).round() as i64;
        return Ok((seconds.trunc() as i64)
            .saturating_mul(NANOS_PER_SECOND)
            .saturating_add(millis * 1_000_000));
    }
    match parse_int("ParseInt", text) {
        Ok(seconds) if text.len() <= 10 => Ok(seconds.saturating_mul(NANOS_PER_SECOND)),
        Ok(nanos) => Ok(nanos),
        Err(error) => rfc3339(text).ok_or(error),
    }
}

/// Reads `2006-01-02T15:04:05[.999999999](Z|±hh:mm)`.
fn rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| part.parse().ok())?
    };
    let separator = |at: usize, byte: u8| text.as_bytes().get(at) == Some(&byte);
    if ![(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
        .iter()
        .all(|&(at, byte)| separator(at, byte))
    {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !(1..=12).contains(&month)
        || day < 1
        || day > days_in_month(year, month)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        let (digits, after) = fraction.split_at(len);
        nanos = format!("{digits:0<9}").get(..9)?.parse().ok()?;
        rest = after;
    }
    let offset_seconds = match rest.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2]
            if [h1, h2, m1, m2].iter().all(|digit| digit.is_ascii_digit()) =>
        {
            let pair = |tens: u8, ones: u8| i64::from(tens - b'0') * 10 + i64::from(ones - b'0');
            let (hours, minutes) = (pair(*h1, *h2), pair(*m1, *m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3_600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days_since_epoch(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second
        - offset_seconds;
    seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar; years 0 to 9999.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leap_days = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    let days_in_year: i64 = (1..month).map(|month| days_in_month(year, month)).sum();
    // 719_162 days lie between 0001-01-01 and 1970-01-01.
    before * 365 + leap_days + days_in_year + day - 1 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_SECONDS: i64 = 2_000_000;

    fn range(query: &str) -> Result<(u32, u32), String> {
        Clamp {
            now_nanos: NOW_SECONDS * NANOS_PER_SECOND + 5,
            default_lookback: Duration::from_secs(900),
            end_cutoff: Duration::from_secs(30),
        }
        .range(&QueryParams::parse(query))
        .map(|range| (range.start, range.end))
        .map_err(|error| error.0)
    }

    #[test]
    fn timestamps_in_every_form() {
        for (text, want) in [
            ("1571332130", 1_571_332_130_000_000_000),
            ("1571332130934000000", 1_571_332_130_934_000_000),
            ("1571332130.934", 1_571_332_130_934_000_000),
            ("1970-01-01T00:00:01Z", 1_000_000_000),
            ("2002-10-02T15:00:00Z", 1_033_570_800_000_000_000),
            ("2002-10-02T10:00:00.05-05:00", 1_033_570_800_050_000_000),
            ("2024-02-29T00:00:00+01:00", 1_709_161_200_000_000_000),
            ("-5", -5_000_000_000),
        ] {
            assert_eq!(timestamp(text), Ok(want), "{text}");
        }
        for text in [
            "soon",
            "2023-02-29T00:00:00Z",
            "2023-01-01 00:00:00Z",
            "2023-01-01T00:00:00",
            "1.5.5",
        ] {
            assert_eq!(
                timestamp(text),
                Err(format!(
                    "strconv.ParseInt: parsing \"{text}\": invalid syntax"
                ))
            );
        }
    }

    #[test]
    fn ranges_are_completed_and_clamped() {
        for (query, want) in [
            ("", (1_999_100, 1_999_971)),
            ("since=1h", (1_996_370, 1_999_971)),
            ("since=1h&start=1&end=2", (1_996_370, 1_999_971)),
            ("start=10&end=20", (10, 20)),
            ("start=10&end=3000000", (10, 1_999_971)),
            ("start=1999999&end=3000000", (1_999_100, 1_999_971)),
            ("start=10000000001&end=20000000000", (10, 20)),
            ("start=10.5&end=20.001", (10, 21)),
            ("since=100y", (0, 1_999_971)),
        ] {
            assert_eq!(range(query), Ok(want), "{query}");
        }
    }

    #[test]
    fn half_a_range_and_bad_times_are_refused() {
        for (query, want) in [
            (
                "start=10",
                "only one of start and end provided: must provide both or neither",
            ),
            (
                "end=10",
                "only one of start and end provided: must provide both or neither",
            ),
            (
                "start=a&end=10",
                "could not parse 'start' parameter: strconv.ParseInt: parsing \"a\": invalid syntax",
            ),
            (
                "since=x",
                "could not parse 'since' parameter: not a valid duration string: \"x\"",
            ),
        ] {
            assert_eq!(
                range(query),
                Err(format!("error parsing date range: {want}")),
                "{query}"
            );
        }
    }
}
