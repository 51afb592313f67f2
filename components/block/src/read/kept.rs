//! What was decoded of a row group, kept in the cache of the process for queries to come.
//!
//! Owns how parts of a row group are named in the cache and what they weigh. Only parts of whole
//! row groups are kept, never of selected traces.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use tempo_backend::{
    BlockMeta,
    cache::{Cache, CacheKey, CacheRole},
};
use tempo_table::{AttributeScope, Column, ColumnKey, StringDict, Structure};
use uuid::Uuid;

use super::{attributes::AttributeSlots, group::LeafIndex, pages::PageMap};

/// A dictionary beyond this size is decoded each time it is needed.
const MAX_DICTIONARY_BYTES: usize = 4 * 1024 * 1024;

/// The cache, and what is kept of one block in it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kept {
    cache: Cache,
    tenant: Arc<str>,
    block: Uuid,
    row_group: u64,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({}, row group {})", self.block, self.row_group)
    }
}

/// A part of a row group. The number of its kind tells parts apart.
#[derive(Clone, Copy)]
enum Part<'a> {
    Structure,
    Events,
    Links,
    Slots(AttributeScope),
    Column(&'a ColumnKey),
    AskedColumn(&'a ColumnKey),
    AskedDictionary(LeafIndex),
    Pages(LeafIndex),
    Dictionary(LeafIndex),
}

impl Part<'_> {
    fn numbers(self) -> (u64, u64) {
        match self {
            Self::Structure => (0, 0),
            Self::Events => (1, 0),
            Self::Links => (2, 0),
            Self::Slots(scope) => (3, scope as u64),
            Self::Column(key) => (4, hash(key)),
            Self::AskedColumn(key) => (5, hash(key)),
            Self::AskedDictionary(leaf) => (6, leaf as u64),
            Self::Pages(leaf) => (7, leaf as u64),
            Self::Dictionary(leaf) => (8, leaf as u64),
        }
    }
}

fn hash(key: &ColumnKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// How often little of something was asked for while it was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    /// All of it was decoded then. When it is gone again, there is no room for it.
    Again,
}

impl Kept {
    /// What is kept of a block.
    pub(crate) fn new(cache: &Cache, meta: &BlockMeta) -> Self {
        Self {
            cache: cache.clone(),
            tenant: Arc::clone(&meta.tenant_id),
            block: meta.block_id,
            row_group: 0,
        }
    }

    /// What is kept of one of its row groups.
    pub(crate) fn of_row_group(&self, row_group: usize) -> Self {
        Self {
            row_group: row_group as u64,
            ..self.clone()
        }
    }

    fn key(&self, part: Part<'_>) -> CacheKey {
        let (kind, detail) = part.numbers();
        CacheKey {
            role: CacheRole::Columns,
            tenant: Arc::clone(&self.tenant),
            block: self.block,
            part: (self.row_group << 8 | kind, detail),
        }
    }

    fn get<T: Send + Sync + 'static>(&self, part: Part<'_>) -> Option<Arc<T>> {
        self.cache.get(&self.key(part))
    }

    fn insert<T: Send + Sync + 'static>(&self, part: Part<'_>, value: Arc<T>, bytes: usize) {
        self.cache.insert(self.key(part), value, bytes as u64);
    }

    pub(crate) fn structure(&self) -> Option<Arc<Structure>> {
        self.get(Part::Structure)
    }

    pub(crate) fn keep_structure(&self, structure: &Arc<Structure>) {
        let rows = structure.trace_spans.len()
            + structure.trace_resources.len()
            + structure.resource_scopes.len()
            + structure.scope_spans.len()
            + structure.span_resource.len()
            + structure.span_scope.len();
        self.insert(Part::Structure, Arc::clone(structure), rows * 4);
    }

    /// Offsets of events, or else of links.
    pub(crate) fn offsets(&self, of_events: bool) -> Option<Arc<[u32]>> {
        let offsets: Arc<Arc<[u32]>> = self.get(child(of_events))?;
        Some(Arc::clone(&offsets))
    }

    pub(crate) fn keep_offsets(&self, of_events: bool, offsets: &Arc<[u32]>) {
        let bytes = offsets.len() * 4;
        self.insert(child(of_events), Arc::new(Arc::clone(offsets)), bytes);
    }

    pub(super) fn slots(&self, scope: AttributeScope) -> Option<Arc<AttributeSlots>> {
        self.get(Part::Slots(scope))
    }

    pub(super) fn keep_slots(&self, scope: AttributeScope, slots: &Arc<AttributeSlots>) {
        self.insert(Part::Slots(scope), Arc::clone(slots), slots.heap_bytes());
    }

    pub(crate) fn column(&self, key: &ColumnKey) -> Option<Column> {
        let kept: Arc<(ColumnKey, Column)> = self.get(Part::Column(key))?;
        // Two keys may have one hash.
        (kept.0 == *key).then(|| kept.1.clone())
    }

    pub(crate) fn keep_column(&self, key: &ColumnKey, column: &Column) {
        let kept = Arc::new((key.clone(), column.clone()));
        self.insert(Part::Column(key), kept, column.heap_bytes());
    }

    /// Tells that few rows of a column are asked for that is not kept, and whether to read all of
    /// it so that it is kept for the next time.
    pub(crate) fn asked_again(&self, key: &ColumnKey) -> bool {
        self.is_second(Part::AskedColumn(key))
    }

    /// The same for a few texts of a dictionary.
    pub(crate) fn dictionary_asked_again(&self, leaf: LeafIndex) -> bool {
        self.is_second(Part::AskedDictionary(leaf))
    }

    fn is_second(&self, part: Part<'_>) -> bool {
        let before = self.get::<Asked>(part).map(|asked| *asked);
        let now = match before {
            None => Asked::Once,
            Some(Asked::Once) => Asked::Again,
            Some(Asked::Again) => return false,
        };
        self.insert(part, Arc::new(now), size_of::<Asked>());
        now == Asked::Again
    }

    /// Whether [`Self::asked_again`] will say yes.
    pub(crate) fn will_be_asked_again(&self, key: &ColumnKey) -> bool {
        self.get::<Asked>(Part::AskedColumn(key)).as_deref() == Some(&Asked::Once)
    }

    pub(crate) fn pages(&self, leaf: LeafIndex) -> Option<Arc<PageMap>> {
        self.get(Part::Pages(leaf))
    }

    pub(crate) fn keep_pages(&self, leaf: LeafIndex, pages: &Arc<PageMap>) {
        self.insert(Part::Pages(leaf), Arc::clone(pages), pages.heap_bytes());
    }

    pub(crate) fn dictionary(&self, leaf: LeafIndex) -> Option<Arc<StringDict>> {
        self.get(Part::Dictionary(leaf))
    }

    pub(crate) fn keep_dictionary(&self, leaf: LeafIndex, dictionary: &Arc<StringDict>) {
        let bytes = dictionary.heap_bytes();
        if bytes <= MAX_DICTIONARY_BYTES {
            self.insert(Part::Dictionary(leaf), Arc::clone(dictionary), bytes);
        }
    }
}

fn child(of_events: bool) -> Part<'static> {
    if of_events { Part::Events } else { Part::Links }
}

#[cfg(test)]
mod tests {
    use tempo_table::Level;

    use super::*;

    #[test]
    fn a_column_is_read_whole_the_second_time_and_never_again_when_there_is_no_room() {
        let cache = Cache::new(1 << 20, &prometheus::Registry::new()).unwrap();
        let meta = BlockMeta::new(
            "t".into(),
            Uuid::from_u128(1),
            tempo_backend::BlockFormat::VParquet4,
        );
        let kept = Kept::new(&cache, &meta).of_row_group(3);
        let key = ColumnKey::attribute(AttributeScope::Span, "a");
        for expected in [false, true, false, false] {
            assert_eq!(kept.will_be_asked_again(&key), expected);
            assert_eq!(kept.asked_again(&key), expected);
        }
        assert!(kept.column(&key).is_none());
        kept.keep_column(&key, &Column::absent(Level::Span, 7));
        assert_eq!(kept.column(&key).unwrap().len, 7);
        assert!(kept.of_row_group(4).column(&key).is_none());
    }
}
