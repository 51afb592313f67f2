//! Every input of the corpus, and mutations of it, through the functions that are fuzzed.
//!
//! The mutations are the same in every run; `TEMPO_LONG_TESTS=1` makes ten times as many.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

/// Mutations for each target, shared by its inputs.
const MUTATIONS: usize = 300;

/// Numbers by splitmix64: the same everywhere, and good enough to choose bytes by.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn range(&mut self, len: usize, longest: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        start..len.min(start + 1 + self.below(longest))
    }
}

/// Changes `input` in one to four places.
fn mutate(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        if input.is_empty() {
            input.push(numbers.next() as u8);
            continue;
        }
        let at = numbers.below(input.len());
        match numbers.below(8) {
            0 => input[at] ^= 1 << numbers.below(8),
            1 => input[at] = numbers.next() as u8,
            2 => input[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            3 => input.truncate(at),
            4 => drop(input.drain(numbers.range(input.len(), 32))),
            5 => {
                let copy = input[numbers.range(input.len(), 64)].to_vec();
                input.splice(at..at, copy);
            }
            6 if !other.is_empty() => {
                let part = other[numbers.range(other.len(), 64)].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let number = numbers.next().to_le_bytes();
                let width = 1 << numbers.below(4);
                for (byte, new) in input[at..].iter_mut().zip(&number[..width]) {
                    *byte = *new;
                }
            }
        }
    }
}

fn replay(target: &str) {
    let run = tempo_fuzz::TARGETS
        .iter()
        .find_map(|(name, run)| (*name == target).then_some(*run))
        .unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    let attempt = |what: String, input: &[u8]| {
        let outcome = std::panic::catch_unwind(|| run(input));
        if outcome.is_err() {
            let kept = std::env::temp_dir().join(format!("tempo-fuzz-{target}"));
            fs::write(&kept, input).unwrap();
            panic!("{target}: {what} fails; the input is in {}", kept.display());
        }
    };
    for (name, input) in &inputs {
        attempt(name.clone(), input);
    }
    let long = std::env::var_os("TEMPO_LONG_TESTS").is_some_and(|value| value == "1");
    let mutations = if long { 10 * MUTATIONS } else { MUTATIONS };
    let mut numbers = Numbers(42);
    for number in 0..mutations {
        let (name, input) = &inputs[number % inputs.len()];
        let other = &inputs[numbers.below(inputs.len())].1;
        let mut input = input.clone();
        mutate(&mut input, other, &mut numbers);
        attempt(format!("mutation {number} of {name}"), &input);
    }
}

#[test]
fn otlp() {
    replay("otlp");
}

#[test]
fn otlp_json() {
    replay("otlp_json");
}

#[test]
fn wal() {
    replay("wal");
}

#[test]
fn traceql() {
    replay("traceql");
}

#[test]
fn yaml() {
    replay("yaml");
}

#[test]
fn parquet() {
    replay("parquet");
}
