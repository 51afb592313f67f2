//! Which traces lie in which page, and which traces are wanted.

use std::ops::Range;

use super::{
    Malformed,
    footer::Chunk,
    page::Header,
    thrift::{Kind, Thrift},
};

/// Ranges of wanted rows with fewer rows between them are joined: skipping less costs more.
const JOIN_ROWS: u32 = 8;

/// Traces of a row group that are wanted: ascending ranges that do not touch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    ranges: Vec<Range<u32>>,
    of: u32,
}

impl Selection {
    /// All of `rows`.
    pub(crate) fn all(rows: u32) -> Self {
        Self::range(0..rows, rows)
    }

    /// One of `rows`.
    pub(crate) fn one(row: u32, rows: u32) -> Self {
        Self::range(row..row + 1, rows)
    }

    /// `range` of `rows`.
    pub(crate) fn range(range: Range<u32>, rows: u32) -> Self {
        Self {
            ranges: vec![range],
            of: rows,
        }
    }

    /// Those of `rows` that `wanted` lists, ascending (repetitions are fine), and some between
    /// them.
    pub(crate) fn of_rows(wanted: impl Iterator<Item = u32>, rows: u32) -> Self {
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for row in wanted {
            match ranges.last_mut() {
                Some(last) if row <= last.end.saturating_add(JOIN_ROWS) => {
                    last.end = last.end.max(row + 1);
                }
                _ => ranges.push(row..row + 1),
            }
        }
        Self { ranges, of: rows }
    }

    pub(crate) fn ranges(&self) -> &[Range<u32>] {
        &self.ranges
    }

    /// Rows of the row group, wanted or not.
    pub(crate) fn of(&self) -> u32 {
        self.of
    }

    pub(crate) fn is_all(&self) -> bool {
        matches!(self.ranges.as_slice(), [only] if *only == (0..self.of))
    }

    /// How many rows are wanted.
    pub(crate) fn rows(&self) -> u32 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// The wanted parts of `rows`.
    pub(crate) fn within(&self, rows: Range<u32>) -> impl Iterator<Item = Range<u32>> + '_ {
        let first = self.ranges.partition_point(|range| range.end <= rows.start);
        self.ranges[first..]
            .iter()
            .take_while(move |range| range.start < rows.end)
            .map(move |range| range.start.max(rows.start)..range.end.min(rows.end))
    }
}

/// Where a data page lies and which traces it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageSpot {
    pub(crate) bytes: Range<u64>,
    pub(crate) rows: Range<u32>,
}

/// The pages of a column chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageMap {
    pub(crate) dictionary: Option<Range<u64>>,
    pub(crate) pages: Vec<PageSpot>,
}

impl PageMap {
    /// From an offset index, which lists data pages only.
    pub(crate) fn from_offset_index(
        index: &[u8],
        chunk: &Chunk,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let mut starts: Vec<(Range<u64>, u64)> = Vec::new();
        Thrift::new(index).fields(|thrift, field| {
            if field.id != 1 || field.kind != Kind::List {
                return Ok(false);
            }
            let (_, len) = thrift.list(field.kind)?;
            starts.reserve(len);
            for _ in 0..len {
                starts.push(location(thrift)?);
            }
            Ok(true)
        })?;
        if starts
            .iter()
            .any(|(bytes, _)| bytes.start < chunk.bytes.start || bytes.end > chunk.bytes.end)
        {
            return Err(Malformed("page lies outside of its column chunk"));
        }
        let first = starts
            .first()
            .map_or(chunk.first_data_page, |(bytes, _)| bytes.start);
        let dictionary = chunk.bytes.start..first;
        Self::assemble((!dictionary.is_empty()).then_some(dictionary), starts, rows)
    }

    /// From the headers within a whole chunk, for files without offset index. Pages must begin
    /// with a trace and tell how many they hold, which version 2 demands.
    pub(crate) fn from_headers(bytes: &[u8], chunk: &Chunk, rows: u32) -> Result<Self, Malformed> {
        let mut dictionary = None;
        let mut starts = Vec::new();
        let mut row = 0_u64;
        let mut at = 0;
        while at < bytes.len() {
            let header = Header::parse(&bytes[at..])?;
            let end = at
                .checked_add(header.page_len()?)
                .filter(|&end| end <= bytes.len())
                .ok_or(Malformed("page is cut"))?;
            let range = chunk.bytes.start + at as u64..chunk.bytes.start + end as u64;
            if header.is_dictionary() {
                if dictionary.is_some() || !starts.is_empty() {
                    return Err(Malformed("dictionary page is not the first page"));
                }
                dictionary = Some(range);
            } else {
                starts.push((range, row));
                let flat = chunk.entries == rows;
                row += match header.rows {
                    Some(rows) => rows,
                    None if flat => header.entries,
                    None => {
                        return Err(Malformed(
                            "pages of version 1 need an offset index; write the file with one",
                        ));
                    }
                };
            }
            at = end;
        }
        Self::assemble(dictionary, starts, rows)
    }

    fn assemble(
        dictionary: Option<Range<u64>>,
        starts: Vec<(Range<u64>, u64)>,
        rows: u32,
    ) -> Result<Self, Malformed> {
        let mut pages: Vec<PageSpot> = Vec::with_capacity(starts.len());
        for (bytes, first_row) in starts {
            let row = u32::try_from(first_row)
                .ok()
                .filter(|&row| row < rows)
                .ok_or(Malformed("page begins after the last row"))?;
            let expected = match pages.last_mut() {
                None => row == 0,
                Some(last) => {
                    last.rows.end = row;
                    last.rows.start < row
                }
            };
            if !expected {
                return Err(Malformed("pages do not begin with ascending rows"));
            }
            pages.push(PageSpot {
                bytes,
                rows: row..rows,
            });
        }
        if pages.is_empty() && rows > 0 {
            return Err(Malformed("column chunk has no pages"));
        }
        Ok(Self { dictionary, pages })
    }

    /// Heap bytes held, for caches.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<PageSpot>()
    }

    /// The pages that hold a wanted row.
    pub(crate) fn selected<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> impl Iterator<Item = &'a PageSpot> + 'a {
        self.pages
            .iter()
            .filter(|page| selection.within(page.rows.clone()).next().is_some())
    }
}

fn location(thrift: &mut Thrift<'_>) -> Result<(Range<u64>, u64), Malformed> {
    let (mut start, mut len, mut row) = (0, 0, 0);
    thrift.fields(|thrift, field| {
        match field.id {
            1 => start = thrift.size(field.kind)?,
            2 => len = thrift.size(field.kind)?,
            3 => row = thrift.size(field.kind)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let end = start
        .checked_add(len)
        .ok_or(Malformed("page lies outside of its column chunk"))?;
    Ok((start..end, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_join_what_is_close_and_cut_to_pages() {
        let selection = Selection::of_rows([3, 3, 4, 12, 40, 99].into_iter(), 100);
        assert_eq!(selection.ranges(), [3..13, 40..41, 99..100]);
        assert_eq!(selection.rows(), 12);
        let parts: Vec<_> = selection.within(10..50).collect();
        assert_eq!(parts, [10..13, 40..41]);
        assert_eq!(selection.within(13..40).next(), None);
        assert!(!selection.is_all());
        assert!(Selection::of_rows(0..100, 100).is_all());
        assert!(Selection::all(5).is_all());
        assert_eq!(Selection::one(4, 5).within(0..5).next(), Some(4..5));
    }
}
