//! For how many spans a span stands, by its W3C trace state.
//!
//! OpenTelemetry's consistent probability sampling keeps a span if the lower 56 bits of its
//! randomness reach a threshold, and tells the threshold (`th`) and sometimes the randomness (`rv`)
//! in the member `ot` of the trace state.

use tempo_table::{ABSENT, Intrinsic as Stored};

use super::selected::Selected;
use crate::error::EngineError;

/// Digits of a threshold and of a randomness value.
const DIGITS: usize = 14;
const ALL: u64 = 1 << 56;

/// The weight of every span; `None` when all stand for themselves.
pub(crate) fn weights(selected: &Selected<'_>) -> Result<Option<Vec<f64>>, EngineError> {
    let key = Stored::TraceState.into();
    let column = selected.column(&key)?;
    let Some(lane) = &column.strings else {
        return Ok(None);
    };
    let by_code: Vec<f64> = lane.dict.iter().map(weight).collect();
    if by_code.iter().all(|&weight| weight == 1.0) {
        return Ok(None);
    }
    let of = |code: u32| match code {
        ABSENT => 1.0,
        code => by_code[code as usize],
    };
    Ok(Some(match selected.places(key.level())? {
        None => lane.codes.iter().map(|&code| of(code)).collect(),
        Some(places) => places
            .iter()
            .map(|&place| of(lane.codes[place as usize]))
            .collect(),
    }))
}

/// The weight that a trace state tells; 1 when it tells none.
fn weight(trace_state: &[u8]) -> f64 {
    let member = trace_state
        .split(|&byte| byte == b',')
        .find_map(|member| member.trim_ascii().strip_prefix(b"ot="));
    let Some(member) = member else {
        return 1.0;
    };
    let field = |name: &[u8]| {
        member
            .split(|&byte| byte == b';')
            .find_map(|field| field.strip_prefix(name))
    };
    let Some(threshold) = field(b"th:").and_then(hexadecimal) else {
        return 1.0;
    };
    let weight = ALL as f64 / (ALL - threshold) as f64;
    match field(b"rv:").filter(|digits| digits.len() == DIGITS) {
        None => weight,
        // So that spans of one trace round alike, and all of them come to the right sum.
        Some(randomness) => match hexadecimal(randomness) {
            None => weight,
            Some(randomness) => {
                let above = (randomness >> 3) as f64 / (1_u64 << 53) as f64;
                match above < weight.fract() {
                    true => weight.ceil(),
                    false => weight.floor(),
                }
            }
        },
    }
}

/// Up to 14 digits, the highest ones first: those that are missing are zeros.
fn hexadecimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    let mut value = 0;
    for &digit in digits {
        value = value << 4 | u64::from((digit as char).to_digit(16)?);
    }
    Some(value << (4 * (DIGITS - digits.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_tell_weights() {
        for (state, want) in [
            ("", 1.0),
            ("ot=th:0", 1.0),
            ("ot=th:8", 2.0),
            ("congo=t61,ot=th:c", 4.0),
            ("ot=rv:12345678901234;th:c", 4.0),
            ("ot=th:e;x:y, rojo=1", 8.0),
            ("ot=th:", 1.0),
            ("ot=th:xyz", 1.0),
            ("ot=th:123456789012345", 1.0),
            ("ot=p:8", 1.0),
            ("notot=th:8", 1.0),
        ] {
            assert_eq!(weight(state.as_bytes()), want, "{state}");
        }
        // 2^56 / (2^56 - 0x55…5) is one and a half.
        let third = "55555555555555";
        let odd = weight(format!("ot=th:{third}").as_bytes());
        assert!((odd - 1.5).abs() < 1e-9);
        for (randomness, want) in [("00000000000000", 2.0), ("ffffffffffffff", 1.0)] {
            let state = format!("ot=th:{third};rv:{randomness}");
            assert_eq!(weight(state.as_bytes()), want);
        }
        // Of another length it is not randomness.
        let state = format!("ot=th:{third};rv:00");
        assert_eq!(weight(state.as_bytes()), odd);
    }
}
