//! Points in time as block metas hold them.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Seconds from the unix epoch to 0001-01-01T00:00:00Z, which Go writes for "no time".
const ZERO_SECONDS: i64 = -62_135_596_800;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since the unix epoch, or [`Timestamp::ZERO`], the year 1, which is how Tempo's
/// writer says "no time". Zero is before every other time.
///
/// Times before 1677-09-21 or after 2262-04-11 do not fit in 64 bits of nanoseconds; they become
/// the nearest time that does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// Why a text is not a time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{text}' is not an RFC 3339 time: {problem}")]
pub struct ParseTimestampError {
    /// What was read.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Timestamp {
    /// 0001-01-01T00:00:00Z: no time.
    pub const ZERO: Self = Self(i64::MIN);
    /// The last time there is.
    pub const MAX: Self = Self(i64::MAX);

    /// The time this many nanoseconds after the unix epoch.
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        if nanos == i64::MIN {
            Self(i64::MIN + 1)
        } else {
            Self(nanos)
        }
    }

    /// The time this many seconds after the unix epoch.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self::from_unix_nanos(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// The wall clock's time.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Whether this is [`Timestamp::ZERO`].
    pub const fn is_zero(self) -> bool {
        self.0 == i64::MIN
    }

    /// Nanoseconds since the unix epoch; the smallest `i64` for [`Timestamp::ZERO`].
    pub const fn unix_nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since the unix epoch, rounded down; the year 1 for [`Timestamp::ZERO`].
    pub const fn unix_seconds(self) -> i64 {
        if self.is_zero() {
            ZERO_SECONDS
        } else {
            self.0.div_euclid(NANOS_PER_SECOND)
        }
    }

    /// Nanoseconds within the second.
    const fn subsecond_nanos(self) -> u32 {
        if self.is_zero() {
            0
        } else {
            self.0.rem_euclid(NANOS_PER_SECOND) as u32
        }
    }

    /// The time `duration` later; zero stays zero.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        if self.is_zero() {
            return self;
        }
        Self::from_unix_nanos(self.0.saturating_add(saturating_nanos(duration)))
    }

    /// The time `duration` earlier; zero stays zero.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        if self.is_zero() {
            return self;
        }
        Self::from_unix_nanos(self.0.saturating_sub(saturating_nanos(duration)))
    }

    /// How long before `self` the time `earlier` was; zero when it was not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let nanos = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }

    /// Parses any RFC 3339 time, with any offset.
    pub fn parse_rfc3339(text: &str) -> Result<Self, ParseTimestampError> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|error| ParseTimestampError {
            text: text.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(Self::from_parts(
            time.timestamp(),
            time.timestamp_subsec_nanos(),
        ))
    }

    /// The time of these seconds since the unix epoch and nanoseconds after them.
    pub(crate) fn from_parts(seconds: i64, nanos: u32) -> Self {
        if seconds == ZERO_SECONDS && nanos == 0 {
            return Self::ZERO;
        }
        let total = i128::from(seconds) * i128::from(NANOS_PER_SECOND) + i128::from(nanos);
        let clamped = total.clamp(i128::from(i64::MIN + 1), i128::from(i64::MAX));
        Self(i64::try_from(clamped).unwrap_or(i64::MAX))
    }

    /// The protobuf form. Zero is written out as the year 1, never left out.
    pub fn to_proto(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.unix_seconds(),
            nanos: self.subsecond_nanos() as i32,
        }
    }

    /// The time of a protobuf message; an absent one is zero.
    pub fn from_proto(proto: Option<&prost_types::Timestamp>) -> Self {
        match proto {
            None => Self::ZERO,
            Some(time) => Self::from_parts(time.seconds, u32::try_from(time.nanos).unwrap_or(0)),
        }
    }
}

fn saturating_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl Default for Timestamp {
    /// [`Timestamp::ZERO`].
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self::from_unix_nanos(saturating_nanos(after)),
            Err(before) => Self::from_unix_nanos(-saturating_nanos(before.duration())),
        }
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self::from_parts(time.timestamp(), time.timestamp_subsec_nanos())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, with as many digits of the fraction as it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = DateTime::from_timestamp(self.unix_seconds(), self.subsecond_nanos())
        else {
            return write!(f, "{}ns", self.0);
        };
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            time.year(),
            time.month(),
            time.day(),
            time.hour(),
            time.minute(),
            time.second()
        )?;
        let nanos = self.subsecond_nanos();
        if nanos != 0 {
            let digits = format!("{nanos:09}");
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse_rfc3339(text).map_err(E::custom)
            }
            fn visit_unit<E: de::Error>(self) -> Result<Timestamp, E> {
                Ok(Timestamp::ZERO)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, printed: &str) {
        assert_eq!(Timestamp::parse_rfc3339(text).unwrap().to_string(), printed);
    }

    #[test]
    fn any_offset_is_read_and_utc_is_written_with_a_trimmed_fraction() {
        check("2023-11-14T22:13:20Z", "2023-11-14T22:13:20Z");
        check("2023-11-14T23:13:20.120+01:00", "2023-11-14T22:13:20.12Z");
        check(
            "2026-11-22T17:44:39.781869553Z",
            "2026-11-22T17:44:39.781869553Z",
        );
        check("1960-01-01T00:00:00.5Z", "1960-01-01T00:00:00.5Z");
    }

    #[test]
    fn the_zero_time_survives_both_forms() {
        let zero = Timestamp::parse_rfc3339("0001-01-01T00:00:00Z").unwrap();
        assert_eq!(zero, Timestamp::ZERO);
        assert_eq!(zero.to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(zero.to_proto().seconds, -62_135_596_800);
        assert_eq!(
            Timestamp::from_proto(Some(&zero.to_proto())),
            Timestamp::ZERO
        );
        assert!(zero < Timestamp::from_unix_nanos(i64::MIN));
        assert_eq!(zero.saturating_add(Duration::from_secs(1)), zero);
    }

    #[test]
    fn times_out_of_range_become_the_nearest() {
        check("1500-01-01T00:00:00Z", "1677-09-21T00:12:43.145224193Z");
        check("3000-01-01T00:00:00Z", "2262-04-11T23:47:16.854775807Z");
        assert!(Timestamp::parse_rfc3339("yesterday").is_err());
    }
}
