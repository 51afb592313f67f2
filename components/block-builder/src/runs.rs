//! Sorting the traces of a section by tenant and id, in bounded memory.
//!
//! What arrives is kept in memory until that is full; then the oldest of it is sorted and written to
//! a file, a *run*. Reading merges the runs and what is left in memory. Chunks of the same trace keep
//! the order of their arrival. Writing and reading back costs as much as half of building, so a
//! section that is little more than memory holds must not be written whole: the first run is an
//! eighth of memory, and each has twice the size of the one before until it is all.
//!
//! A file holds, for each tenant, a table of its entries (trace id and length) and then their bytes,
//! both in order. Nothing is synced: after a crash the files are worthless and deleted.

mod merge;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempo_model::TraceId;

use merge::{Ahead, Chunk, Merge};

/// Memory is taken in pieces of this size.
const SLAB_BYTES: usize = 4 << 20;

/// Bytes of an entry in a file's table.
const ENTRY_BYTES: usize = 20;

/// The first run takes one of so many parts of what is in memory.
const PARTS: u64 = 8;

#[derive(Debug, Clone, Copy)]
struct Entry {
    id: TraceId,
    tenant: u32,
    slab: u32,
    offset: u32,
    len: u32,
}

/// What has arrived of a section.
pub(crate) struct Sorter {
    folder: PathBuf,
    limit_bytes: u64,
    tenants: BTreeMap<Arc<str>, u32>,
    /// In the order of arrival, until that ends.
    entries: Vec<Entry>,
    slabs: Slabs,
    /// Slabs that are free again.
    spare: Vec<Vec<u8>>,
    buffered_bytes: u64,
    runs: Vec<FileRun>,
}

/// Memory for chunks. Pieces are numbered on, whatever was let go.
#[derive(Default)]
struct Slabs {
    pieces: VecDeque<Vec<u8>>,
    /// Number of the first piece.
    first: u32,
}

impl Slabs {
    fn chunk(&self, entry: &Entry) -> &[u8] {
        let begin = entry.offset as usize;
        let piece = &self.pieces[(entry.slab - self.first) as usize];
        &piece[begin..begin + entry.len as usize]
    }
}

/// What goes from memory to a run.
struct NextRun {
    entries: usize,
    /// Pieces of memory that they fill.
    pieces: usize,
    bytes: u64,
}

/// A run on disk. Its file has no name any more: it goes with the process.
struct FileRun {
    file: Arc<File>,
    segments: BTreeMap<u32, Segment>,
}

/// Where the traces of one tenant are in a file.
#[derive(Debug, Clone)]
struct Segment {
    table: Range<u64>,
    data: Range<u64>,
}

impl Sorter {
    /// Keeps up to `limit_bytes` in memory, and the rest below `folder`.
    pub(crate) fn new(folder: &Path, limit_bytes: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            limit_bytes,
            tenants: BTreeMap::new(),
            entries: Vec::new(),
            slabs: Slabs::default(),
            spare: Vec::new(),
            buffered_bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.tenants.clear();
        self.runs.clear();
        self.entries.clear();
        self.buffered_bytes = 0;
        self.let_go(self.slabs.pieces.len());
        self.slabs.first = 0;
    }

    /// Frees the first pieces.
    fn let_go(&mut self, pieces: usize) {
        for mut slab in self.slabs.pieces.drain(..pieces) {
            slab.clear();
            if slab.capacity() == SLAB_BYTES {
                self.spare.push(slab);
            }
        }
        self.slabs.first += pieces as u32;
    }

    /// The number of a tenant.
    pub(crate) fn tenant(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.tenants.get(name) {
            return number;
        }
        let number = self.tenants.len() as u32;
        self.tenants.insert(name.into(), number);
        number
    }

    /// Adds a chunk of a trace.
    ///
    /// # Errors
    /// When the folder does not take what no longer fits into memory.
    pub(crate) fn push(&mut self, tenant: u32, id: TraceId, chunk: &[u8]) -> io::Result<()> {
        let held = held_bytes(chunk.len());
        if self.buffered_bytes + held > self.limit_bytes && !self.entries.is_empty() {
            self.spill()?;
        }
        let len = u32::try_from(chunk.len())
            .map_err(|_| io::Error::other("a chunk of more than 4 GiB"))?;
        let pieces = &mut self.slabs.pieces;
        let fits = pieces
            .back()
            .is_some_and(|slab| slab.capacity() - slab.len() >= chunk.len());
        if !fits {
            let slab = self
                .spare
                .pop_if(|_| chunk.len() <= SLAB_BYTES)
                .unwrap_or_else(|| Vec::with_capacity(SLAB_BYTES.max(chunk.len())));
            pieces.push_back(slab);
        }
        let at = pieces.len() - 1;
        let slab = &mut pieces[at];
        self.entries.push(Entry {
            id,
            tenant,
            slab: self.slabs.first + at as u32,
            offset: slab.len() as u32,
            len,
        });
        slab.extend_from_slice(chunk);
        self.buffered_bytes += held;
        Ok(())
    }

    /// What the next run takes: the oldest entries.
    fn next_run(&self) -> NextRun {
        let parts = PARTS >> self.runs.len().min(PARTS.ilog2() as usize);
        let wanted = self.buffered_bytes / parts;
        let (mut entries, mut bytes) = (0, 0);
        for piece in self.entries.chunk_by(|one, other| one.slab == other.slab) {
            if bytes >= wanted {
                break;
            }
            let held = piece.iter().map(|entry| held_bytes(entry.len as usize));
            bytes += held.sum::<u64>();
            entries += piece.len();
        }
        let pieces = match self.entries.get(entries) {
            Some(next) => (next.slab - self.slabs.first) as usize,
            None => self.slabs.pieces.len(),
        };
        NextRun {
            entries,
            pieces,
            bytes,
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        let run = self.next_run();
        sort(&mut self.entries[..run.entries]);
        let path = self.folder.join(format!("run-{}", self.runs.len()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        fs::remove_file(&path)?;
        let mut segments = BTreeMap::new();
        let mut out = BufWriter::with_capacity(1 << 20, &file);
        let mut at = 0;
        for entries in self.entries[..run.entries].chunk_by(|one, other| one.tenant == other.tenant)
        {
            let table = at..at + (entries.len() * ENTRY_BYTES) as u64;
            let mut data = table.end..table.end;
            for entry in entries {
                out.write_all(entry.id.as_bytes())?;
                out.write_all(&entry.len.to_le_bytes())?;
                data.end += u64::from(entry.len);
            }
            for entry in entries {
                out.write_all(self.slabs.chunk(entry))?;
            }
            at = data.end;
            if let Some(first) = entries.first() {
                segments.insert(first.tenant, Segment { table, data });
            }
        }
        out.flush()?;
        drop(out);
        tracing::info!(bytes = at, runs = self.runs.len() + 1, "section spilled");
        self.runs.push(FileRun {
            file: Arc::new(file),
            segments,
        });
        self.entries.drain(..run.entries);
        self.buffered_bytes -= run.bytes;
        self.let_go(run.pieces);
        Ok(())
    }

    /// Ends the arrival: everything can be read, tenant by tenant.
    pub(crate) fn finish(&mut self) {
        sort(&mut self.entries);
    }

    /// Tenants, by name.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        self.tenants.iter().map(|(name, &number)| (name, number))
    }

    /// Runs on disk.
    #[cfg(test)]
    fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// How many different traces a tenant has.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn count_traces(&self, tenant: u32) -> io::Result<u64> {
        let mut count = 0;
        let mut last = None;
        let mut note = |id: TraceId| {
            if last != Some(id) {
                last = Some(id);
                count += 1;
            }
        };
        if self.runs.is_empty() {
            for entry in self.entries_of(tenant) {
                note(entry.id);
            }
        } else {
            let mut merge = self.merge(tenant)?;
            while let Some(at) = merge.lowest() {
                note(merge.id(at));
                merge.advance(at)?;
            }
        }
        Ok(count)
    }

    fn entries_of(&self, tenant: u32) -> &[Entry] {
        let begin = self.entries.partition_point(|entry| entry.tenant < tenant);
        let len = self.entries[begin..].partition_point(|entry| entry.tenant == tenant);
        &self.entries[begin..begin + len]
    }

    fn merge(&self, tenant: u32) -> io::Result<Merge<'_>> {
        let mut merge = Merge::new(&self.slabs);
        for run in &self.runs {
            if let Some(Segment { table, data }) = run.segments.get(&tenant) {
                merge.add_file(&run.file, table.clone(), data.clone())?;
            }
        }
        merge.add_memory(self.entries_of(tenant))?;
        Ok(merge)
    }

    /// Gives each trace of a tenant with its chunks, by ascending id. Of a trace, chunks beyond
    /// `max_trace_bytes` are not given but counted.
    ///
    /// # Errors
    /// `visit`'s, and when a file cannot be read.
    pub(crate) fn for_each_trace<E: From<io::Error>>(
        &self,
        tenant: u32,
        max_trace_bytes: u64,
        mut visit: impl FnMut(TraceId, &[&[u8]]) -> Result<(), E>,
        mut too_large: impl FnMut(TraceId, &[u8]),
    ) -> Result<(), E> {
        if self.runs.is_empty() {
            let mut chunks: Vec<&[u8]> = Vec::new();
            let mut ahead = Ahead::of(&self.slabs, self.entries_of(tenant));
            for entries in ahead.entries.chunk_by(|one, other| one.id == other.id) {
                ahead.pass(entries.len());
                let Some(first) = entries.first() else {
                    continue;
                };
                chunks.clear();
                let mut accepted = 0;
                for entry in entries {
                    let chunk = self.slabs.chunk(entry);
                    if accepted + chunk.len() as u64 > max_trace_bytes {
                        too_large(first.id, chunk);
                        continue;
                    }
                    accepted += chunk.len() as u64;
                    chunks.push(chunk);
                }
                visit(first.id, &chunks)?;
            }
            return Ok(());
        }
        let mut merge = self.merge(tenant)?;
        let mut read: Vec<u8> = Vec::new();
        let mut chunks: Vec<Chunk<'_>> = Vec::new();
        while let Some(first) = merge.lowest() {
            let id = merge.id(first);
            read.clear();
            chunks.clear();
            let mut accepted = 0;
            // Runs are in the order of their arrival, and so are the entries of one.
            while let Some(at) = merge.lowest().filter(|&at| merge.id(at) == id) {
                let before = read.len();
                let chunk = merge.take(at, &mut read)?;
                let len = chunk.bytes(&read).len() as u64;
                if accepted + len > max_trace_bytes {
                    too_large(id, chunk.bytes(&read));
                    read.truncate(before);
                } else {
                    accepted += len;
                    chunks.push(chunk);
                }
            }
            let given: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.bytes(&read)).collect();
            visit(id, &given)?;
        }
        Ok(())
    }
}

/// What a chunk of so many bytes takes of memory.
fn held_bytes(chunk_len: usize) -> u64 {
    (chunk_len + size_of::<Entry>()) as u64
}

/// By tenant and id. Stable: entries are in the order of their arrival.
fn sort(entries: &mut [Entry]) {
    entries.sort_by_key(|entry| (entry.tenant, entry.id));
}
