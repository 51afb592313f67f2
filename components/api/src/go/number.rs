//! Numbers and booleans as `strconv` reads and writes them, with its errors.

use std::fmt::Write as _;

/// A text between double quotes with Go's escapes, as `%q` prints it.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn failed(function: &str, text: &str, reason: &str) -> String {
    format!("strconv.{function}: parsing {}: {reason}", quote(text))
}

/// Reads an unsigned number of at most `bits` bits, decimal digits only.
pub(crate) fn parse_uint(text: &str, bits: u32) -> Result<u64, String> {
    const NAME: &str = "ParseUint";
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed(NAME, text, "invalid syntax"));
    }
    match text.parse::<u64>() {
        Ok(value) if bits >= 64 || value >> bits == 0 => Ok(value),
        _ => Err(failed(NAME, text, "value out of range")),
    }
}

/// Reads a signed 64-bit number; `function` is the Go function that the error names.
pub(crate) fn parse_int(function: &str, text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed(function, text, "invalid syntax"));
    }
    text.parse()
        .map_err(|_| failed(function, text, "value out of range"))
}

/// Reads a boolean in the spellings that Go knows.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(failed("ParseBool", text, "invalid syntax")),
    }
}

/// Integers below this are doubles exactly.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;
/// Fractions that `ryu` writes without an exponent, as Go does.
const RYU_WITHOUT_EXPONENT: std::ops::Range<f64> = 1e-5..MAX_EXACT_INTEGER;

/// Appends a finite double as Go's `encoding/json` writes it: shortest digits, an exponent below
/// 1e-6 and from 1e21 on.
pub(crate) fn format_float(out: &mut Vec<u8>, value: f64) {
    use std::io::Write as _;
    let magnitude = value.abs();
    // The shortest digits are the same, and almost all values are of these two kinds.
    if magnitude < MAX_EXACT_INTEGER
        && value.fract() == 0.0
        && !(value == 0.0 && value.is_sign_negative())
    {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        return;
    }
    if RYU_WITHOUT_EXPONENT.contains(&magnitude) {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
        return;
    }
    let written = if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        if magnitude >= 1e21 {
            out.write_all(text.replace('e', "e+").as_bytes())
        } else {
            out.write_all(text.as_bytes())
        }
    } else {
        write!(out, "{value}")
    };
    debug_assert!(written.is_ok(), "writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fail_as_in_go() {
        assert_eq!(parse_uint("42", 32), Ok(42));
        assert_eq!(
            parse_uint("-5", 32),
            Err("strconv.ParseUint: parsing \"-5\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_uint("4294967296", 32),
            Err("strconv.ParseUint: parsing \"4294967296\": value out of range".to_owned())
        );
        assert_eq!(parse_int("ParseInt", "-7"), Ok(-7));
        assert_eq!(parse_int("Atoi", "+7"), Ok(7));
        assert_eq!(
            parse_int("Atoi", "a\"b"),
            Err("strconv.Atoi: parsing \"a\\\"b\": invalid syntax".to_owned())
        );
        assert_eq!(
            parse_int("ParseInt", "9223372036854775808"),
            Err("strconv.ParseInt: parsing \"9223372036854775808\": value out of range".to_owned())
        );
        assert_eq!(parse_bool("True"), Ok(true));
        assert!(parse_bool("yes").is_err());
    }

    #[test]
    fn floats_print_as_in_go_json() {
        for (value, want) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e-6, "0.000001"),
            (9.99e-6, "0.00000999"),
            (1e-5, "0.00001"),
            (-1.25e-5, "-0.0000125"),
            (1.0 / 15.0, "0.06666666666666667"),
            (123_456.789, "123456.789"),
            (-4_503_599_627_370_495.5, "-4503599627370495.5"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1.5e-7, "1.5e-7"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.25e300, "1.25e+300"),
        ] {
            let mut out = Vec::new();
            format_float(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
