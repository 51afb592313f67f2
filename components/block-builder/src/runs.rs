//! Sorting the traces of a section by tenant and id, in bounded memory.
//!
//! What arrives is kept in memory until that is full; then it is sorted and written to a file, a
//! *run*, and memory is free again. Reading merges the runs. Chunks of the same trace keep the order
//! of their arrival.
//!
//! A file holds, for each tenant, a table of its entries (trace id and length) and then their bytes,
//! both in order. Nothing is synced: after a crash the files are worthless and deleted.

use std::{
    collections::BTreeMap,
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
    entries: Vec<Entry>,
    slabs: Vec<Vec<u8>>,
    /// Slabs that are free again.
    spare: Vec<Vec<u8>>,
    buffered_bytes: u64,
    runs: Vec<FileRun>,
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
            slabs: Vec::new(),
            spare: Vec::new(),
            buffered_bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Forgets everything and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.tenants.clear();
        self.runs.clear();
        self.forget_buffered();
    }

    fn forget_buffered(&mut self) {
        self.entries.clear();
        self.buffered_bytes = 0;
        for mut slab in self.slabs.drain(..) {
            slab.clear();
            if slab.capacity() == SLAB_BYTES {
                self.spare.push(slab);
            }
        }
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
        let held = (chunk.len() + size_of::<Entry>()) as u64;
        if self.buffered_bytes + held > self.limit_bytes && !self.entries.is_empty() {
            self.spill()?;
        }
        let len = u32::try_from(chunk.len())
            .map_err(|_| io::Error::other("a chunk of more than 4 GiB"))?;
        let fits = self
            .slabs
            .last()
            .is_some_and(|slab| slab.capacity() - slab.len() >= chunk.len());
        if !fits {
            let slab = match self.spare.pop() {
                Some(slab) if chunk.len() <= SLAB_BYTES => slab,
                _ => Vec::with_capacity(SLAB_BYTES.max(chunk.len())),
            };
            self.slabs.push(slab);
        }
        let at = self.slabs.len() - 1;
        let slab = &mut self.slabs[at];
        self.entries.push(Entry {
            id,
            tenant,
            slab: at as u32,
            offset: slab.len() as u32,
            len,
        });
        slab.extend_from_slice(chunk);
        self.buffered_bytes += held;
        Ok(())
    }

    fn sort(&mut self) {
        // Stable: entries are in the order of their arrival.
        self.entries.sort_by_key(|entry| (entry.tenant, entry.id));
    }

    fn spill(&mut self) -> io::Result<()> {
        self.sort();
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
        for entries in self
            .entries
            .chunk_by(|one, other| one.tenant == other.tenant)
        {
            let table = at..at + (entries.len() * ENTRY_BYTES) as u64;
            let mut data = table.end..table.end;
            for entry in entries {
                out.write_all(entry.id.as_bytes())?;
                out.write_all(&entry.len.to_le_bytes())?;
                data.end += u64::from(entry.len);
            }
            for entry in entries {
                out.write_all(chunk(&self.slabs, entry))?;
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
        self.forget_buffered();
        Ok(())
    }

    /// Ends the arrival: everything can be read, tenant by tenant.
    ///
    /// # Errors
    /// As [`Sorter::push`].
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.runs.is_empty() {
            self.sort();
            return Ok(());
        }
        // Either all of a section is in memory, or none of it.
        if self.entries.is_empty() {
            return Ok(());
        }
        self.spill()
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

    fn merge(&self, tenant: u32) -> io::Result<Merge> {
        let mut merge = Merge {
            tables: Vec::new(),
            data: Vec::new(),
            heads: Vec::new(),
        };
        for run in &self.runs {
            let Some(segment) = run.segments.get(&tenant) else {
                continue;
            };
            let mut table = Reader::new(&run.file, segment.table.clone());
            if let Some(head) = read_entry(&mut table)? {
                merge.tables.push(table);
                merge
                    .data
                    .push(Reader::new(&run.file, segment.data.clone()));
                merge.heads.push(head);
            }
        }
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
            for entries in self
                .entries_of(tenant)
                .chunk_by(|one, other| one.id == other.id)
            {
                let Some(first) = entries.first() else {
                    continue;
                };
                chunks.clear();
                let mut accepted = 0;
                for entry in entries {
                    let chunk = chunk(&self.slabs, entry);
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
                let len = merge.heads[at].1 as usize;
                merge.data[at].read_into(&mut bytes, len)?;
                if bytes.len() as u64 > max_trace_bytes {
                    too_large(id, &bytes[before..]);
                    bytes.truncate(before);
                } else {
                    ends.push(bytes.len());
                }
                merge.advance_table(at)?;
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

fn chunk<'a>(slabs: &'a [Vec<u8>], entry: &Entry) -> &'a [u8] {
    let begin = entry.offset as usize;
    &slabs[entry.slab as usize][begin..begin + entry.len as usize]
}

/// The runs of one tenant, side by side. There are few, so the lowest is looked for.
struct Merge {
    tables: Vec<Reader>,
    data: Vec<Reader>,
    /// Id and length of the next entry of each.
    heads: Vec<(TraceId, u32)>,
}

impl Merge {
    /// The run with the lowest id; of equal ones the earliest.
    fn lowest(&self) -> Option<usize> {
        (0..self.heads.len()).min_by_key(|&at| self.heads[at].0)
    }

    /// Goes past the next entry of a run and its bytes.
    fn advance(&mut self, at: usize) -> io::Result<()> {
        let len = u64::from(self.heads[at].1);
        self.data[at].skip(len);
        self.advance_table(at)
    }

    fn advance_table(&mut self, at: usize) -> io::Result<()> {
        match read_entry(&mut self.tables[at])? {
            Some(head) => self.heads[at] = head,
            None => {
                self.tables.remove(at);
                self.data.remove(at);
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
        sorter.finish().unwrap();
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
    fn memory_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = filled(folder.path(), 100_000);
        sorter.clear();
        assert_eq!(sorter.tenants().count(), 0);
        let tenant = sorter.tenant("c");
        sorter.push(tenant, TraceId::default(), b"one").unwrap();
        sorter.finish().unwrap();
        let expected = vec![(TraceId::default(), vec![b"one".to_vec()])];
        assert_eq!(traces(&sorter, tenant, u64::MAX), (expected, 0));
    }
}
