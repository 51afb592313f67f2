//! The two ways in which Tempo writes durations.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration in Prometheus' notation: `2w1d`, `336h`, `1h30m`, `500ms`, `0`. Units go from large
/// to small, each at most once; numbers are whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PrometheusDuration(pub Duration);

/// A duration in Go's notation: `1h30m`, `1.5s`, `15ms`, `0`, or a whole number of nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub Duration);

/// Why a text is not a duration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not a duration: {problem}")]
pub struct ParseDurationError {
    text: String,
    problem: &'static str,
}

const NANOS_PER_MICRO: u128 = 1_000;
const NANOS_PER_MILLI: u128 = 1_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;
const NANOS_PER_MINUTE: u128 = 60 * NANOS_PER_SECOND;
const NANOS_PER_HOUR: u128 = 60 * NANOS_PER_MINUTE;
const NANOS_PER_DAY: u128 = 24 * NANOS_PER_HOUR;

/// Prometheus' units, from large to small.
const PROMETHEUS_UNITS: [(&str, u128); 7] = [
    ("y", 365 * NANOS_PER_DAY),
    ("w", 7 * NANOS_PER_DAY),
    ("d", NANOS_PER_DAY),
    ("h", NANOS_PER_HOUR),
    ("m", NANOS_PER_MINUTE),
    ("s", NANOS_PER_SECOND),
    ("ms", NANOS_PER_MILLI),
];

/// Go's units. Both spellings of micro are read.
const GO_UNITS: [(&str, u128); 8] = [
    ("h", NANOS_PER_HOUR),
    ("m", NANOS_PER_MINUTE),
    ("s", NANOS_PER_SECOND),
    ("ms", NANOS_PER_MILLI),
    ("us", NANOS_PER_MICRO),
    ("µs", NANOS_PER_MICRO),
    ("μs", NANOS_PER_MICRO),
    ("ns", 1),
];

/// Splits the first number and unit off `text`.
fn split_component(text: &str) -> (&str, &str, &str) {
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(number_end);
    let unit_end = rest
        .find(|c: char| c.is_ascii_digit() || c == '.')
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    (number, unit, rest)
}

fn from_nanos(nanos: u128) -> Option<Duration> {
    // Both notations are 64-bit integers of nanoseconds in Tempo.
    i64::try_from(nanos)
        .ok()
        .map(|nanos| Duration::from_nanos(nanos.unsigned_abs()))
}

impl PrometheusDuration {
    /// Parses the notation.
    pub fn parse(text: &str) -> Result<Self, ParseDurationError> {
        let failed = |problem| ParseDurationError {
            text: text.to_owned(),
            problem,
        };
        if text == "0" {
            return Ok(Self::default());
        }
        if text.is_empty() {
            return Err(failed("it is empty"));
        }
        let mut total: u128 = 0;
        let mut units = PROMETHEUS_UNITS.iter();
        let mut rest = text;
        while !rest.is_empty() {
            let (number, unit, after) = split_component(rest);
            let number: u64 = number
                .parse()
                .map_err(|_| failed("a whole number must come before each unit"))?;
            let (_, nanos) = units.find(|(name, _)| *name == unit).ok_or_else(|| {
                failed("units are y, w, d, h, m, s, ms, in this order, once each")
            })?;
            total += u128::from(number) * nanos;
            rest = after;
        }
        from_nanos(total)
            .map(Self)
            .ok_or_else(|| failed("it is longer than 292 years"))
    }
}

impl GoDuration {
    /// Parses the notation; no sign, since no setting takes a negative duration.
    pub fn parse(text: &str) -> Result<Self, ParseDurationError> {
        let failed = |problem| ParseDurationError {
            text: text.to_owned(),
            problem,
        };
        if text == "0" {
            return Ok(Self::default());
        }
        if text.is_empty() {
            return Err(failed("it is empty"));
        }
        let mut total: u128 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let (number, unit, after) = split_component(rest);
            let (_, unit_nanos) = GO_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| failed("units are h, m, s, ms, us, ns, and there is no day"))?;
            let nanos = scale(number, *unit_nanos)
                .ok_or_else(|| failed("a number must come before each unit"))?;
            total = total.saturating_add(nanos);
            rest = after;
        }
        from_nanos(total)
            .map(Self)
            .ok_or_else(|| failed("it is longer than 292 years"))
    }
}

/// `number`, maybe with a fraction, times `unit`, without passing through a float.
fn scale(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| match text {
        "" => Some(0),
        text => text.parse::<u64>().ok().map(u128::from),
    };
    let total = digits(whole)?.checked_mul(unit)?;
    // Digits beyond 18 are less than a nanosecond of any unit.
    let fraction = fraction.get(..fraction.len().min(18))?;
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(total + digits(fraction)? * unit / power)
}

impl fmt::Display for PrometheusDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest < NANOS_PER_MILLI {
            return f.write_str("0s");
        }
        for (index, (unit, nanos)) in PROMETHEUS_UNITS.iter().enumerate() {
            // Years and weeks only where nothing remains, as Prometheus prints them.
            if index < 2 && !rest.is_multiple_of(*nanos) {
                continue;
            }
            let count = rest / nanos;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= nanos;
            }
        }
        Ok(())
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let fraction = |f: &mut fmt::Formatter<'_>, nanos: u128, unit: u128, name: &str| {
            let text = format!("{:018}", nanos % unit * (1_000_000_000_000_000_000 / unit));
            let text = text.trim_end_matches('0');
            let point = if text.is_empty() { "" } else { "." };
            write!(f, "{}{point}{text}{name}", nanos / unit)
        };
        match nanos {
            0 => f.write_str("0s"),
            n if n < NANOS_PER_MICRO => write!(f, "{n}ns"),
            n if n < NANOS_PER_MILLI => fraction(f, n, NANOS_PER_MICRO, "µs"),
            n if n < NANOS_PER_SECOND => fraction(f, n, NANOS_PER_MILLI, "ms"),
            n => {
                if n >= NANOS_PER_HOUR {
                    write!(f, "{}h", n / NANOS_PER_HOUR)?;
                }
                if n >= NANOS_PER_MINUTE {
                    write!(f, "{}m", n % NANOS_PER_HOUR / NANOS_PER_MINUTE)?;
                }
                fraction(f, n % NANOS_PER_MINUTE, NANOS_PER_SECOND, "s")
            }
        }
    }
}

impl Serialize for PrometheusDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PrometheusDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = PrometheusDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 336h or 2w")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                PrometheusDuration::parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                PrometheusDuration::parse(&number.to_string()).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 15s or 1h30m")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                GoDuration::parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<Self::Value, E> {
                Ok(GoDuration(Duration::from_nanos(nanos)))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_durations_are_read_and_printed() {
        for (text, seconds, printed) in [
            ("0", 0.0, "0s"),
            ("336h", 336.0 * 3600.0, "2w"),
            ("1w2d", 9.0 * 86_400.0, "9d"),
            ("1h30m", 5400.0, "1h30m"),
            ("16s", 16.0, "16s"),
            ("1s500ms", 1.5, "1s500ms"),
            ("1y", 365.0 * 86_400.0, "1y"),
        ] {
            let parsed = PrometheusDuration::parse(text).unwrap();
            assert_eq!(parsed.0.as_secs_f64(), seconds, "{text}");
            assert_eq!(parsed.to_string(), printed);
        }
        for text in [
            "", "1", "h", "1.5h", "1m1h", "1h1h", "-1h", "1 h", "1us", "9999999y",
        ] {
            assert!(PrometheusDuration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn go_durations_are_read_and_printed() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("15s", 15_000_000_000, "15s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("90m", 5_400_000_000_000, "1h30m0s"),
            ("1m.5s", 60_500_000_000, "1m0.5s"),
            ("1500us", 1_500_000, "1.5ms"),
            ("1µs2ns", 1_002, "1.002µs"),
            ("7ns", 7, "7ns"),
        ] {
            let parsed = GoDuration::parse(text).unwrap();
            assert_eq!(parsed.0.as_nanos(), nanos, "{text}");
            assert_eq!(parsed.to_string(), printed);
        }
        for text in [
            "",
            "1",
            "1d",
            "-1s",
            "s",
            ".s",
            "1..5s",
            "1h 5m",
            "99999999h",
        ] {
            assert!(GoDuration::parse(text).is_err(), "{text}");
        }
    }
}
