//! The `index` object of a block: the last trace id of every row group.
//!
//! Owns its JSON: `{"rowGroups":["<base64 of 16 bytes>", …]}`. Must never touch storage.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tempo_model::TraceId;

/// The last trace id of every row group, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowGroupIndex {
    last_ids: Vec<TraceId>,
}

/// Why an `index` object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not the JSON of an index.
    #[error("index of row groups: {0}")]
    Json(#[from] serde_json::Error),
    /// An entry that is not base64 of 16 bytes.
    #[error("index of row groups: entry {position} is not a base64 trace id")]
    Id {
        /// Its position, from 0.
        position: usize,
    },
    /// Entries that do not ascend.
    #[error("index of row groups: entry {position} is smaller than the one before")]
    Order {
        /// Its position, from 0.
        position: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(rename = "rowGroups", default)]
    row_groups: Option<Vec<String>>,
}

impl RowGroupIndex {
    /// An index without row groups.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next row group.
    pub fn push(&mut self, last_id: TraceId) {
        self.last_ids.push(last_id);
    }

    /// The last id of every row group.
    pub fn last_ids(&self) -> &[TraceId] {
        &self.last_ids
    }

    /// The only row group that can hold `id`; `None` when the block cannot.
    pub fn find(&self, id: &TraceId) -> Option<usize> {
        let group = self.last_ids.partition_point(|last| last < id);
        (group < self.last_ids.len()).then_some(group)
    }

    /// The content of the object.
    pub fn to_json(&self) -> Bytes {
        let mut text = String::from("{\"rowGroups\":");
        if self.last_ids.is_empty() {
            text.push_str("null");
        } else {
            let mut separator = '[';
            for id in &self.last_ids {
                text.push(separator);
                text.push('"');
                STANDARD.encode_string(id.as_bytes(), &mut text);
                text.push('"');
                separator = ',';
            }
            text.push(']');
        }
        text.push('}');
        Bytes::from(text)
    }

    /// Reads the object.
    pub fn parse(json: &[u8]) -> Result<Self, IndexError> {
        let document: Document = serde_json::from_slice(json)?;
        let mut last_ids = Vec::new();
        for (position, text) in document.row_groups.unwrap_or_default().iter().enumerate() {
            let id = STANDARD
                .decode(text)
                .ok()
                .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
                .map(TraceId::from_bytes)
                .ok_or(IndexError::Id { position })?;
            if last_ids.last().is_some_and(|last| *last > id) {
                return Err(IndexError::Order { position });
            }
            last_ids.push(id);
        }
        Ok(Self { last_ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: &str = r#"{"rowGroups":["DQAAAAAAAAAAAAAAAAAADQ==","GgAAAAAAAAAAAAAAAAAAGg==","JwAAAAAAAAAAAAAAAAAAJw==","KAAAAAAAAAAAAAAAAAAAKA=="]}"#;

    fn id(first: u8, last: u8) -> TraceId {
        let mut bytes = [0; 16];
        bytes[0] = first;
        bytes[15] = last;
        TraceId::from_bytes(bytes)
    }

    #[test]
    fn writes_and_reads_what_tempo_writes() {
        let mut index = RowGroupIndex::new();
        for n in [0x0d, 0x1a, 0x27, 0x28] {
            index.push(id(n, n));
        }
        assert_eq!(index.to_json(), FOUR);
        assert_eq!(RowGroupIndex::parse(FOUR.as_bytes()).unwrap(), index);
        assert_eq!(RowGroupIndex::new().to_json(), r#"{"rowGroups":null}"#);
        assert_eq!(
            RowGroupIndex::parse(br#"{"rowGroups":null}"#).unwrap(),
            RowGroupIndex::new()
        );
    }

    #[test]
    fn finds_the_first_group_that_reaches_the_id() {
        let index = RowGroupIndex::parse(FOUR.as_bytes()).unwrap();
        assert_eq!(index.find(&id(0, 0)), Some(0));
        assert_eq!(index.find(&id(0x0d, 0x0d)), Some(0));
        assert_eq!(index.find(&id(0x0d, 0x0e)), Some(1));
        assert_eq!(index.find(&id(0x28, 0x28)), Some(3));
        assert_eq!(index.find(&id(0x28, 0x29)), None);
    }

    #[test]
    fn bad_entries_are_named() {
        let error = |json: &str| {
            RowGroupIndex::parse(json.as_bytes())
                .unwrap_err()
                .to_string()
        };
        assert!(error("{").contains("EOF"));
        assert!(error(r#"{"rowGroups":["AA=="]}"#).contains("entry 0 is not a base64 trace id"));
        let swapped = FOUR.replace("DQAAAAAAAAAAAAAAAAAADQ==", "KQAAAAAAAAAAAAAAAAAAKQ==");
        assert!(error(&swapped).contains("entry 1 is smaller"));
    }
}
