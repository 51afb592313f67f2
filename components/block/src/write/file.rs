//! The layout of `data.parquet`: magic, row groups, offset indexes, footer.

use std::io::Write;

use bytes::Bytes;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};

use super::{WriteError, chunk::FinishedColumn, encode::thrift::Thrift};
use crate::{read::pages::PageSpot, schema::BlockSchema};

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
    rows: u64,
}

impl<W: Write> FileWriter<W> {
    pub(crate) fn new(sink: W, schema: BlockSchema) -> Result<Self, WriteError> {
        let mut writer = Self {
            sink,
            offset: 0,
            schema,
            row_groups: Vec::new(),
            pages: Vec::new(),
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

    /// Appends a row group; `columns` yields every leaf of the schema in order.
    pub(crate) fn write_row_group(
        &mut self,
        rows: u64,
        columns: impl Iterator<Item = Result<FinishedColumn, WriteError>>,
    ) -> Result<(), WriteError> {
        let group_offset = self.offset;
        let mut uncompressed = 0;
        let mut chunks = Vec::with_capacity(self.schema.leaves().len());
        let mut pages = Vec::with_capacity(self.schema.leaves().len());
        for (index, column) in columns.enumerate() {
            let column = column?;
            uncompressed += column.uncompressed_bytes;
            let (chunk, locations) = self.write_column(index, column)?;
            chunks.push(chunk);
            pages.push(locations);
        }
        let group = RowGroupMetaData::builder(self.schema.descriptor().clone())
            .set_column_metadata(chunks)
            .set_num_rows(rows as i64)
            .set_total_byte_size(uncompressed as i64)
            .set_file_offset(group_offset as i64)
            .build()?;
        self.row_groups.push(group);
        self.pages.push(pages);
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

    /// Appends a row group of another file of the same schema. `columns` yields, in order, the
    /// metadata of every column chunk there, its bytes as they are (from its first page on) and its
    /// data pages.
    pub(crate) fn copy_row_group<E: From<WriteError>>(
        &mut self,
        rows: u64,
        columns: impl Iterator<Item = Result<CopiedColumn, E>>,
    ) -> Result<(), E> {
        let group_offset = self.offset;
        let mut uncompressed = 0;
        let mut chunks = Vec::with_capacity(self.schema.leaves().len());
        let mut pages = Vec::with_capacity(self.schema.leaves().len());
        for column in columns {
            let CopiedColumn {
                metadata,
                start,
                bytes,
                pages: copied,
            } = column?;
            let moved = |offset: i64| offset - start as i64 + self.offset as i64;
            uncompressed += metadata.uncompressed_size();
            let locations = copied.iter().map(|page| PageLocation {
                offset: moved(page.bytes.start as i64),
                bytes: (page.bytes.end - page.bytes.start) as i32,
                first_row: i64::from(page.rows.start),
            });
            pages.push(locations.collect());
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
            chunks.push(chunk);
            self.put(&bytes)?;
        }
        let group = RowGroupMetaData::builder(self.schema.descriptor().clone())
            .set_column_metadata(chunks)
            .set_num_rows(rows as i64)
            .set_total_byte_size(uncompressed)
            .set_file_offset(group_offset as i64)
            .build()
            .map_err(WriteError::from)?;
        self.row_groups.push(group);
        self.pages.push(pages);
        self.rows += rows;
        Ok(())
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
            None,
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
