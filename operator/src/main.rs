//! The binary `tempo-operator`.

#![allow(clippy::print_stdout)]

fn main() {
    print!("{}", tempo_operator::api::crd::yaml());
}
