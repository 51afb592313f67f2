//! How the rest of the system asks for a query.

use crate::ast::{Attribute, FieldExpr, PipelineElement, Query, SpansetExpr};
use crate::error::{Error, IdentifierError, ParseError, QueryTooLarge};
use crate::hints::names::SKIP_AST_TRANSFORMATIONS;
use crate::{parser, rewrite};

/// `max_query_expression_size_bytes` when it is not set.
pub const DEFAULT_MAX_QUERY_BYTES: usize = 131_072;

/// What a tenant may do.
#[derive(Debug, Clone)]
pub struct ParseOptions {
    /// Longer texts are refused; 0 means no limit.
    pub max_query_bytes: usize,
    /// Whether hints that are not safe count.
    pub allow_unsafe_hints: bool,
    /// Whether `.a = 1 || .a = 2` stays as written.
    pub skip_rewrites: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            max_query_bytes: DEFAULT_MAX_QUERY_BYTES,
            allow_unsafe_hints: false,
            skip_rewrites: false,
        }
    }
}

/// Parses, validates and rewrites a query under Tempo's default limits.
pub fn parse(text: &str) -> Result<Query, Error> {
    parse_with(text, &ParseOptions::default())
}

/// Parses, validates and rewrites a query.
pub fn parse_with(text: &str, options: &ParseOptions) -> Result<Query, Error> {
    check_size(text, options.max_query_bytes)?;
    let query = parser::parse(text)?;
    query.validate()?;
    let hinted = query
        .hints
        .strings(SKIP_AST_TRANSFORMATIONS, options.allow_unsafe_hints)
        .is_some_and(|names| {
            names
                .iter()
                .any(|name| matches!(name.trim(), rewrite::OR_TO_IN | rewrite::ALL))
        });
    if hinted || options.skip_rewrites {
        return Ok(query);
    }
    Ok(rewrite::or_to_in(query))
}

/// Parses a query as it is written: neither validated nor rewritten, of any size.
pub fn parse_without_rewrites(text: &str) -> Result<Query, ParseError> {
    parser::parse(text)
}

/// Whether the text is short enough; 0 means no limit.
pub fn check_size(text: &str, max_bytes: usize) -> Result<(), QueryTooLarge> {
    if max_bytes > 0 && text.len() > max_bytes {
        return Err(QueryTooLarge { max_bytes });
    }
    Ok(())
}

/// Parses one attribute or intrinsic: `span.http.status_code`, `duration`, `.a`.
pub fn parse_identifier(text: &str) -> Result<Attribute, IdentifierError> {
    let failed = |reason: String| IdentifierError {
        text: text.to_owned(),
        reason,
    };
    let query = parser::parse(&format!("{{{text}}}")).map_err(|error| failed(error.to_string()))?;
    let elements = query.single_pipeline().map(|pipeline| &*pipeline.elements);
    match elements {
        Some([PipelineElement::Spanset(SpansetExpr::Filter(FieldExpr::Attribute(attribute)))]) => {
            Ok(attribute.clone())
        }
        _ => Err(failed("expected an attribute".to_owned())),
    }
}
