//! TraceQL as a language: text to syntax tree and back.
//!
//! Owns the lexer, the parser, the canonical text (`Display` of the tree), the type rules, the
//! rewrite of comparison chains, and what the autocompleter needs (lenient parse, condition
//! groups). Must never evaluate a query against data, do I/O or know how spans are stored.

pub mod ast;
mod build;
pub mod constant;
mod display;
pub mod duration;
mod error;
mod groups;
pub mod hints;
mod lenient;
mod lexer;
mod parser;
mod pattern;
mod query;
mod rewrite;
mod scanner;
mod token;
mod types;
mod validate;

pub use ast::{Attribute, FieldExpr, Intrinsic, Query, Scope, Static};
pub use error::{
    Error, IdentifierError, ParseError, QueryTooLarge, TooManyConditionGroups, ValidationError,
};
pub use groups::{
    Condition, ConditionGroups, ConditionTest, DEFAULT_MAX_CONDITION_GROUPS, condition_groups,
};
pub use hints::Hints;
pub use lenient::{normalize, parse_lenient};
pub use parser::{MAX_NESTING_DEPTH, MAX_PATTERNS_PER_QUERY, MAX_TREE_DEPTH};
pub use pattern::{Pattern, PatternError, anchored};
pub use query::{
    DEFAULT_MAX_QUERY_BYTES, ParseOptions, check_size, parse, parse_identifier, parse_with,
    parse_without_rewrites,
};
pub use rewrite::REWRITE_NAMES;
pub use token::is_attribute_rune;
pub use types::Type;
pub use validate::{MAX_COMPARE_TOP_VALUES, MAX_GROUP_BY_ATTRIBUTES};
