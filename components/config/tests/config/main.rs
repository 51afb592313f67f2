//! The configuration from outside: what is read, what is refused and how, what is shown.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::panic, clippy::unwrap_used)]

mod errors;
mod flags;
mod hostile;
mod reference;
mod shown;
mod spellings;
mod tempo_files;
mod user_overrides;

use tempo_config::{CommandLine, Config, Error};

/// Reads a text without flags and environment.
fn load(text: &str) -> Result<Config, Error> {
    Config::load(Some(text), &CommandLine::default(), &|_| None)
}

/// Reads a text that is right.
#[track_caller]
fn loaded(text: &str) -> Config {
    match load(text) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}

/// Reads a text with flags that are right.
#[track_caller]
fn loaded_with(text: &str, arguments: &[&str]) -> Config {
    let flags = CommandLine::parse(arguments).unwrap();
    match Config::load(Some(text), &flags, &|_| None) {
        Ok(config) => config,
        Err(error) => panic!("{error}"),
    }
}
