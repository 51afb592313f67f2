//! Bytes that no encoder makes: they end in an error or in a faithful result, never in a panic.

use proptest::{collection::vec, prelude::*};
use prost::Message;
use tempo_distributor::regroup::{Bounds, Scratch, count_spans, regroup};
use tempo_model::otlp::{write_len_prefixed, write_varint};

use crate::{
    regroup::{UNBOUNDED, assert_regrouped},
    samples::{Request, golden_inputs, request, span},
};

/// One change to a message.
#[derive(Debug, Clone)]
enum Mutation {
    Set {
        at: usize,
        byte: u8,
    },
    Flip {
        at: usize,
        bit: u8,
    },
    Cut {
        at: usize,
        bytes: usize,
    },
    Insert {
        at: usize,
        bytes: Vec<u8>,
    },
    Repeat {
        from: usize,
        bytes: usize,
        to: usize,
    },
    End {
        at: usize,
    },
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<usize>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        (at(), 1..40_usize).prop_map(|(at, bytes)| Mutation::Cut { at, bytes }),
        (at(), vec(any::<u8>(), 1..12)).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        (at(), 1..200_usize, at()).prop_map(|(from, bytes, to)| Mutation::Repeat {
            from,
            bytes,
            to
        }),
        at().prop_map(|at| Mutation::End { at }),
    ]
}

impl Mutation {
    fn apply(&self, message: &mut Vec<u8>) {
        if message.is_empty() {
            return;
        }
        let len = message.len();
        let upto = |start: usize, bytes: usize| (start + bytes).min(len);
        match self {
            Self::Set { at, byte } => message[at % len] = *byte,
            Self::Flip { at, bit } => message[at % len] ^= 1 << bit,
            Self::Cut { at, bytes } => {
                let at = at % len;
                message.drain(at..upto(at, *bytes));
            }
            Self::Insert { at, bytes } => {
                let at = at % len;
                message.splice(at..at, bytes.iter().copied());
            }
            Self::Repeat { from, bytes, to } => {
                let (from, to) = (from % len, to % len);
                let piece = message[from..upto(from, *bytes)].to_vec();
                message.splice(to..to, piece);
            }
            Self::End { at } => message.truncate(at % len),
        }
    }
}

/// The walk must not take what a full decoder would not, and must lose nothing of what it takes.
fn check(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(regrouped) = regroup(bytes, &UNBOUNDED, &mut Scratch::default()) else {
        return Ok(false);
    };
    let decoded = Request::decode(bytes)
        .map_err(|error| TestCaseError::fail(format!("taken, but undecodable: {error}")))?;
    prop_assert_eq!(
        count_spans(bytes).unwrap(),
        regrouped
            .traces
            .iter()
            .map(|chunk| u64::from(chunk.spans))
            .sum::<u64>()
    );
    assert_regrouped(&decoded, &regrouped);
    Ok(true)
}

/// Cases of each generator: 400, or 3,000 with `TEMPO_LONG_TESTS` set.
fn cases() -> u32 {
    if std::env::var_os("TEMPO_LONG_TESTS").is_some() {
        3_000
    } else {
        400
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn mutated_golden_requests(
        which in any::<prop::sample::Index>(),
        mutations in vec(any_mutation(), 1..4),
    ) {
        // The small ones: there a change hits something that matters.
        let inputs: Vec<_> = golden_inputs()
            .into_iter()
            .filter(|(_, bytes)| bytes.len() < 10_000)
            .collect();
        let (_, mut bytes) = inputs[which.index(inputs.len())].clone();
        for mutation in &mutations {
            mutation.apply(&mut bytes);
        }
        check(&bytes)?;
    }

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..300)) {
        check(&bytes)?;
    }

    /// Small limits on everything while bytes are bad: the rewriting path must hold, too.
    #[test]
    fn mutated_requests_with_oversized_attributes(
        mutations in vec(any_mutation(), 0..3),
        max_attribute_bytes in 0..12_usize,
    ) {
        let mut bytes = request(vec![span(1, 1), span(2, 2), span(1, 3)]).encode_to_vec();
        for mutation in &mutations {
            mutation.apply(&mut bytes);
        }
        let bounds = Bounds { max_attribute_bytes, ..UNBOUNDED };
        if let Ok(regrouped) = regroup(&bytes, &bounds, &mut Scratch::default()) {
            for chunk in &regrouped.traces {
                let trace = crate::samples::decode_trace(&chunk.trace);
                for resource in &trace.resource_spans {
                    for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                        prop_assert_eq!(&*span.trace_id, &chunk.id.as_bytes()[..]);
                        for attribute in &span.attributes {
                            prop_assert!(attribute.key.len() <= max_attribute_bytes);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_cut_of_a_request_is_refused_or_whole() {
    let bytes = request(vec![span(1, 1), span(2, 2)]).encode_to_vec();
    let taken: Vec<_> = (0..=bytes.len())
        .filter(|&end| check(&bytes[..end]).unwrap())
        .collect();
    assert_eq!(taken, [0, bytes.len()]);
}

#[test]
fn crafted_bytes_are_refused_with_a_clear_message() {
    let wrapped = |numbers: &[u32], inside: &[u8]| {
        numbers
            .iter()
            .rev()
            .fold(inside.to_vec(), |inside, number| {
                let mut outside = Vec::new();
                write_len_prefixed(&mut outside, *number, &inside);
                outside
            })
    };
    let mut huge_varint = Vec::new();
    write_varint(&mut huge_varint, 6 << 3);
    huge_varint.extend([0xff; 10]);
    let mut huge_length = Vec::new();
    write_varint(&mut huge_length, 5 << 3 | 2);
    write_varint(&mut huge_length, u64::MAX);
    let mut wrong_type = Vec::new();
    write_varint(&mut wrong_type, 9 << 3);
    write_varint(&mut wrong_type, 1);
    let cases = [
        (
            wrapped(&[1, 2, 2], &huge_varint),
            "invalid protobuf varint at byte 1 in resource_spans[0].scope_spans[0].spans[0]",
        ),
        (
            wrapped(&[1, 2, 2], &huge_length),
            "truncated protobuf message at byte 0 in resource_spans[0].scope_spans[0].spans[0]",
        ),
        (
            wrapped(&[1, 2, 2], &wrong_type),
            "protobuf field 9 has the wrong wire type in \
             resource_spans[0].scope_spans[0].spans[0].attributes[0]",
        ),
        (
            wrapped(&[1, 2], &[0x13]),
            "invalid protobuf tag at byte 0 in resource_spans[0].scope_spans[0]",
        ),
        (vec![0x0a, 0x7f], "truncated protobuf message at byte 0"),
        (
            vec![0x08, 0x01],
            "protobuf field 1 has the wrong wire type in resource_spans[0]",
        ),
    ];
    for (bytes, want) in cases {
        let error = regroup(&bytes, &UNBOUNDED, &mut Scratch::default()).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
}

/// Nesting without end: refused at the limit, by a walk whose own depth is bounded.
#[test]
fn bottomless_nesting_does_not_exhaust_the_stack() {
    let mut value = Vec::new();
    for _ in 0..5_000 {
        let mut array = Vec::new();
        write_len_prefixed(&mut array, 1, &value);
        let mut outer = Vec::new();
        write_len_prefixed(&mut outer, 5, &array);
        value = outer;
    }
    let mut attribute = Vec::new();
    write_len_prefixed(&mut attribute, 2, &value);
    let mut span = span(1, 1).encode_to_vec();
    write_len_prefixed(&mut span, 9, &attribute);
    let mut scope = Vec::new();
    write_len_prefixed(&mut scope, 2, &span);
    let mut resource = Vec::new();
    write_len_prefixed(&mut resource, 2, &scope);
    let mut bytes = Vec::new();
    write_len_prefixed(&mut bytes, 1, &resource);
    let error = regroup(&bytes, &UNBOUNDED, &mut Scratch::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("attribute value is nested deeper"),
        "{error}"
    );
}
