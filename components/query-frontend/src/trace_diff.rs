//! What differs between two traces: the documents of `POST /api/v2/traces/diff`.
//!
//! Owns how spans of two traces are paired, what counts as a change, and the shapes of the answers
//! (`trace-patch-v0`, `trace-summary-v0-native`, `trace-summary-v0-composed`, all of them Grafana
//! Tempo's). Must never look for a trace: it is given two whole ones.

mod pairs;
mod patch;
mod summary;
mod tree;
mod values;

use prost::Message as _;
use serde::Serialize;
use tempo_api::params::DiffFormat;
use tempo_proto::tempopb::Trace;

use self::{pairs::Pairs, patch::Patch, summary::Summary, tree::SpanTree};

/// A patch that takes more bytes than this is left out of a composed document.
const MAX_COMPOSED_PATCH_BYTES: usize = 65_536;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiffError {
    /// A stored trace cannot be read.
    #[error("stored trace is not readable: {0}")]
    Unreadable(#[from] prost::DecodeError),
    /// Paths of so many spans so deep would fill the memory.
    #[error(
        "trace is too deep to be compared: the paths of its spans have {path_elements} elements together, more than {max}",
        max = tree::MAX_PATH_ELEMENTS
    )]
    TooDeep {
        /// Of all spans of a trace.
        path_elements: usize,
    },
    /// The document cannot be written.
    #[error("writing the difference of two traces: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// One side of the comparison, as every document names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    trace_id: String,
    span_count: usize,
}

/// Something the reader should know of how far the document can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Warning {
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Composed<'a> {
    version: &'static str,
    summary: &'a Summary,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a Patch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_omitted: Option<PatchOmitted>,
}

#[derive(Serialize)]
struct PatchOmitted {
    bytes: usize,
    reason: &'static str,
}

/// The document, as JSON, that tells how `compare` differs from `base`; both are serialized
/// `Trace`s.
///
/// # Errors
/// When a trace is not readable, or too deep.
pub(crate) fn diff(format: DiffFormat, base: &[u8], compare: &[u8]) -> Result<Vec<u8>, DiffError> {
    let (base, compare) = (Trace::decode(base)?, Trace::decode(compare)?);
    let base = SpanTree::new(&base, "base")?;
    let compare = SpanTree::new(&compare, "compare")?;
    let pairs = Pairs::new(&base, &compare);
    let patch = Patch::new(&base, &compare, &pairs);
    if format == DiffFormat::Patch {
        return Ok(serde_json::to_vec(&patch)?);
    }
    let summary = Summary::new(&base, &compare, &patch);
    if format == DiffFormat::Summary {
        return Ok(serde_json::to_vec(&summary)?);
    }
    let bytes = serde_json::to_vec(&patch)?.len();
    let fits = bytes <= MAX_COMPOSED_PATCH_BYTES;
    Ok(serde_json::to_vec(&Composed {
        version: DiffFormat::Composed.name(),
        summary: &summary,
        patch: fits.then_some(&patch),
        patch_omitted: (!fits).then_some(PatchOmitted {
            bytes,
            reason: "over_budget",
        }),
    })?)
}

#[cfg(test)]
mod tests;
