//! Whole numbers as YAML may spell them.

use std::fmt;

use serde::{Deserializer, de};

/// A whole number that is not negative; `1e6` and `1000000.0` are whole, as for Tempo.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = u64;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number, not negative")
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
            u64::try_from(number)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
        }
        fn visit_f64<E: de::Error>(self, number: f64) -> Result<u64, E> {
            // Beyond 2^53 a float no longer tells whole numbers apart.
            let exact = (0.0..=9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0;
            if exact {
                Ok(number as u64)
            } else {
                Err(E::invalid_value(de::Unexpected::Float(number), &self))
            }
        }
    }
    deserializer.deserialize_any(Visitor)
}
