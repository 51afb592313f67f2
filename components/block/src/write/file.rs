//! The layout of `data.parquet`: magic, row groups, offset indexes, footer.

use std::io::Write;

use bytes::Bytes;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataWriter,
    RowGroupMetaData,
};

use super::{WriteError, chunk::FinishedColumn, encode::thrift::Thrift};
use crate::{
    hints::{self, DictionaryHint, GroupHints},
    read::pages::PageSpot,
    schema::{AttributeLeaf, BlockSchema, LeafColumn},
};

const MAGIC: &[u8; 4] = b"PAR1";
/// The version of the format that data pages of version 2 belong to.
const FILE_VERSION: i32 = 2;
const CREATED_BY: &str = concat!(
    "tempostack version ",
    env!("CARGO_PKG_VERSION"),
    " (build )"
);

/// Where a page lies.
struct PageLocation {
    offset: i64,
    bytes: i32,
    first_row: i64,
}

/// A column chunk that is copied from another file.
pub(crate) struct CopiedColumn {
    /// As the other file has it.
    pub(crate) metadata: ColumnChunkMetaData,
    /// Where its first page begins in the other file.
    pub(crate) start: u64,
    /// Its pages.
    pub(crate) bytes: Bytes,
    /// Its data pages.
    pub(crate) pages: Vec<PageSpot>,
    /// What is told of its dictionary.
    pub(crate) hint: Option<DictionaryHint>,
}

/// What the file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSummary {
    /// Bytes of the whole file.
    pub(crate) bytes: u64,
    /// Bytes of the footer's Thrift message.
    pub(crate) footer_bytes: u32,
    /// Row groups.
    pub(crate) row_groups: u32,
}

/// Writes a file front to back.
pub(crate) struct FileWriter<W> {
    sink: W,
    offset: u64,
    schema: BlockSchema,
    row_groups: Vec<RowGroupMetaData>,
    /// Per row group and column.
    pages: Vec<Vec<Vec<PageLocation>>>,
    /// Per row group.
    hints: Vec<GroupHints>,
    rows: u64,
}

/// The columns of a row group, as they come.
struct OpenRowGroup {
    offset: u64,
    uncompressed: i64,
    chunks: Vec<Option<ColumnChunkMetaData>>,
    pages: Vec<Vec<PageLocation>>,
    hints: Vec<(usize, DictionaryHint)>,
}

impl OpenRowGroup {
    fn new(offset: u64, schema: &BlockSchema) -> Self {
        let leaves = schema.leaves().len();
        Self {
            offset,
            uncompressed: 0,
            chunks: (0..leaves).map(|_| None).collect(),
            pages: (0..leaves).map(|_| Vec::new()).collect(),
            hints: Vec::new(),
        }
    }

    fn add(
        &mut self,
        index: usize,
        chunk: ColumnChunkMetaData,
        pages: Vec<PageLocation>,
        hint: Option<DictionaryHint>,
    ) {
        self.uncompressed += chunk.uncompressed_size();
        self.chunks[index] = Some(chunk);
        self.pages[index] = pages;
        if let Some(hint) = hint {
            self.hints.push((index, hint));
        }
    }

    /// What is told of dictionaries. First of those with the names of attributes, which tell most
    /// often that a row group need not be read.
    fn hints(&mut self, schema: &BlockSchema) -> GroupHints {
        let has_names = |index: usize| {
            let column = schema.leaves()[index].column;
            matches!(column, LeafColumn::Attribute(_, AttributeLeaf::Key))
        };
        self.hints.sort_by_key(|(index, _)| !has_names(*index));
        let mut hints = GroupHints::default();
        for (index, hint) in self.hints.drain(..) {
            let chunk = self.chunks[index].as_ref();
            let page = chunk.and_then(|chunk| {
                let begin = chunk.dictionary_page_offset()?;
                u64::try_from(chunk.data_page_offset() - begin).ok()
            });
            if let Some(page_bytes) = page {
                hints.add(index, page_bytes, hint);
            }
        }
        hints
    }
}

impl<W: Write> FileWriter<W> {
    pub(crate) fn new(sink: W, schema: BlockSchema) -> Result<Self, WriteError> {
        let mut writer = Self {
            sink,
            offset: 0,
            schema,
            row_groups: Vec::new(),
            pages: Vec::new(),
            hints: Vec::new(),
            rows: 0,
        };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.sink.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.offset
    }

    /// Rows written so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Appends a row group; `columns` yields every leaf of the schema, in the order of
    /// [`BlockSchema::layout`], with its position in the schema.
    pub(crate) fn write_row_group(
        &mut self,
        rows: u64,
        columns: impl Iterator<Item = Result<(usize, FinishedColumn), WriteError>>,
    ) -> Result<(), WriteError> {
        let mut open = OpenRowGroup::new(self.offset, &self.schema);
        for column in columns {
            let (index, mut column) = column?;
            let hint = column.hint.take();
            let (chunk, locations) = self.write_column(index, column)?;
            open.add(index, chunk, locations, hint);
        }
        self.close_row_group(rows, open)
    }

    fn close_row_group(&mut self, rows: u64, mut open: OpenRowGroup) -> Result<(), WriteError> {
        self.hints.push(open.hints(&self.schema));
        let group = RowGroupMetaData::builder(self.schema.descriptor().clone())
            .set_column_metadata(open.chunks.into_iter().flatten().collect())
            .set_num_rows(rows as i64)
            .set_total_byte_size(open.uncompressed)
            .set_file_offset(open.offset as i64)
            .build()?;
        self.row_groups.push(group);
        self.pages.push(open.pages);
        self.rows += rows;
        Ok(())
    }

    fn write_column(
        &mut self,
        index: usize,
        column: FinishedColumn,
    ) -> Result<(ColumnChunkMetaData, Vec<PageLocation>), WriteError> {
        let start = self.offset;
        let dictionary_offset = match &column.dictionary {
            Some(page) => {
                self.put(page)?;
                Some(start as i64)
            }
            None => None,
        };
        let data_offset = self.offset;
        let mut first_row = 0;
        let mut locations = Vec::with_capacity(column.pages.len());
        for page in &column.pages {
            locations.push(PageLocation {
                offset: self.offset as i64,
                bytes: page.bytes.len() as i32,
                first_row,
            });
            first_row += page.rows as i64;
            self.put(&page.bytes)?;
        }
        let descriptor = self.schema.descriptor().column(index);
        let chunk = ColumnChunkMetaData::builder(descriptor)
            .set_encodings(column.encodings)
            .set_compression_codec(column.codec)
            .set_num_values(column.entries as i64)
            .set_total_compressed_size((self.offset - start) as i64)
            .set_total_uncompressed_size(column.uncompressed_bytes as i64)
            .set_data_page_offset(data_offset as i64)
            .set_dictionary_page_offset(dictionary_offset)
            .set_page_encoding_stats(column.page_encodings)
            .set_statistics(column.statistics)
            .build()?;
        Ok((chunk, locations))
    }

    /// Appends a row group of another file of the same schema. `columns` yields, in the order in
    /// which they are to lie, the position of every column in the schema, its metadata in the other
    /// file, its bytes as they are (from its first page on) and its data pages.
    pub(crate) fn copy_row_group<E: From<WriteError>>(
        &mut self,
        rows: u64,
        columns: impl Iterator<Item = Result<(usize, CopiedColumn), E>>,
    ) -> Result<(), E> {
        let mut open = OpenRowGroup::new(self.offset, &self.schema);
        for column in columns {
            let (index, column) = column?;
            let CopiedColumn {
                metadata,
                start,
                bytes,
                pages: copied,
                hint,
            } = column;
            let moved = |offset: i64| offset - start as i64 + self.offset as i64;
            let locations = copied.iter().map(|page| PageLocation {
                offset: moved(page.bytes.start as i64),
                bytes: (page.bytes.end - page.bytes.start) as i32,
                first_row: i64::from(page.rows.start),
            });
            let locations = locations.collect();
            let dictionary = metadata.dictionary_page_offset().map(moved);
            let data = moved(metadata.data_page_offset());
            let chunk = metadata
                .into_builder()
                .set_data_page_offset(data)
                .set_dictionary_page_offset(dictionary)
                .set_column_index_offset(None)
                .set_column_index_length(None)
                .set_bloom_filter_offset(None)
                .set_bloom_filter_length(None)
                .build()
                .map_err(WriteError::from)?;
            open.add(index, chunk, locations, hint);
            self.put(&bytes)?;
        }
        Ok(self.close_row_group(rows, open)?)
    }

    /// Writes offset indexes and footer.
    pub(crate) fn finish(mut self) -> Result<(W, FileSummary), WriteError> {
        let mut groups = Vec::with_capacity(self.row_groups.len());
        let mut index = Vec::new();
        let pages = std::mem::take(&mut self.pages);
        for (group, pages) in std::mem::take(&mut self.row_groups).into_iter().zip(pages) {
            let mut chunks = Vec::with_capacity(pages.len());
            for (chunk, locations) in group.columns().iter().zip(pages) {
                let offset = self.offset + index.len() as u64;
                let before = index.len();
                let mut thrift = Thrift::new(&mut index);
                thrift.structures(1, &locations, |page, location| {
                    page.i64(1, location.offset);
                    page.i32(2, location.bytes);
                    page.i64(3, location.first_row);
                });
                thrift.end();
                let chunk = chunk
                    .clone()
                    .into_builder()
                    .set_offset_index_offset(Some(offset as i64))
                    .set_offset_index_length(Some((index.len() - before) as i32))
                    .build()?;
                chunks.push(chunk);
            }
            groups.push(group.into_builder().set_column_metadata(chunks).build()?);
        }
        self.put(&index)?;
        let row_groups = groups.len() as u32;
        let file = FileMetaData::new(
            FILE_VERSION,
            self.rows as i64,
            Some(CREATED_BY.to_owned()),
            hints::encode(&self.hints)
                .map(|value| vec![KeyValue::new(hints::KEY.to_owned(), value)]),
            self.schema.descriptor().clone(),
            // The library derives the orders from the schema.
            None,
        );
        let metadata = ParquetMetaData::new(file, groups);
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &metadata).finish()?;
        self.put(&footer)?;
        self.sink.flush()?;
        // The Thrift message is followed by its length and the magic.
        let footer_bytes = (footer.len() - 8) as u32;
        Ok((
            self.sink,
            FileSummary {
                bytes: self.offset,
                footer_bytes,
                row_groups,
            },
        ))
    }
}
