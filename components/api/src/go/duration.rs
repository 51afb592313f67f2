//! Durations: Go's (`1h30m`, `1.5s`) and Prometheus's (`1d`, `2w`).

use std::time::Duration;

use super::number::quote;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Nanoseconds per unit, in the spellings that Go reads.
fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        _ => return None,
    })
}

/// Reads a duration as Go's `time.ParseDuration` does and returns nanoseconds; the error is Go's
/// text.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
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
        let whole_len = digits(rest);
        let (whole, after) = rest.split_at(whole_len);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_len = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let Some(scale) = unit_nanos(unit) else {
            return Err(format!(
                "time: unknown unit {} in duration {}",
                quote(unit),
                quote(text)
            ));
        };
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| invalid())?
        };
        total = whole
            .checked_mul(scale)
            .and_then(|nanos| nanos.checked_add(fraction_nanos(fraction, scale)))
            .and_then(|nanos| total.checked_add(nanos))
            .filter(|&nanos| nanos <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = after;
    }
    if negative {
        Ok((total as i64).wrapping_neg())
    } else {
        i64::try_from(total).map_err(|_| invalid())
    }
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// `0.fraction` of `scale`, with the digits that fit a 64-bit number.
fn fraction_nanos(fraction: &str, scale: u64) -> u64 {
    let mut numerator: u64 = 0;
    let mut denominator = 1.0;
    for digit in fraction.bytes() {
        let Some(next) = numerator
            .checked_mul(10)
            .and_then(|n| n.checked_add(u64::from(digit - b'0')))
            .filter(|&n| n <= i64::MAX as u64)
        else {
            break;
        };
        numerator = next;
        denominator *= 10.0;
    }
    (numerator as f64 * (scale as f64 / denominator)) as u64
}

/// Prints nanoseconds as Go prints a `time.Duration`: `168h0m0s`, `1m30s`, `1.5ms`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let small = |unit: u64, name: &str| format!("{sign}{}{name}", with_fraction(magnitude, unit));
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => small(1, "ns"),
        1_000..1_000_000 => small(1_000, "\u{b5}s"),
        1_000_000..NANOS_PER_SECOND => small(1_000_000, "ms"),
        _ => {
            let seconds_total = magnitude / NANOS_PER_SECOND;
            let hours = seconds_total / 3_600;
            let minutes = seconds_total / 60 % 60;
            let seconds = with_fraction(
                magnitude - (seconds_total - seconds_total % 60) * NANOS_PER_SECOND,
                NANOS_PER_SECOND,
            );
            if hours > 0 {
                format!("{sign}{hours}h{minutes}m{seconds}s")
            } else if minutes > 0 {
                format!("{sign}{minutes}m{seconds}s")
            } else {
                format!("{sign}{seconds}s")
            }
        }
    }
}

/// `value / unit` with as many decimals as it needs; `unit` is a power of ten.
fn with_fraction(value: u64, unit: u64) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let decimals = format!("{rest:0width$}");
    format!("{whole}.{}", decimals.trim_end_matches('0'))
}

/// Reads a duration as Prometheus writes them (`1h`, `1d12h`; no decimals, units in descending
/// order, each once).
pub(crate) fn parse_prometheus_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("empty duration string".to_owned());
    }
    let invalid = || format!("not a valid duration string: {}", quote(text));
    let mut millis: u64 = 0;
    let mut rest = text;
    let mut allowed = UNITS.as_slice();
    while !rest.is_empty() {
        let (number, after) = rest.split_at(digits(rest));
        let unit_len = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let position = allowed
            .iter()
            .position(|(name, _)| *name == unit)
            .filter(|_| !number.is_empty())
            .ok_or_else(invalid)?;
        millis = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(allowed[position].1))
            .and_then(|part| millis.checked_add(part))
            .filter(|&total| total <= i64::MAX as u64 / 1_000_000)
            .ok_or("duration out of range")?;
        allowed = &allowed[position + 1..];
        rest = after;
    }
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_parse_or_fail_with_gos_text() {
        let ok = [
            ("0", 0),
            ("1.5s", 1_500_000_000),
            ("100ms", 100_000_000),
            ("-1m", -60_000_000_000),
            ("1h30m", 5_400_000_000_000),
            (".5\u{b5}s", 500),
            ("9223372036854775807ns", i64::MAX),
        ];
        for (text, want) in ok {
            assert_eq!(parse_duration(text), Ok(want), "{text}");
        }
        let bad = [
            (
                "10seconds",
                "time: unknown unit \"seconds\" in duration \"10seconds\"",
            ),
            ("10", "time: missing unit in duration \"10\""),
            ("", "time: invalid duration \"\""),
            ("s", "time: invalid duration \"s\""),
            (
                "9223372036854775808ns",
                "time: invalid duration \"9223372036854775808ns\"",
            ),
        ];
        for (text, want) in bad {
            assert_eq!(parse_duration(text), Err(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_print_as_in_go() {
        for (nanos, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (2_000_000, "2ms"),
            (1_000_000_000, "1s"),
            (90_000_000_000, "1m30s"),
            (604_800_000_000_000, "168h0m0s"),
            (-61_001_000_000, "-1m1.001s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ] {
            assert_eq!(format_duration(nanos), want);
        }
    }

    #[test]
    fn prometheus_durations_take_whole_units_in_order() {
        assert_eq!(
            parse_prometheus_duration("1h"),
            Ok(Duration::from_secs(3_600))
        );
        assert_eq!(
            parse_prometheus_duration("1d12h500ms"),
            Ok(Duration::from_millis(129_600_500))
        );
        for text in ["1.5h", "h", "1m1h", "1h1h", "10", "1 h"] {
            assert_eq!(
                parse_prometheus_duration(text),
                Err(format!("not a valid duration string: \"{text}\"")),
            );
        }
        assert_eq!(
            parse_prometheus_duration("99999999999y"),
            Err("duration out of range".to_owned())
        );
    }
}
