//! TraceQL as a language: text to syntax tree and back.
//!
//! Owns the lexer, the parser, the canonical text, the type rules, the rewrite of comparison
//! chains, and what the autocompleter needs (lenient parse, condition groups). Must never
//! evaluate a query against data, do I/O or know how spans are stored.

pub mod ast;
pub mod hints;

pub use ast::{Attribute, FieldExpr, Intrinsic, Query, Scope, Static};
pub use hints::Hints;
