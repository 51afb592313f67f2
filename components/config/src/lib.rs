//! The configuration: Tempo 3's YAML and flags.
//!
//! Owns every key of Tempo 3 as plain structs with Tempo's defaults ([`blocks`]), the strict
//! reader with places and hints, `${VAR}`, the command line, warnings, the effective
//! configuration and the reference page. Must never read a file, a clock or the environment: the
//! binary hands those in, and maps the structs onto the components' own settings.

mod block;
pub mod blocks;
mod document;
mod error;
mod expand;
mod flags;
mod load;
mod nearest;
mod reference;
mod render;
mod retired;
mod runtime_overrides;
mod target;
mod units;
mod value;
mod warnings;

pub use blocks::root::RawConfig;
pub use error::{Error, Issue, Place};
pub use expand::expand;
pub use flags::{Action, CommandLine, CommandLineError, DEFAULT_HEALTH_URL, help};
pub use load::{Config, RenderMode};
pub use reference::reference_markdown;
pub use runtime_overrides::{
    Problem, parse_runtime_overrides, parse_runtime_overrides_with, render_runtime_overrides,
};
pub use target::Target;
pub use units::{
    Anything, ByteSize, CommaList, DurationOrNanos, Enabled, GoDuration, PrometheusDuration,
    Scalar, Secret, TextList,
};
pub use warnings::Warning;
