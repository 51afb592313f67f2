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

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempo_model::TraceId;

/// Memory is taken in pieces of this size.
const SLAB_BYTES: usize = 4 << 20;

/// Bytes of an entry in a file's table.
const ENTRY_BYTES: usize = 20;

/// The first run takes one of so many parts of what is in memory.
const PARTS: u64 = 8;

/// Chunks that are fetched from memory before they are needed.
const AHEAD: usize = 16;

/// Bytes of each chunk that are. The processor itself fetches what follows.
const AHEAD_BYTES: usize = 256;

/// Bytes of a line of a processor's cache.
const LINE_BYTES: usize = 64;

/// Bytes of each of the two buffers of a run that is read.
const READ_BYTES: usize = 256 << 10;

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
            let slab = match self.spare.pop() {
                Some(slab) if chunk.len() <= SLAB_BYTES => slab,
                _ => Vec::with_capacity(SLAB_BYTES.max(chunk.len())),
            };
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

    /// How many entries the next run takes, the oldest, and how many pieces of memory they fill.
    fn next_run(&self) -> (usize, usize) {
        let parts = PARTS >> self.runs.len().min(PARTS.ilog2() as usize);
        let wanted = self.buffered_bytes / parts;
        let (mut taken, mut entries) = (0, 0);
        for piece in self.entries.chunk_by(|one, other| one.slab == other.slab) {
            if taken >= wanted {
                break;
            }
            let held = piece.iter().map(|entry| held_bytes(entry.len as usize));
            taken += held.sum::<u64>();
            entries += piece.len();
        }
        let pieces = match self.entries.get(entries) {
            Some(next) => (next.slab - self.slabs.first) as usize,
            None => self.slabs.pieces.len(),
        };
        (entries, pieces)
    }

    fn spill(&mut self) -> io::Result<()> {
        let (taken, pieces) = self.next_run();
        sort(&mut self.entries[..taken]);
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
        let mut bytes = 0;
        for entries in self.entries[..taken].chunk_by(|one, other| one.tenant == other.tenant) {
            let table = at..at + (entries.len() * ENTRY_BYTES) as u64;
            let mut data = table.end..table.end;
            for entry in entries {
                out.write_all(entry.id.as_bytes())?;
                out.write_all(&entry.len.to_le_bytes())?;
                data.end += u64::from(entry.len);
                bytes += held_bytes(entry.len as usize);
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
        self.entries.drain(..taken);
        self.buffered_bytes -= bytes;
        self.let_go(pieces);
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
                note(merge.heads[at].0);
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
        let mut merge = Merge {
            slabs: &self.slabs,
            sources: Vec::new(),
            heads: Vec::new(),
        };
        for run in &self.runs {
            let Some(segment) = run.segments.get(&tenant) else {
                continue;
            };
            merge.add(Source::File {
                table: Reader::new(&run.file, segment.table.clone()),
                data: Reader::new(&run.file, segment.data.clone()),
            })?;
        }
        // What is left in memory came last.
        merge.add(Source::Memory {
            head: None,
            rest: self.entries_of(tenant).iter(),
            ahead: Ahead::of(&self.slabs, self.entries_of(tenant)),
        })?;
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
        let mut bytes: Vec<u8> = Vec::new();
        let mut ends: Vec<usize> = Vec::new();
        while let Some(first) = merge.lowest() {
            let id = merge.heads[first].0;
            bytes.clear();
            ends.clear();
            // Runs are in the order of their arrival, and so are the entries of one.
            while let Some(at) = merge.lowest().filter(|&at| merge.heads[at].0 == id) {
                let before = bytes.len();
                merge.take_into(at, &mut bytes)?;
                if bytes.len() as u64 > max_trace_bytes {
                    too_large(id, &bytes[before..]);
                    bytes.truncate(before);
                } else {
                    ends.push(bytes.len());
                }
            }
            let mut begin = 0;
            let chunks: Vec<&[u8]> = ends
                .iter()
                .map(|&end| &bytes[std::mem::replace(&mut begin, end)..end])
                .collect();
            visit(id, &chunks)?;
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

/// Fetches the beginnings of chunks that come next. They lie in the order of their arrival and are
/// read in that of their ids, so each begins where the processor does not expect it; waiting for them
/// one by one took a tenth of building.
struct Ahead<'a> {
    slabs: &'a Slabs,
    entries: &'a [Entry],
    passed: usize,
    fetched: usize,
}

impl<'a> Ahead<'a> {
    fn of(slabs: &'a Slabs, entries: &'a [Entry]) -> Self {
        Self {
            slabs,
            entries,
            passed: 0,
            fetched: 0,
        }
    }

    /// So many more entries are read now.
    fn pass(&mut self, entries: usize) {
        self.passed += entries;
        while self.fetched < self.passed + AHEAD && self.fetched < self.entries.len() {
            let next = self.entries[self.fetched..].iter().take(AHEAD);
            for chunk in next.map(|entry| self.slabs.chunk(entry)) {
                // Nothing waits for these bytes, so they come all at the same time.
                for line in chunk[..chunk.len().min(AHEAD_BYTES)].chunks(LINE_BYTES) {
                    std::hint::black_box(line.first().copied());
                }
            }
            self.fetched += AHEAD;
        }
    }
}

/// The runs of one tenant and what memory has of it, side by side, in the order of their arrival.
/// They are few, so the lowest is looked for.
struct Merge<'a> {
    slabs: &'a Slabs,
    sources: Vec<Source<'a>>,
    /// Id and length of the next entry of each.
    heads: Vec<(TraceId, u32)>,
}

enum Source<'a> {
    File {
        table: Reader,
        data: Reader,
    },
    Memory {
        /// The entry that is the head.
        head: Option<&'a Entry>,
        rest: std::slice::Iter<'a, Entry>,
        ahead: Ahead<'a>,
    },
}

impl Source<'_> {
    /// Goes to the next entry; the bytes of the one before were taken or skipped.
    fn next(&mut self) -> io::Result<Option<(TraceId, u32)>> {
        match self {
            Self::File { table, .. } => read_entry(table),
            Self::Memory { head, rest, ahead } => {
                *head = rest.next();
                ahead.pass(1);
                Ok(head.map(|entry| (entry.id, entry.len)))
            }
        }
    }
}

impl<'a> Merge<'a> {
    fn add(&mut self, mut source: Source<'a>) -> io::Result<()> {
        if let Some(head) = source.next()? {
            self.sources.push(source);
            self.heads.push(head);
        }
        Ok(())
    }

    /// The source with the lowest id; of equal ones the earliest.
    fn lowest(&self) -> Option<usize> {
        (0..self.heads.len()).min_by_key(|&at| self.heads[at].0)
    }

    /// Goes past the next entry of a source and its bytes.
    fn advance(&mut self, at: usize) -> io::Result<()> {
        if let Source::File { data, .. } = &mut self.sources[at] {
            data.skip(u64::from(self.heads[at].1));
        }
        self.step(at)
    }

    /// Appends the bytes of the next entry of a source, and goes past it.
    fn take_into(&mut self, at: usize, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.sources[at] {
            Source::File { data, .. } => data.read_into(out, self.heads[at].1 as usize)?,
            Source::Memory { head, .. } => {
                if let Some(entry) = head {
                    out.extend_from_slice(self.slabs.chunk(entry));
                }
            }
        }
        self.step(at)
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

#[cfg(test)]
mod tests {
    use super::*;

    type Traces = Vec<(TraceId, Vec<Vec<u8>>)>;

    fn traces(sorter: &Sorter, tenant: u32, max_trace_bytes: u64) -> (Traces, usize) {
        let mut found = Vec::new();
        let mut refused = 0;
        sorter
            .for_each_trace::<io::Error>(
                tenant,
                max_trace_bytes,
                |id, chunks| {
                    found.push((id, chunks.iter().map(|chunk| chunk.to_vec()).collect()));
                    Ok(())
                },
                |_, _| refused += 1,
            )
            .unwrap();
        (found, refused)
    }

    /// Fills a sorter; the chunk of trace `id` number `n` is told by its content.
    fn filled(folder: &Path, limit_bytes: u64) -> Sorter {
        let mut sorter = Sorter::new(folder, limit_bytes);
        let tenants = [sorter.tenant("b"), sorter.tenant("a")];
        let mut state = 7_u32;
        for n in 0..5000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let id = TraceId::from_padded(&(state >> 22).to_be_bytes());
            let mut chunk = n.to_be_bytes().to_vec();
            chunk.resize(4 + (state >> 8) as usize % 300, 1);
            let tenant = tenants[(state >> 16) as usize % 2];
            sorter.push(tenant, id, &chunk).unwrap();
        }
        sorter
            .push(tenants[0], TraceId::default(), &vec![9; 5 << 20])
            .unwrap();
        sorter.finish();
        sorter
    }

    #[test]
    fn files_give_what_memory_gives() {
        let folder = tempfile::tempdir().unwrap();
        let in_memory = filled(folder.path(), u64::MAX);
        let spilled = filled(folder.path(), 100_000);
        assert_eq!(in_memory.run_count(), 0);
        assert!(spilled.run_count() > 5, "{}", spilled.run_count());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no names");
        let names: Vec<_> = spilled
            .tenants()
            .map(|(name, _)| name.to_string())
            .collect();
        assert_eq!(names, ["a", "b"]);
        for tenant in [0, 1] {
            for limit in [u64::MAX, 400] {
                let (expected, refused) = traces(&in_memory, tenant, limit);
                assert!(expected.is_sorted_by(|one, other| one.0 < other.0));
                for (_, chunks) in &expected {
                    let numbers = chunks.iter().map(|chunk| &chunk[..4]);
                    assert!(numbers.is_sorted(), "in order of arrival");
                }
                assert_eq!(refused > 0, limit == 400);
                assert_eq!(traces(&spilled, tenant, limit), (expected, refused));
            }
            let count = in_memory.count_traces(tenant).unwrap();
            assert_eq!(count, traces(&in_memory, tenant, u64::MAX).0.len() as u64);
            assert_eq!(spilled.count_traces(tenant).unwrap(), count);
        }
        assert_eq!(in_memory.count_traces(7).unwrap(), 0);
    }

    #[test]
    fn a_section_that_is_little_more_than_memory_holds_is_hardly_written() {
        const CHUNK_BYTES: usize = 1 << 20;
        let folder = tempfile::tempdir().unwrap();
        let limit = 64 * held_bytes(CHUNK_BYTES);
        let mut sorter = Sorter::new(folder.path(), limit);
        let tenant = sorter.tenant("a");
        let push = |sorter: &mut Sorter, n: u32| {
            // Two chunks of a trace lie far from each other.
            let id = TraceId::from_padded(&(n % 150).to_be_bytes());
            let mut chunk = n.to_be_bytes().to_vec();
            chunk.resize(CHUNK_BYTES, 1);
            sorter.push(tenant, id, &chunk).unwrap();
        };
        // Chunks that each run took.
        let mut runs = Vec::new();
        for n in 0..300 {
            push(&mut sorter, n);
            if sorter.run_count() > runs.len() {
                runs.push(64 - sorter.buffered_bytes / held_bytes(CHUNK_BYTES) + 1);
            }
            assert!(sorter.buffered_bytes <= limit);
        }
        assert_eq!(runs, [8, 16, 32, 64, 64, 64]);
        sorter.finish();
        let (found, _) = traces(&sorter, tenant, u64::MAX);
        assert_eq!(found.len(), 150);
        assert_eq!(sorter.count_traces(tenant).unwrap(), 150);
        for (n, (_, chunks)) in found.iter().enumerate() {
            let numbers: Vec<_> = chunks.iter().map(|chunk| &chunk[..4]).collect();
            let n = n as u32;
            assert_eq!(numbers, [n.to_be_bytes(), (n + 150).to_be_bytes()]);
        }
    }

    #[test]
    fn memory_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = filled(folder.path(), 100_000);
        sorter.clear();
        assert_eq!(sorter.tenants().count(), 0);
        let tenant = sorter.tenant("c");
        sorter.push(tenant, TraceId::default(), b"one").unwrap();
        sorter.finish();
        let expected = vec![(TraceId::default(), vec![b"one".to_vec()])];
        assert_eq!(traces(&sorter, tenant, u64::MAX), (expected, 0));
    }
}
