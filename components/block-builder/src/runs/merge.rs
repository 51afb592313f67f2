//! Reading what was sorted, of all runs and of memory at once.
//!
//! Must never hold more than a buffer or two of each run.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use tempo_block::fetch_ahead;
use tempo_model::TraceId;

use super::{ENTRY_BYTES, Entry, Slabs};

/// Chunks that are fetched from memory before they are needed.
const AHEAD: usize = 8;

/// Bytes of each chunk that are. The processor itself fetches what follows.
const AHEAD_BYTES: usize = 4 << 10;

/// Bytes of each of the two buffers of a run that is read.
const READ_BYTES: usize = 256 << 10;

/// Fetches chunks that come next. They lie in the order of their arrival and are read in that of their
/// ids, so each lies where the processor does not expect it; waiting for them one by one took a tenth of
/// building.
pub(super) struct Ahead<'a> {
    slabs: &'a Slabs,
    pub(super) entries: &'a [Entry],
    passed: usize,
    fetched: usize,
}

impl<'a> Ahead<'a> {
    pub(super) fn of(slabs: &'a Slabs, entries: &'a [Entry]) -> Self {
        Self {
            slabs,
            entries,
            passed: 0,
            fetched: 0,
        }
    }

    /// The last entry that was passed; `None` before the first and after the last.
    fn last(&self) -> Option<&'a Entry> {
        self.entries.get(self.passed.checked_sub(1)?)
    }

    /// So many more entries are read now.
    pub(super) fn pass(&mut self, entries: usize) {
        self.passed += entries;
        let until = (self.passed + AHEAD).min(self.entries.len());
        // Of a trace of many chunks those that are read now are left to the processor.
        let from = self.fetched.max(self.passed).min(until);
        for entry in &self.entries[from..until] {
            let chunk = self.slabs.chunk(entry);
            fetch_ahead(&chunk[..chunk.len().min(AHEAD_BYTES)]);
        }
        self.fetched = until;
    }
}

/// The runs of one tenant and what memory has of it, side by side, in the order of their arrival.
/// They are few, so the lowest is looked for.
pub(super) struct Merge<'a> {
    slabs: &'a Slabs,
    sources: Vec<Source<'a>>,
    /// Id and length of the next entry of each.
    heads: Vec<(TraceId, u32)>,
}

/// Where the bytes of an entry are.
pub(super) enum Chunk<'a> {
    /// In memory, all the time.
    Held(&'a [u8]),
    /// In what was read from files.
    Read(Range<usize>),
}

impl<'a> Chunk<'a> {
    pub(super) fn bytes<'r>(&self, read: &'r [u8]) -> &'r [u8]
    where
        'a: 'r,
    {
        match self {
            Self::Held(bytes) => bytes,
            Self::Read(range) => &read[range.clone()],
        }
    }
}

enum Source<'a> {
    File {
        table: Reader,
        data: Reader,
    },
    /// The head is the last entry that was passed.
    Memory(Ahead<'a>),
}

impl Source<'_> {
    /// Goes to the next entry; the bytes of the one before were taken or skipped.
    fn next(&mut self) -> io::Result<Option<(TraceId, u32)>> {
        match self {
            Self::File { table, .. } => read_entry(table),
            Self::Memory(ahead) => {
                ahead.pass(1);
                Ok(ahead.last().map(|entry| (entry.id, entry.len)))
            }
        }
    }
}

impl<'a> Merge<'a> {
    pub(super) fn new(slabs: &'a Slabs) -> Self {
        Self {
            slabs,
            sources: Vec::new(),
            heads: Vec::new(),
        }
    }

    /// Adds a run, of which table and data are given.
    pub(super) fn add_file(
        &mut self,
        file: &Arc<File>,
        table: Range<u64>,
        data: Range<u64>,
    ) -> io::Result<()> {
        self.add(Source::File {
            table: Reader::new(file, table),
            data: Reader::new(file, data),
        })
    }

    /// Adds what memory has; it came after all runs.
    pub(super) fn add_memory(&mut self, entries: &'a [Entry]) -> io::Result<()> {
        self.add(Source::Memory(Ahead::of(self.slabs, entries)))
    }

    fn add(&mut self, mut source: Source<'a>) -> io::Result<()> {
        if let Some(head) = source.next()? {
            self.sources.push(source);
            self.heads.push(head);
        }
        Ok(())
    }

    /// The source with the lowest id; of equal ones the earliest.
    pub(super) fn lowest(&self) -> Option<usize> {
        (0..self.heads.len()).min_by_key(|&at| self.heads[at].0)
    }

    /// The id of the next entry of a source.
    pub(super) fn id(&self, at: usize) -> TraceId {
        self.heads[at].0
    }

    /// Goes past the next entry of a source and its bytes.
    pub(super) fn advance(&mut self, at: usize) -> io::Result<()> {
        if let Source::File { data, .. } = &mut self.sources[at] {
            data.skip(u64::from(self.heads[at].1));
        }
        self.step(at)
    }

    /// The bytes of the next entry of a source, and goes past it. Those of a file are appended to
    /// `read`.
    pub(super) fn take(&mut self, at: usize, read: &mut Vec<u8>) -> io::Result<Chunk<'a>> {
        let chunk = match &mut self.sources[at] {
            Source::File { data, .. } => {
                let begin = read.len();
                data.read_into(read, self.heads[at].1 as usize)?;
                Chunk::Read(begin..read.len())
            }
            Source::Memory(ahead) => {
                Chunk::Held(ahead.last().map_or(&[], |entry| self.slabs.chunk(entry)))
            }
        };
        self.step(at)?;
        Ok(chunk)
    }

    fn step(&mut self, at: usize) -> io::Result<()> {
        match self.sources[at].next()? {
            Some(head) => self.heads[at] = head,
            None => {
                self.sources.remove(at);
                self.heads.remove(at);
            }
        }
        Ok(())
    }
}

fn read_entry(table: &mut Reader) -> io::Result<Option<(TraceId, u32)>> {
    let Some(entry) = table.read::<ENTRY_BYTES>()? else {
        return Ok(None);
    };
    let mut id = [0; 16];
    id.copy_from_slice(&entry[..16]);
    let mut len = [0; 4];
    len.copy_from_slice(&entry[16..]);
    Ok(Some((TraceId::from_bytes(id), u32::from_le_bytes(len))))
}

/// A part of a file, read from its beginning with a buffer of its own.
struct Reader {
    file: Arc<File>,
    rest: Range<u64>,
    buffer: Vec<u8>,
    taken: usize,
}

impl Reader {
    fn new(file: &Arc<File>, range: Range<u64>) -> Self {
        Self {
            file: Arc::clone(file),
            rest: range,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let len = (READ_BYTES as u64).min(self.rest.end - self.rest.start);
        self.buffer.resize(len as usize, 0);
        self.taken = 0;
        self.file.read_exact_at(&mut self.buffer, self.rest.start)?;
        self.rest.start += len;
        Ok(())
    }

    /// As many bytes; `None` at the end.
    fn read<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut out = [0; N];
        let mut filled = 0;
        while filled < N {
            if self.taken == self.buffer.len() {
                if self.rest.is_empty() {
                    return match filled {
                        0 => Ok(None),
                        _ => Err(io::ErrorKind::UnexpectedEof.into()),
                    };
                }
                self.fill()?;
            }
            let len = (N - filled).min(self.buffer.len() - self.taken);
            out[filled..filled + len].copy_from_slice(&self.buffer[self.taken..self.taken + len]);
            filled += len;
            self.taken += len;
        }
        Ok(Some(out))
    }

    fn read_into(&mut self, out: &mut Vec<u8>, mut len: usize) -> io::Result<()> {
        while len > 0 {
            if self.taken == self.buffer.len() {
                if self.rest.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.fill()?;
            }
            let part = len.min(self.buffer.len() - self.taken);
            out.extend_from_slice(&self.buffer[self.taken..self.taken + part]);
            self.taken += part;
            len -= part;
        }
        Ok(())
    }

    fn skip(&mut self, len: u64) {
        let buffered = (self.buffer.len() - self.taken) as u64;
        let here = len.min(buffered);
        self.taken += here as usize;
        self.rest.start += len - here;
    }
}
