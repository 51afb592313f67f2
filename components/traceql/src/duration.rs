//! Durations as Go and Prometheus write them.
//!
//! TraceQL accepts both spellings, Tempo's YAML one or the other by the key; both speak about
//! signed nanoseconds in 64 bits, about 292 years.

use std::fmt;

const NANOS_PER_MICRO: u64 = 1_000;
const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NANOS_PER_MINUTE: u64 = 60 * NANOS_PER_SECOND;
const NANOS_PER_HOUR: u64 = 60 * NANOS_PER_MINUTE;
const MILLIS_PER_DAY: u64 = 24 * 60 * 60 * 1_000;

/// Why a text is not a duration. The words are Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing that can be read as a duration.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that does not exist.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
    /// Prometheus: nothing at all.
    #[error("empty duration string")]
    Empty,
    /// Prometheus: nothing that can be read as a duration.
    #[error("not a valid duration string: {0:?}")]
    NotPrometheus(String),
    /// Prometheus: more than 292 years.
    #[error("duration out of range")]
    OutOfRange,
}

/// Go's spelling: a sign, then numbers with fraction and a unit out of `ns us µs ms s m h`, in any
/// order (`1h30m`, `1.5h`, `-100ms`); `0` needs no unit. Nanoseconds.
pub fn parse_go(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after_whole) = leading_digits(rest);
        let (fraction, after_number) = match after_whole.strip_prefix('.') {
            Some(after_dot) => leading_digits(after_dot),
            None => ("", after_whole),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after_number
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after_number.len());
        let (unit, next) = after_number.split_at(unit_end);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let Some(nanos_per_unit) = go_unit(unit) else {
            return Err(DurationError::UnknownUnit {
                unit: unit.to_owned(),
                text: text.to_owned(),
            });
        };
        let whole = parse_number(whole).ok_or_else(invalid)?;
        let nanos = whole
            .checked_mul(nanos_per_unit)
            .and_then(|nanos| nanos.checked_add(fraction_nanos(fraction, nanos_per_unit)))
            .ok_or_else(invalid)?;
        total = total.checked_add(nanos).ok_or_else(invalid)?;
        rest = next;
    }
    if negative {
        0i64.checked_sub_unsigned(total).ok_or_else(invalid)
    } else {
        i64::try_from(total).map_err(|_| invalid())
    }
}

/// Prometheus' spelling: whole numbers with units out of `y w d h m s ms`, each at most once and
/// from the largest to the smallest (`1d12h`); `0` needs no unit. Nanoseconds.
pub fn parse_prometheus(text: &str) -> Result<i64, DurationError> {
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * MILLIS_PER_DAY),
        ("w", 7 * MILLIS_PER_DAY),
        ("d", MILLIS_PER_DAY),
        ("h", 60 * 60 * 1_000),
        ("m", 60 * 1_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let malformed = || DurationError::NotPrometheus(text.to_owned());
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (digits, after) = leading_digits(rest);
        let unit_end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        if digits.is_empty() {
            return Err(malformed());
        }
        // Each unit is taken from what is left of the list, which keeps the order.
        let Some((_, millis_per_unit)) = units.find(|(name, _)| *name == unit) else {
            return Err(malformed());
        };
        total = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*millis_per_unit))
            .and_then(|millis| millis.checked_add(total))
            .ok_or(DurationError::OutOfRange)?;
        rest = next;
    }
    total
        .checked_mul(NANOS_PER_MILLI)
        .and_then(|nanos| i64::try_from(nanos).ok())
        .ok_or(DurationError::OutOfRange)
}

/// A duration in Go's own text form: `1h30m0s`, `1.5s`, `100µs`, `0s`.
pub struct GoDuration {
    /// Nanoseconds.
    pub nanos: i64,
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.nanos.unsigned_abs();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0..NANOS_PER_MICRO => write!(f, "{nanos}ns"),
            NANOS_PER_MICRO..NANOS_PER_MILLI => decimal(f, nanos, NANOS_PER_MICRO, "µs"),
            NANOS_PER_MILLI..NANOS_PER_SECOND => decimal(f, nanos, NANOS_PER_MILLI, "ms"),
            _ => {
                let hours = nanos / NANOS_PER_HOUR;
                let minutes = nanos % NANOS_PER_HOUR / NANOS_PER_MINUTE;
                if hours > 0 {
                    write!(f, "{hours}h{minutes}m")?;
                } else if minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                decimal(f, nanos % NANOS_PER_MINUTE, NANOS_PER_SECOND, "s")
            }
        }
    }
}

/// `nanos / per_unit` without trailing zeros.
fn decimal(f: &mut fmt::Formatter<'_>, nanos: u64, per_unit: u64, unit: &str) -> fmt::Result {
    write!(f, "{}", nanos / per_unit)?;
    let (mut fraction, mut scale) = (nanos % per_unit, per_unit);
    if fraction > 0 {
        f.write_str(".")?;
        while fraction > 0 {
            scale /= 10;
            write!(f, "{}", fraction / scale)?;
            fraction %= scale;
        }
    }
    f.write_str(unit)
}

fn go_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // Both the micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => NANOS_PER_MICRO,
        "ms" => NANOS_PER_MILLI,
        "s" => NANOS_PER_SECOND,
        "m" => NANOS_PER_MINUTE,
        "h" => NANOS_PER_HOUR,
        _ => return None,
    })
}

fn leading_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn parse_number(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        Some(0)
    } else {
        digits.parse().ok()
    }
}

/// Nanoseconds of the digits behind a decimal point, rounded towards zero in floats as Go does.
fn fraction_nanos(digits: &str, nanos_per_unit: u64) -> u64 {
    let mut value: u64 = 0;
    let mut scale: f64 = 1.0;
    for digit in digits.bytes() {
        let Some(next) = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .filter(|value| *value <= i64::MAX as u64)
        else {
            break; // Digits beyond 64 bits say nothing about nanoseconds.
        };
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (nanos_per_unit as f64 / scale)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_spellings() {
        for (text, nanos) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1m1h", 3_660_000_000_000),
            ("1.5h30m", 7_200_000_000_000),
            (".24h", 864_000_000_000),
            ("5.s", 5_000_000_000),
            ("2h45m30.5s", 9_930_500_000_000),
            ("100µs", 100_000),
            ("100μs", 100_000),
            ("-1.5s", -1_500_000_000),
            ("+5ns", 5),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.100000000000000000000h", 360_000_000_000),
        ] {
            assert_eq!(parse_go(text), Ok(nanos), "{text}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            ("10", "time: missing unit in duration \"10\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1hh", "time: unknown unit \"hh\" in duration \"1hh\""),
            (".s", "time: invalid duration \".s\""),
            ("s", "time: invalid duration \"s\""),
            ("3000000h", "time: invalid duration \"3000000h\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
        ] {
            assert_eq!(
                parse_go(text).map_err(|error| error.to_string()),
                Err(error.to_owned())
            );
        }
    }

    #[test]
    fn prometheus_spellings() {
        for (text, seconds) in [
            ("0", 0),
            ("1d", 86_400),
            ("1d12h", 129_600),
            ("1w2d", 777_600),
            ("1y", 31_536_000),
        ] {
            assert_eq!(
                parse_prometheus(text),
                Ok(seconds * 1_000_000_000),
                "{text}"
            );
        }
        assert_eq!(parse_prometheus("1s5ms"), Ok(1_005_000_000));
        for (text, error) in [
            ("", "empty duration string"),
            ("1h1d", "not a valid duration string: \"1h1d\""),
            ("1m1m", "not a valid duration string: \"1m1m\""),
            ("1.5h", "not a valid duration string: \"1.5h\""),
            ("1us", "not a valid duration string: \"1us\""),
            ("h", "not a valid duration string: \"h\""),
            ("300y", "duration out of range"),
        ] {
            assert_eq!(
                parse_prometheus(text).map_err(|error| error.to_string()),
                Err(error.to_owned())
            );
        }
    }

    #[test]
    fn go_text() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (864_000_000_000, "14m24s"),
            (-1_500_000_000, "-1.5s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
            (i64::MAX, "2562047h47m16.854775807s"),
        ] {
            assert_eq!(GoDuration { nanos }.to_string(), text);
            assert_eq!(parse_go(text), Ok(nanos));
        }
    }
}
