use std::{path::PathBuf, sync::mpsc};

use prometheus::Registry;
use tempo_model::TraceChunk;

use super::{
    super::{
        CoverageFile, SegmentSummary, UnreadableSegment,
        disk::{RealDisk, faulty::FaultyDisk},
        inspect_wal_segment,
    },
    *,
};

struct Fixture {
    folder: tempfile::TempDir,
    disk: FaultyDisk,
    metrics: WalMetrics,
    segment_bytes: u64,
    max_queue_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    tenant: String,
    arrival: u64,
    chunks: Vec<(TraceId, ChunkRef)>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            disk: FaultyDisk::default(),
            metrics: WalMetrics::new(&Registry::new()).unwrap(),
            segment_bytes: 1 << 20,
            max_queue_bytes: 1 << 20,
        }
    }

    fn segments(&self) -> PathBuf {
        self.folder.path().join("segments")
    }

    fn quarantine(&self) -> PathBuf {
        self.folder.path().join("quarantine")
    }

    fn open(&self) -> (Wal, Vec<Found>) {
        self.open_with(&Coverage::default())
    }

    fn open_with(&self, covered: &Coverage) -> (Wal, Vec<Found>) {
        let options = Options {
            directory: self.segments(),
            quarantine: self.quarantine(),
            segment_bytes: self.segment_bytes,
            max_queue_bytes: self.max_queue_bytes,
        };
        let mut found = Vec::new();
        let wal = Wal::open(
            options,
            Arc::new(self.disk.clone()),
            self.metrics.clone(),
            covered,
            |record| {
                found.push(Found {
                    tenant: record.tenant.to_owned(),
                    arrival: record.arrival_unix_nanos,
                    chunks: record.chunks,
                });
            },
        )
        .unwrap();
        (wal, found)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.segments())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files
    }
}

fn batch(ids: &[u8]) -> TraceBatch {
    TraceBatch {
        traces: ids
            .iter()
            .map(|&id| TraceChunk {
                id: TraceId::from_padded(&[id]),
                trace: vec![id; 100].into(),
                spans: u32::from(id),
            })
            .collect(),
        skip_metrics_generation: false,
    }
}

/// Appends and waits; returns the chunks' places.
fn append(wal: &Wal, ids: &[u8]) -> Result<Vec<(TraceId, ChunkRef)>, AppendError> {
    let (sender, receiver) = mpsc::channel();
    let done = wal.append(
        "tenant",
        batch(ids),
        7,
        Box::new(move |placement| sender.send(placement.chunks).unwrap()),
    )?;
    done.blocking_recv().unwrap()?;
    let chunks = receiver.recv().unwrap();
    Ok(chunks
        .into_iter()
        .map(|(id, chunk, _)| (id, chunk))
        .collect())
}

fn read(wal: &Wal, chunk: &ChunkRef) -> Vec<u8> {
    let mut out = Vec::new();
    wal.reader([chunk].into_iter())
        .read(chunk, &mut out)
        .unwrap();
    out
}

fn ids_of(found: &[Found]) -> Vec<u8> {
    found
        .iter()
        .flat_map(|record| &record.chunks)
        .map(|(id, _)| id.as_bytes()[15])
        .collect()
}

#[test]
fn what_was_appended_is_read_back_at_once_and_after_a_restart() {
    let fixture = Fixture::new();
    let (wal, found) = fixture.open();
    assert_eq!(found, vec![]);
    assert_eq!(fixture.files(), Vec::<PathBuf>::new());
    let first = append(&wal, &[1, 2]).unwrap();
    let second = append(&wal, &[1]).unwrap();
    assert_eq!(read(&wal, &first[1].1), vec![2; 100]);
    drop(wal);
    let (wal, found) = fixture.open();
    let record = |chunks: &[(TraceId, ChunkRef)]| Found {
        tenant: "tenant".to_owned(),
        arrival: 7,
        chunks: chunks.to_vec(),
    };
    assert_eq!(found, vec![record(&first), record(&second)]);
    assert_eq!(read(&wal, &second[0].1), vec![1; 100]);
    let third = append(&wal, &[3]).unwrap();
    assert!(
        third[0].1.segment > second[0].1.segment,
        "a new file after a restart"
    );
    drop(wal);
    assert_eq!(ids_of(&fixture.open().1), vec![1, 2, 1, 3]);
}

#[test]
fn a_full_disk_refuses_and_recovers_without_losing_or_inventing_a_record() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    append(&wal, &[1]).unwrap();
    // The next record is torn in the middle of its data.
    fixture.disk.limit(Some(100));
    let refused = append(&wal, &[2]);
    assert!(
        matches!(&refused, Err(AppendError::Write(error)) if error.kind() == io::ErrorKind::StorageFull),
        "{refused:?}"
    );
    assert!(append(&wal, &[3]).is_err());
    fixture.disk.limit(None);
    append(&wal, &[4]).unwrap();
    assert_eq!(fixture.files().len(), 1, "the same segment goes on");
    drop(wal);
    let (_wal, found) = fixture.open();
    assert_eq!(ids_of(&found), vec![1, 4]);
    assert_eq!(fixture.metrics.dropped_bytes.get(), 0);
}

#[test]
fn pushes_are_refused_before_the_disk_is_full() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    wal.reserve(1000, 500);
    let record = 40 + 7 + 28 + 100;
    let refused = |free_bytes| {
        fixture.disk.set_free_bytes(free_bytes);
        matches!(append(&wal, &[1]), Err(AppendError::DiskFull { .. }))
    };
    let enough = 1000 + record + record / 2;
    assert!(refused(enough - 1));
    assert!(!refused(enough));
    assert!(refused(enough), "what the log holds already needs room too");
    assert!(!refused(enough + 2 * record));
}

#[test]
fn a_segment_that_cannot_be_cut_is_abandoned() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    append(&wal, &[1]).unwrap();
    fixture.disk.limit(Some(100));
    fixture.disk.fail_truncate(true);
    assert!(append(&wal, &[2]).is_err());
    fixture.disk.limit(None);
    append(&wal, &[3]).unwrap();
    assert_eq!(fixture.files().len(), 2);
    drop(wal);
    let (_wal, found) = fixture.open();
    assert_eq!(ids_of(&found), vec![1, 3]);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_on_that_file() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    append(&wal, &[1]).unwrap();
    fixture.disk.fail_sync(true);
    assert!(append(&wal, &[2]).is_err());
    assert!(append(&wal, &[3]).is_err(), "no new segment either");
    fixture.disk.fail_sync(false);
    append(&wal, &[4]).unwrap();
    drop(wal);
    let (_wal, found) = fixture.open();
    assert_eq!(ids_of(&found), vec![1, 4]);
    let segments: Vec<u32> = found
        .iter()
        .map(|record| record.chunks[0].1.segment)
        .collect();
    assert_ne!(segments[0], segments[1]);
}

#[test]
fn a_segment_that_cannot_be_created_is_tried_again() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    fixture.disk.fail_create(true);
    assert!(append(&wal, &[1]).is_err());
    fixture.disk.fail_create(false);
    append(&wal, &[2]).unwrap();
    drop(wal);
    assert_eq!(ids_of(&fixture.open().1), vec![2]);
}

#[test]
fn segments_rotate_and_go_when_all_their_chunks_are_released() {
    let fixture = Fixture {
        segment_bytes: 500,
        ..Fixture::new()
    };
    let (wal, _) = fixture.open();
    let chunks: Vec<_> = (1..=8)
        .flat_map(|id| append(&wal, &[id, id]).unwrap())
        .collect();
    let before = fixture.files().len();
    assert!(before > 2, "{before} files");
    let first_segment = chunks[0].1.segment;
    let (first, rest): (Vec<_>, Vec<_>) = chunks
        .iter()
        .map(|(_, chunk)| *chunk)
        .partition(|chunk| chunk.segment == first_segment);
    wal.release(first[1..].iter().copied());
    wal.reclaim();
    assert_eq!(fixture.files().len(), before, "one chunk still needs it");
    let reader = wal.reader(first.iter());
    wal.release(first[..1].iter().copied());
    wal.reclaim();
    assert_eq!(fixture.files().len(), before - 1);
    assert!(wal.segment(first_segment).is_none());
    assert_eq!(
        reader.bytes(&first[0]).unwrap(),
        vec![1; 100],
        "a reader made before still reads"
    );
    assert!(matches!(
        wal.reader(first.iter()).bytes(&first[0]),
        Err(ReadChunkError::Reclaimed { .. })
    ));
    wal.release(rest.into_iter());
    // The segment being written goes once it is sealed.
    wal.rotate_stale(0, u64::MAX);
    wal.close();
    wal.reclaim();
    assert_eq!(fixture.files(), Vec::<PathBuf>::new());
}

#[test]
fn chunks_in_blocks_are_not_replayed_and_numbers_are_not_used_again() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    let chunks = append(&wal, &[1, 2, 3]).unwrap();
    let salt_of = |id: u32| wal.segment(id).map(|segment| segment.salt);
    let two = CoverageFile::new([chunks[0].1, chunks[2].1].into_iter(), salt_of);
    let all = CoverageFile::new(chunks.iter().map(|(_, chunk)| *chunk), salt_of);
    drop(wal);
    let mut coverage = Coverage::default();
    coverage.add(&two);
    let (wal, found) = fixture.open_with(&coverage);
    assert_eq!(ids_of(&found), vec![2]);
    drop(wal);
    let mut coverage = Coverage::default();
    coverage.add(&all);
    let (wal, found) = fixture.open_with(&coverage);
    assert_eq!(found, vec![]);
    assert_eq!(fixture.files(), Vec::<PathBuf>::new(), "reclaimed at start");
    let next = append(&wal, &[4]).unwrap();
    assert!(next[0].1.segment > chunks[0].1.segment);
}

#[test]
fn garbage_is_put_aside_and_empty_files_are_removed() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.segments()).unwrap();
    fs::write(fixture.segments().join("0000000001.wal"), b"").unwrap();
    fs::write(fixture.segments().join("0000000002.wal"), vec![3; 5000]).unwrap();
    fs::write(fixture.segments().join("notes.txt"), b"not a segment").unwrap();
    let (wal, found) = fixture.open();
    assert_eq!(found, vec![]);
    assert!(fixture.quarantine().join("0000000002.wal").exists());
    assert_eq!(fixture.files(), vec![fixture.segments().join("notes.txt")]);
    assert_eq!(fixture.metrics.dropped_bytes.get(), 5000);
    assert_eq!(append(&wal, &[1]).unwrap()[0].1.segment, 3);
}

#[test]
fn a_newer_format_stops_the_start_and_is_left_alone() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    append(&wal, &[1]).unwrap();
    drop(wal);
    let path = fixture.files().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    let options = Options {
        directory: fixture.segments(),
        quarantine: fixture.quarantine(),
        segment_bytes: 1,
        max_queue_bytes: 1,
    };
    let metrics = WalMetrics::new(&Registry::new()).unwrap();
    let opened = Wal::open(
        options,
        Arc::new(RealDisk),
        metrics,
        &Coverage::default(),
        |_| {},
    );
    assert!(matches!(
        opened,
        Err(Error::NewerVersion { version: 9, .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_damaged_segment_is_kept_aside_when_the_rest_of_it_is_in_blocks() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    append(&wal, &[1]).unwrap();
    append(&wal, &[2]).unwrap();
    drop(wal);
    let path = fixture.files().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let payload = bytes
        .windows(4)
        .position(|window| window == [1; 4])
        .unwrap();
    bytes[payload + 2] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (wal, found) = fixture.open();
    assert_eq!(ids_of(&found), vec![2]);
    assert_eq!(fixture.metrics.dropped_bytes.get(), 100);
    wal.release(
        found
            .iter()
            .flat_map(|record| &record.chunks)
            .map(|(_, chunk)| *chunk),
    );
    wal.reclaim();
    assert!(!path.exists());
    assert!(fixture.quarantine().join("0000000001.wal").exists());
}

#[test]
fn a_segment_can_be_inspected_from_outside() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    append(&wal, &[1, 2]).unwrap();
    append(&wal, &[3]).unwrap();
    drop(wal);
    let content = fs::read(fixture.files().remove(0)).unwrap();
    let whole = SegmentSummary {
        records: 2,
        chunks: 3,
        spans: 6,
        chunk_bytes: 300,
        damaged_places: 0,
        dropped_bytes: 0,
    };
    assert_eq!(inspect_wal_segment(&content), Ok(whole));
    let torn = inspect_wal_segment(&content[..content.len() - 1]).unwrap();
    assert_eq!((torn.records, torn.damaged_places), (1, 1));
    assert_eq!(
        inspect_wal_segment(b"something else"),
        Err(UnreadableSegment::Garbage)
    );
}

#[test]
fn a_chunk_that_rots_after_it_was_written_is_noticed_when_read() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    let chunks = append(&wal, &[1]).unwrap();
    let path = fixture.files().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[chunks[0].1.offset as usize] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let reader = wal.reader([&chunks[0].1].into_iter());
    assert!(matches!(
        reader.bytes(&chunks[0].1),
        Err(ReadChunkError::Corrupt { bytes: 100, .. })
    ));
}

#[test]
fn the_queue_is_bounded_but_never_refuses_a_push_alone() {
    let fixture = Fixture {
        max_queue_bytes: 150,
        ..Fixture::new()
    };
    let (wal, _) = fixture.open();
    append(&wal, &[1, 2, 3]).unwrap();
    // The writer is held up by a callback while others queue.
    let (entered, is_inside) = mpsc::channel();
    let (release, wait) = mpsc::channel::<()>();
    let hold = move |_: Placement| {
        entered.send(()).unwrap();
        wait.recv().unwrap();
    };
    let held = wal
        .append("tenant", batch(&[1]), 0, Box::new(hold))
        .unwrap();
    is_inside.recv().unwrap();
    let queue = |ids: &[u8]| wal.append("tenant", batch(ids), 0, Box::new(|_| {}));
    let queued = queue(&[2, 3]).unwrap();
    assert!(matches!(
        queue(&[4]),
        Err(AppendError::QueueFull { max_bytes: 150, .. })
    ));
    release.send(()).unwrap();
    held.blocking_recv().unwrap().unwrap();
    queued.blocking_recv().unwrap().unwrap();
    queue(&[4]).unwrap().blocking_recv().unwrap().unwrap();
}

#[test]
fn pushes_that_wait_together_share_one_sync() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    append(&wal, &[1]).unwrap();
    let (entered, is_inside) = mpsc::channel();
    let (release, wait) = mpsc::channel::<()>();
    let hold = move |_: Placement| {
        entered.send(()).unwrap();
        wait.recv().unwrap();
    };
    let held = wal
        .append("tenant", batch(&[1]), 0, Box::new(hold))
        .unwrap();
    is_inside.recv().unwrap();
    let before = fixture.disk.syncs();
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            wal.append("tenant", batch(&[2]), 0, Box::new(|_| {}))
                .unwrap()
        })
        .collect();
    release.send(()).unwrap();
    held.blocking_recv().unwrap().unwrap();
    for receiver in waiting {
        receiver.blocking_recv().unwrap().unwrap();
    }
    assert_eq!(fixture.disk.syncs(), before + 1);
}

#[test]
fn a_closed_log_writes_what_is_queued_and_refuses_the_rest() {
    let fixture = Fixture::new();
    let (wal, _) = fixture.open();
    let receivers: Vec<_> = (1..=5)
        .map(|id| {
            wal.append("tenant", batch(&[id]), 0, Box::new(|_| {}))
                .unwrap()
        })
        .collect();
    wal.close();
    for receiver in receivers {
        receiver.blocking_recv().unwrap().unwrap();
    }
    assert!(matches!(append(&wal, &[6]), Err(AppendError::Closed)));
    drop(wal);
    assert_eq!(ids_of(&fixture.open().1), vec![1, 2, 3, 4, 5]);
}
