//! The footer of a Parquet file: its leaves, row groups and column chunks.
//!
//! Owns the reading of `FileMetaData`, keeping the few dozen bytes per chunk that scans need. Sizes
//! and offsets are checked against the file here, once, so that later code may trust them.

use std::ops::Range;

use super::{
    Malformed,
    key_values::key_values,
    thrift::{Field, Kind, Thrift},
};
use crate::hints::GroupHints;

/// Deepest schema, in levels. Blocks nest 12.
const MAX_SCHEMA_DEPTH: usize = 64;

/// Longest path of a column. Those of blocks have some 60 bytes.
const MAX_PATH_BYTES: usize = 1024;

/// Bytes of the paths of all columns: each repeats the names of the groups around it.
const MAX_PATHS_BYTES: usize = 16 * 1024 * 1024;

/// Most values (levels) of one column chunk. What exceeds it cannot be a block of 100 MB.
pub(crate) const MAX_CHUNK_ENTRIES: u64 = 1 << 28;

/// Most values of one column chunk per byte of the file. Levels of missing values compress to
/// almost nothing, but every span and attribute leaves some bytes in some column.
const MAX_ENTRIES_PER_FILE_BYTE: u64 = 256;

/// Most rows (traces) of one row group.
const MAX_GROUP_ROWS: u64 = 1 << 28;

/// The bytes that end a file: length of the footer and magic.
pub(crate) const TAIL_BYTES: usize = 8;
const MAGIC: &[u8] = b"PAR1";

/// How values lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    Int32,
    Int64,
    Double,
    ByteArray,
    /// One that blocks do not use.
    Other,
}

/// How pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Snappy,
    Zstd,
    /// One that is not supported, by its number.
    Other(i64),
}

/// A leaf column of the file's own schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileLeaf {
    /// Dotted path from the root.
    pub(crate) path: Box<str>,
    pub(crate) physical: Physical,
    pub(crate) max_rep: u8,
    pub(crate) max_def: u8,
}

/// One column of one row group.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) compression: Compression,
    /// Entries, placeholders of missing values included.
    pub(crate) entries: u32,
    /// Where its pages lie in the file, dictionary first.
    pub(crate) bytes: Range<u64>,
    /// Where its first data page lies.
    pub(crate) first_data_page: u64,
    pub(crate) uncompressed: u64,
    /// Entries without a value, if the writer told.
    pub(crate) nulls: Option<u64>,
    /// Smallest and largest integer (or boolean, as 0 and 1), if the writer told.
    pub(crate) int_bounds: Option<(i64, i64)>,
    /// Whether the writer told that every data page holds codes of the dictionary.
    pub(crate) dictionary_only: bool,
    /// Where its offset index lies.
    pub(crate) offset_index: Option<Range<u64>>,
}

impl Chunk {
    /// Bytes of its dictionary's page, if the writer told where that is.
    fn dictionary_len(&self) -> Option<u64> {
        let len = self.first_data_page.checked_sub(self.bytes.start)?;
        (len > 0).then_some(len)
    }
}

/// The first and the last of some trace ids.
pub(crate) type IdBounds = ([u8; 16], [u8; 16]);

/// Some traces, as one column chunk per leaf.
#[derive(Debug, Clone)]
pub(crate) struct RowGroup {
    pub(crate) rows: u32,
    /// First and last trace id, if the writer told.
    pub(crate) trace_ids: Option<IdBounds>,
    pub(crate) chunks: Vec<Chunk>,
}

/// What a file says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Footer {
    pub(crate) leaves: Vec<FileLeaf>,
    pub(crate) row_groups: Vec<RowGroup>,
    /// What our own writer told of dictionaries, per row group; none of other writers.
    pub(crate) hints: Vec<GroupHints>,
}

impl Footer {
    /// Reads the Thrift message of a file of `file_len` bytes.
    pub(crate) fn parse(message: &[u8], file_len: u64) -> Result<Self, Malformed> {
        let mut leaves = Vec::new();
        let mut row_groups: Vec<RowGroup> = Vec::new();
        let mut hints = Vec::new();
        Thrift::new(message).fields(|thrift, field| {
            match field.id {
                2 => leaves = schema(thrift, field)?,
                4 => {
                    let (_, len) = thrift.list(field.kind)?;
                    for _ in 0..len {
                        row_groups.push(row_group(thrift, &leaves, file_len)?);
                    }
                }
                // Row groups come before.
                5 => hints = key_values(thrift, field, row_groups.len())?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if leaves.is_empty() {
            return Err(Malformed("footer has no schema"));
        }
        for (group, hints) in row_groups.iter().zip(&mut hints) {
            hints.keep_fitting(|leaf| group.chunks.get(leaf)?.dictionary_len());
        }
        Ok(Self {
            leaves,
            row_groups,
            hints,
        })
    }

    /// Heap bytes held, for caches.
    pub(crate) fn heap_bytes(&self) -> usize {
        let leaves: usize = self
            .leaves
            .iter()
            .map(|leaf| size_of::<FileLeaf>() + leaf.path.len())
            .sum();
        let chunks: usize = self
            .row_groups
            .iter()
            .map(|group| size_of::<RowGroup>() + group.chunks.len() * size_of::<Chunk>())
            .sum();
        let hints: usize = self.hints.iter().map(GroupHints::heap_bytes).sum();
        leaves + chunks + hints
    }
}

/// The length of the footer's Thrift message, from the last bytes of a file.
pub(crate) fn footer_len(tail: &[u8]) -> Result<usize, Malformed> {
    let start = tail
        .len()
        .checked_sub(TAIL_BYTES)
        .ok_or(Malformed("file is shorter than a footer"))?;
    let (len, magic) = tail[start..].split_at(4);
    if magic != MAGIC {
        return Err(Malformed("file does not end with PAR1"));
    }
    let len = len
        .try_into()
        .map_or(0, |len| u32::from_le_bytes(len) as usize);
    Ok(len)
}

struct Element {
    name: String,
    physical: Option<Physical>,
    repetition: i64,
    children: u64,
}

fn schema(thrift: &mut Thrift<'_>, field: Field) -> Result<Vec<FileLeaf>, Malformed> {
    let (_, len) = thrift.list(field.kind)?;
    let mut leaves = Vec::new();
    // Open groups: children still to come, length of the path before the group, levels inside.
    let mut open: Vec<(u64, usize, u8, u8)> = Vec::new();
    let mut path = String::new();
    let mut paths_bytes = 0;
    for index in 0..len {
        let element = element(thrift)?;
        if index == 0 {
            open.push((element.children, 0, 0, 0));
            continue;
        }
        while let Some(&(0, before, ..)) = open.last() {
            path.truncate(before);
            open.pop();
        }
        let &mut (ref mut left, _, rep, def) = open
            .last_mut()
            .ok_or(Malformed("schema has more elements than its groups"))?;
        *left -= 1;
        let rep = rep + u8::from(element.repetition == 2);
        let def = def + u8::from(element.repetition != 0);
        let before = path.len();
        if before + 1 + element.name.len() > MAX_PATH_BYTES {
            return Err(Malformed("column has too long a path"));
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&element.name);
        match element.physical {
            None => {
                if open.len() >= MAX_SCHEMA_DEPTH {
                    return Err(Malformed("schema is nested too deep"));
                }
                open.push((element.children, before, rep, def));
            }
            Some(physical) => {
                paths_bytes += path.len();
                if paths_bytes > MAX_PATHS_BYTES {
                    return Err(Malformed("columns have too long paths"));
                }
                leaves.push(FileLeaf {
                    path: path.as_str().into(),
                    physical,
                    max_rep: rep,
                    max_def: def,
                });
                path.truncate(before);
            }
        }
    }
    Ok(leaves)
}

fn element(thrift: &mut Thrift<'_>) -> Result<Element, Malformed> {
    let mut element = Element {
        name: String::new(),
        physical: None,
        repetition: 0,
        children: 0,
    };
    thrift.fields(|thrift, field| {
        match field.id {
            1 => element.physical = Some(physical(thrift.int(field.kind)?)),
            3 => element.repetition = thrift.int(field.kind)?,
            4 => {
                element.name = String::from_utf8_lossy(thrift.binary(field.kind)?).into_owned();
            }
            5 => element.children = thrift.size(field.kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(element)
}

fn physical(number: i64) -> Physical {
    match number {
        0 => Physical::Boolean,
        1 => Physical::Int32,
        2 => Physical::Int64,
        5 => Physical::Double,
        6 => Physical::ByteArray,
        _ => Physical::Other,
    }
}

fn row_group(
    thrift: &mut Thrift<'_>,
    leaves: &[FileLeaf],
    file_len: u64,
) -> Result<RowGroup, Malformed> {
    let mut chunks = Vec::new();
    let mut rows = 0;
    let mut trace_ids = None;
    thrift.fields(|thrift, field| {
        match field.id {
            1 => {
                let (_, len) = thrift.list(field.kind)?;
                if len != leaves.len() {
                    return Err(Malformed("row group and schema differ in their columns"));
                }
                chunks.reserve_exact(len);
                for leaf in leaves {
                    let (chunk, ids) = chunk(thrift, leaf, file_len)?;
                    chunks.push(chunk);
                    if &*leaf.path == TRACE_ID {
                        trace_ids = ids;
                    }
                }
            }
            3 => rows = thrift.size(field.kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if chunks.len() != leaves.len() {
        return Err(Malformed("row group has no columns"));
    }
    // Every trace has an id of its own.
    if rows > MAX_GROUP_ROWS.min(file_len) {
        return Err(Malformed("row group has too many rows"));
    }
    Ok(RowGroup {
        rows: rows as u32,
        trace_ids,
        chunks,
    })
}

/// The path of the leaf whose bounds are trace ids.
const TRACE_ID: &str = "TraceID";

#[derive(Default)]
struct ChunkFields {
    codec: i64,
    entries: u64,
    uncompressed: u64,
    compressed: u64,
    data_page: u64,
    dictionary_page: Option<u64>,
    nulls: Option<u64>,
    min: Option<i64>,
    max: Option<i64>,
    min_id: Option<[u8; 16]>,
    max_id: Option<[u8; 16]>,
    dictionary_only: bool,
    index_offset: Option<u64>,
    index_len: u64,
}

/// A chunk, and its bounds if they are 16 bytes long.
fn chunk(
    thrift: &mut Thrift<'_>,
    leaf: &FileLeaf,
    file_len: u64,
) -> Result<(Chunk, Option<IdBounds>), Malformed> {
    let mut fields = ChunkFields::default();
    let mut has_meta = false;
    thrift.fields(|thrift, field| {
        match field.id {
            3 if field.kind == Kind::Struct => {
                has_meta = true;
                column_meta(thrift, leaf, &mut fields)?;
            }
            4 => fields.index_offset = Some(thrift.size(field.kind)?),
            5 => fields.index_len = thrift.size(field.kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if !has_meta {
        return Err(Malformed("column chunk has no metadata"));
    }
    if fields.entries > MAX_CHUNK_ENTRIES.min(file_len.saturating_mul(MAX_ENTRIES_PER_FILE_BYTE)) {
        return Err(Malformed("column chunk has too many values"));
    }
    // Some writers leave the dictionary's offset out or 0; then the first page tells.
    let start = match fields.dictionary_page {
        Some(offset) if offset > 0 => offset.min(fields.data_page),
        _ => fields.data_page,
    };
    let bytes = within(start, fields.compressed, file_len)?;
    if fields.data_page > bytes.end {
        return Err(Malformed("data pages lie outside of their column chunk"));
    }
    let offset_index = match fields.index_offset {
        Some(offset) if fields.index_len > 0 => Some(within(offset, fields.index_len, file_len)?),
        _ => None,
    };
    let ids = fields.min_id.zip(fields.max_id);
    let chunk = Chunk {
        compression: match fields.codec {
            0 => Compression::None,
            1 => Compression::Snappy,
            6 => Compression::Zstd,
            other => Compression::Other(other),
        },
        entries: fields.entries as u32,
        bytes,
        first_data_page: fields.data_page,
        uncompressed: fields.uncompressed,
        nulls: fields.nulls,
        int_bounds: fields.min.zip(fields.max).filter(|(min, max)| min <= max),
        dictionary_only: fields.dictionary_only,
        offset_index,
    };
    Ok((chunk, ids))
}

fn within(start: u64, len: u64, file_len: u64) -> Result<Range<u64>, Malformed> {
    match start.checked_add(len) {
        Some(end) if end <= file_len => Ok(start..end),
        _ => Err(Malformed("byte range lies outside of the file")),
    }
}

fn column_meta(
    thrift: &mut Thrift<'_>,
    leaf: &FileLeaf,
    fields: &mut ChunkFields,
) -> Result<(), Malformed> {
    thrift.fields(|thrift, field| {
        match field.id {
            1 => {
                if physical(thrift.int(field.kind)?) != leaf.physical {
                    return Err(Malformed("column chunk and schema differ in type"));
                }
            }
            4 => fields.codec = thrift.int(field.kind)?,
            5 => fields.entries = thrift.size(field.kind)?,
            6 => fields.uncompressed = thrift.size(field.kind)?,
            7 => fields.compressed = thrift.size(field.kind)?,
            9 => fields.data_page = thrift.size(field.kind)?,
            11 => fields.dictionary_page = Some(thrift.size(field.kind)?),
            12 if field.kind == Kind::Struct => statistics(thrift, leaf, fields)?,
            13 => fields.dictionary_only = encoding_stats(thrift, field)?,
            _ => return Ok(false),
        }
        Ok(true)
    })
}

/// Only the fields whose order is defined (`min_value`, `max_value`) count.
fn statistics(
    thrift: &mut Thrift<'_>,
    leaf: &FileLeaf,
    fields: &mut ChunkFields,
) -> Result<(), Malformed> {
    thrift.fields(|thrift, field| {
        match field.id {
            3 => fields.nulls = Some(thrift.size(field.kind)?),
            5 => {
                let bytes = thrift.binary(field.kind)?;
                fields.max = integer(leaf.physical, bytes);
                fields.max_id = bytes.try_into().ok();
            }
            6 => {
                let bytes = thrift.binary(field.kind)?;
                fields.min = integer(leaf.physical, bytes);
                fields.min_id = bytes.try_into().ok();
            }
            _ => return Ok(false),
        }
        Ok(true)
    })
}

fn integer(physical: Physical, bytes: &[u8]) -> Option<i64> {
    match physical {
        Physical::Boolean => bytes.first().map(|&byte| i64::from(byte)),
        Physical::Int32 => bytes
            .try_into()
            .ok()
            .map(|bytes| i64::from(i32::from_le_bytes(bytes))),
        Physical::Int64 => bytes.try_into().ok().map(i64::from_le_bytes),
        _ => None,
    }
}

/// Whether every data page that the statistics list holds codes of the dictionary.
fn encoding_stats(thrift: &mut Thrift<'_>, field: Field) -> Result<bool, Malformed> {
    let (_, len) = thrift.list(field.kind)?;
    let (mut coded, mut other) = (false, false);
    for _ in 0..len {
        let (mut page, mut encoding, mut count) = (-1, -1, 0);
        thrift.fields(|thrift, field| {
            match field.id {
                1 => page = thrift.int(field.kind)?,
                2 => encoding = thrift.int(field.kind)?,
                3 => count = thrift.int(field.kind)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if matches!(page, 0 | 3) && count > 0 {
            match encoding {
                2 | 8 => coded = true,
                _ => other = true,
            }
        }
    }
    Ok(coded && !other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::golden;

    fn tail(path: &str) -> (Vec<u8>, u64) {
        let bytes = std::fs::read(golden(path)).unwrap();
        let len = footer_len(&bytes).unwrap();
        let end = bytes.len() - TAIL_BYTES;
        (bytes[end - len..end].to_vec(), bytes.len() as u64)
    }

    const V4: &str =
        "blocks/vparquet4/single-tenant/f4d8cfb0-8d16-48c1-bbd7-31a78c75b6cb/data.parquet";
    const V5: &str =
        "blocks/vparquet5/single-tenant/baffe872-1067-45e4-b074-ef083fb6730e/data.parquet";

    #[test]
    fn recorded_footers_match_the_schema() {
        let (message, len) = tail(V4);
        let footer = Footer::parse(&message, len).unwrap();
        let schema = crate::schema::BlockSchema::v4();
        assert_eq!(footer.leaves.len(), 103);
        for (leaf, want) in footer.leaves.iter().zip(schema.leaves()) {
            assert_eq!(*leaf.path, *want.path);
            assert_eq!(i16::from(leaf.max_rep), want.max_rep, "{}", want.path);
            assert_eq!(i16::from(leaf.max_def), want.max_def, "{}", want.path);
        }
        let [group] = footer.row_groups.as_slice() else {
            panic!("one row group")
        };
        assert_eq!(group.rows, 132);
        let service = &group.chunks[18];
        assert_eq!(service.entries, 535);
        assert_eq!(service.bytes, 17573..17573 + 693);
        assert_eq!(service.first_data_page, 17774);
        let (first, last) = group.trace_ids.unwrap();
        assert_eq!(first[..8], [0; 8]);
        assert!(first < last);
        assert!(service.dictionary_only);
        assert!(service.offset_index.is_some());

        let (message, len) = tail(V5);
        let footer = Footer::parse(&message, len).unwrap();
        assert_eq!(footer.leaves.len(), 92);
        let chunks = &footer.row_groups[0].chunks;
        assert_eq!(chunks[86].int_bounds, Some((200, 600)));
        assert_eq!(chunks[86].nulls, Some(67));
        assert_eq!(chunks[35].int_bounds.unwrap().0, -1);
    }

    /// A footer without row groups: in a group of that name so many columns.
    fn footer_of(group: &str, leaves: u64) -> Vec<u8> {
        let varint = |out: &mut Vec<u8>, value: u64| tempo_model::otlp::write_varint(out, value);
        let element = |out: &mut Vec<u8>, name: &str, children: u64| {
            if children == 0 {
                // Field 1, the type: bytes.
                out.extend([0x15, 6 << 1, 0x38]);
            } else {
                out.push(0x48);
            }
            varint(out, name.len() as u64);
            out.extend(name.as_bytes());
            if children > 0 {
                out.push(0x15);
                varint(out, children << 1);
            }
            out.push(0);
        };
        let mut out = vec![0x29, 0xfc];
        varint(&mut out, leaves + 2);
        element(&mut out, "root", 1);
        element(&mut out, group, leaves);
        for _ in 0..leaves {
            element(&mut out, "c", 0);
        }
        out.push(0);
        out
    }

    #[test]
    fn paths_of_columns_are_bounded() {
        let parse = |group: &str, leaves| {
            Footer::parse(&footer_of(group, leaves), 1 << 30).map(|footer| footer.leaves)
        };
        let leaves = parse("group", 3).unwrap();
        assert_eq!((leaves.len(), &*leaves[2].path), (3, "group.c"));
        assert_eq!(parse(&"g".repeat(1022), 1).unwrap()[0].path.len(), 1024);
        assert!(parse(&"g".repeat(1023), 1).is_err());
        // A hundred kilobytes of footer that would be 100 MB of paths.
        let group = "g".repeat(1000);
        assert_eq!(parse(&group, 10_000).unwrap().len(), 10_000);
        assert!(parse(&group, 20_000).is_err());
    }

    #[test]
    fn damaged_footers_are_refused_or_read_but_never_panic() {
        for path in [V4, V5] {
            let (message, len) = tail(path);
            for cut in (0..message.len()).step_by(61) {
                let _ = Footer::parse(&message[..cut], len);
            }
            let mut damaged = message.clone();
            for at in (0..message.len()).step_by(7) {
                for byte in [0xff, 0x19, message[at] ^ 0x10] {
                    damaged[at] = byte;
                    if let Ok(footer) = Footer::parse(&damaged, len) {
                        for group in &footer.row_groups {
                            assert!(group.chunks.iter().all(|chunk| chunk.bytes.end <= len));
                        }
                    }
                }
                damaged[at] = message[at];
            }
        }
    }
}
