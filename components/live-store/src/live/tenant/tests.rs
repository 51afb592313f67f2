use std::{collections::BTreeMap, time::Duration};

use prometheus::Registry;
use tempo_table::{Intrinsic, SpanTable};
use tokio::sync::oneshot;

use super::{super::head::CutTrace, *};
use crate::{
    testing::{TestTrace, batch},
    wal::{AppendError, Coverage, FaultyDisk, Options},
};

/// A tenant on a log of its own.
struct Fixture {
    tenant: Arc<Tenant>,
    wal: Wal,
    metrics: Metrics,
    _folder: tempfile::TempDir,
}

const NO_LIMITS: PushLimits = PushLimits {
    overflow: Overflow::Refuse,
    max_bytes_per_trace: 0,
    max_live_traces: 0,
};

const NEVER: BlockCut = BlockCut {
    max_duration: Duration::MAX,
    max_bytes: u64::MAX,
    max_trace_bytes: u64::MAX,
};

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let options = Options {
            directory: folder.path().join("segments"),
            quarantine: folder.path().join("quarantine"),
            segment_bytes: 1 << 20,
            max_queue_bytes: 1 << 20,
        };
        let disk = Arc::new(FaultyDisk::default());
        let wal = Wal::open(
            options,
            disk,
            metrics.wal.clone(),
            &Coverage::default(),
            |_| {},
        )
        .unwrap();
        Self {
            tenant: Arc::new(Tenant::new("t", &metrics, Arc::default())),
            wal,
            metrics,
            _folder: folder,
        }
    }

    fn admit(&self, batch: TraceBatch, limits: PushLimits) -> Result<Admitted, PushError> {
        self.tenant.admit(batch, limits)
    }

    fn write(&self, admitted: Admitted) -> oneshot::Receiver<Result<(), AppendError>> {
        let tenant = Arc::clone(&self.tenant);
        let on_durable = Box::new(move |placement| {
            tenant.accept(placement, 100, admitted.reservation);
        });
        self.wal
            .append("t", admitted.batch, 100, on_durable)
            .unwrap()
    }

    fn push(&self, traces: impl IntoIterator<Item = TestTrace>) {
        let admitted = self.admit(batch(traces), NO_LIMITS).unwrap();
        self.write(admitted).blocking_recv().unwrap().unwrap();
    }

    /// Cuts everything into one closed block.
    fn cut_all(&self) -> Arc<CutBlock> {
        let mut blocks = self.tenant.cut(200, Cut::All, NEVER, 1.0, None);
        assert_eq!(blocks.len(), 1);
        blocks.remove(0)
    }

    /// What a query sees: for each row of a trace its id and number of spans, by table.
    fn seen(&self) -> Vec<Vec<(u8, usize)>> {
        let (tables, _) = self.tenant.view(&self.wal, 0, u64::MAX);
        tables
            .iter()
            .map(|table| rows(&*table.table().unwrap()))
            .collect()
    }

    /// The same, over all tables; every trace must be in one row.
    fn seen_traces(&self) -> BTreeMap<u8, usize> {
        let mut all = BTreeMap::new();
        for (id, spans) in self.seen().concat() {
            assert_eq!(all.insert(id, spans), None, "trace {id} has two rows");
        }
        all
    }
}

fn rows(table: &dyn SpanTable) -> Vec<(u8, usize)> {
    let structure = table.structure().unwrap();
    let ids = table
        .column(&Intrinsic::TraceId.into(), None)
        .unwrap()
        .ids
        .unwrap();
    (0..structure.traces())
        .map(|row| (ids.get(row)[15], structure.spans_of_trace(row).len()))
        .collect()
}

fn trace(n: u8, first_span: u32, spans: u32) -> TestTrace {
    TestTrace::new(n).first_span(first_span).spans(spans)
}

#[test]
fn what_is_accepted_is_seen_at_once() {
    let fixture = Fixture::new();
    assert_eq!(fixture.seen_traces(), BTreeMap::new());
    fixture.push([trace(1, 1, 2), trace(2, 1, 3)]);
    assert_eq!(fixture.seen_traces(), BTreeMap::from([(1, 2), (2, 3)]));
}

#[test]
fn a_trace_that_came_in_pieces_is_one_row_with_a_whole_tree() {
    let fixture = Fixture::new();
    for first_span in 1..=4 {
        fixture.push([trace(1, first_span, 1), trace(9 + first_span as u8, 1, 1)]);
        fixture.tenant.build_pending(&fixture.wal);
    }
    assert_eq!(
        fixture.tenant.sizes().tables,
        4,
        "nobody asked yet, so nothing was merged"
    );
    assert_eq!(fixture.seen_traces()[&1], 4);
    let (tables, _) = fixture.tenant.view(&fixture.wal, 0, u64::MAX);
    let merged = tables
        .iter()
        .map(|table| table.table().unwrap())
        .find(|table| rows(&**table).iter().any(|(id, _)| *id == 1))
        .unwrap();
    let left = merged
        .column(&Intrinsic::NestedSetLeft.into(), None)
        .unwrap();
    let mut lefts = left.ints.unwrap().values.to_vec();
    lefts.sort_unstable();
    assert_eq!(lefts, [1, 2, 3, 4], "a chain of four, numbered as one tree");
    // The merged row stands; what comes later is merged with it.
    fixture.push([trace(1, 5, 2)]);
    assert_eq!(fixture.seen_traces()[&1], 6);
    assert_eq!(fixture.tenant.sizes().table_spans, 6 + 4);
}

#[test]
fn a_span_sent_twice_is_seen_once() {
    let fixture = Fixture::new();
    fixture.push([trace(1, 1, 3)]);
    fixture.tenant.build_pending(&fixture.wal);
    fixture.push([trace(1, 2, 3)]);
    assert_eq!(fixture.seen_traces(), BTreeMap::from([(1, 4)]));
}

#[test]
fn small_tables_are_gathered() {
    let fixture = Fixture::new();
    for n in 1..=20 {
        fixture.push([trace(n, 1, 1)]);
        fixture.tenant.build_pending(&fixture.wal);
    }
    assert_eq!(fixture.tenant.sizes().tables, 20);
    fixture.tenant.tidy_tables(&fixture.wal);
    let sizes = fixture.tenant.sizes();
    assert_eq!((sizes.tables, sizes.table_spans), (1, 20));
    assert_eq!(fixture.seen_traces().len(), 20);
}

#[test]
fn what_is_in_a_block_is_seen_no_longer_and_what_came_after_the_cut_is() {
    let fixture = Fixture::new();
    fixture.push([trace(1, 1, 2), trace(2, 1, 2)]);
    fixture.tenant.build_pending(&fixture.wal);
    fixture.push([trace(2, 3, 1)]);
    let block = fixture.cut_all();
    // After the cut: more of trace 2, in the same table as its earlier spans by the merge of a
    // query, and a new trace.
    fixture.push([trace(2, 4, 1), trace(3, 1, 1)]);
    assert_eq!(
        fixture.seen_traces(),
        BTreeMap::from([(1, 2), (2, 4), (3, 1)])
    );
    let found = |n: u8| {
        let (chunks, reader, _) = fixture
            .tenant
            .find(&fixture.wal, &TraceId::from_padded(&[n]));
        for chunk in &chunks {
            reader.bytes(chunk).unwrap();
        }
        chunks.len()
    };
    assert_eq!((found(1), found(2), found(3), found(4)), (1, 3, 1, 0));
    fixture.tenant.complete(&fixture.wal, &block, None);
    assert_eq!(fixture.seen_traces(), BTreeMap::from([(2, 1), (3, 1)]));
    assert_eq!((found(1), found(2), found(3)), (0, 1, 1));
    // A second block takes the rest; then nothing is left, in memory or in the log.
    let block = fixture.cut_all();
    fixture.tenant.complete(&fixture.wal, &block, None);
    assert_eq!(fixture.seen_traces(), BTreeMap::new());
    assert!(fixture.tenant.is_empty());
    let sizes = fixture.tenant.sizes();
    assert_eq!((sizes.table_bytes, sizes.table_spans), (0, 0));
    assert_eq!(
        fixture
            .metrics
            .live_table_bytes
            .with_label_values(&["t"])
            .get(),
        0
    );
    fixture.wal.rotate_stale(0, u64::MAX);
    fixture.wal.close();
    fixture.wal.reclaim();
    assert_eq!(fixture.metrics.wal.segments.get(), 0);
}

#[test]
fn spans_still_pending_when_their_block_is_complete_are_not_seen_twice() {
    let fixture = Fixture::new();
    fixture.push([trace(1, 1, 2)]);
    let block = fixture.cut_all();
    fixture.tenant.complete(&fixture.wal, &block, None);
    assert_eq!(fixture.seen_traces(), BTreeMap::new());
    assert_eq!(fixture.tenant.sizes().pending_spans, 0);
}

#[test]
fn a_trace_that_was_cut_twice_into_one_block_is_seen_no_longer_either() {
    let fixture = Fixture::new();
    let idle = TraceCut {
        max_idle: Duration::ZERO,
        max_live: Duration::MAX,
    };
    for first_span in 1..=3 {
        fixture.push([trace(1, first_span, 1)]);
        let closed = fixture.tenant.cut(200, Cut::Due(idle), NEVER, 1.0, None);
        assert!(closed.is_empty());
    }
    // The query makes one row of it.
    assert_eq!(fixture.seen_traces(), BTreeMap::from([(1, 3)]));
    let block = fixture.cut_all();
    assert_eq!(block.traces().len(), 3);
    fixture.tenant.complete(&fixture.wal, &block, None);
    assert_eq!(fixture.tenant.sizes().pending_spans, 0);
    assert_eq!(fixture.seen_traces(), BTreeMap::new());
    assert!(fixture.tenant.is_empty());
}

#[test]
fn what_a_block_cannot_hold_of_a_trace_goes_into_the_next() {
    let fixture = Fixture::new();
    // All of the same size.
    let push = |n: u8| fixture.push([trace(n, 10, 1)]);
    let one = trace(1, 10, 1).encode().len() as u64;
    let due = TraceCut {
        max_idle: Duration::ZERO,
        max_live: Duration::MAX,
    };
    let narrow = BlockCut {
        max_trace_bytes: 2 * one + one / 2,
        ..NEVER
    };
    let spans = |block: &CutBlock| {
        let sorted = block.sorted();
        let count = |trace: &CutTrace| trace.chunks.len();
        sorted.iter().map(count).collect::<Vec<_>>()
    };
    // Others count apart, and the limit is for what was cut at different times together.
    let mut closed = Vec::new();
    for round in 0..3 {
        [1, 1, 2 + round].into_iter().for_each(push);
        let blocks = fixture.tenant.cut(200, Cut::Due(due), narrow, 1.0, None);
        closed.extend(blocks.iter().map(|block| spans(block)));
    }
    let last = fixture.tenant.cut(200, Cut::All, narrow, 1.0, None);
    closed.extend(last.iter().map(|block| spans(block)));
    assert_eq!(closed.len(), 3, "{closed:?}");
    let of_large = closed.iter().flatten().filter(|chunks| **chunks > 1);
    assert_eq!(of_large.collect::<Vec<_>>(), [&2, &2, &2]);
    assert_eq!(closed.iter().flatten().sum::<usize>(), 9);
    // And of one that comes at once.
    [9; 5].into_iter().for_each(push);
    let blocks = fixture.tenant.cut(200, Cut::All, narrow, 1.0, None);
    let parts: Vec<_> = blocks.iter().flat_map(|block| spans(block)).collect();
    assert_eq!(parts, [2, 2, 1]);
}

#[test]
fn tables_outside_the_time_range_are_left_out() {
    let fixture = Fixture::new();
    fixture.push([trace(1, 1, 1).start(1_000_000_000)]);
    fixture.tenant.build_pending(&fixture.wal);
    fixture.push([trace(2, 1, 1).start(9_000_000_000)]);
    fixture.tenant.build_pending(&fixture.wal);
    let seen = |start, end| {
        let (tables, _) = fixture.tenant.view(&fixture.wal, start, end);
        tables
            .iter()
            .flat_map(|table| rows(&*table.table().unwrap()))
            .map(|(id, _)| id)
            .collect::<Vec<u8>>()
    };
    assert_eq!(seen(0, 2_000_000_000), [1]);
    assert_eq!(seen(2_000_000_000, 8_000_000_000), [0_u8; 0]);
    assert_eq!(seen(1_000_500_000, 9_000_000_001), [1, 2]);
}

#[test]
fn too_many_new_traces_are_refused_whole_and_those_on_their_way_count() {
    let fixture = Fixture::new();
    let limits = PushLimits {
        overflow: Overflow::Refuse,
        max_live_traces: 3,
        ..NO_LIMITS
    };
    let on_its_way = fixture
        .admit(batch([trace(1, 1, 1), trace(2, 1, 1)]), limits)
        .unwrap();
    let refused = fixture.admit(batch([trace(3, 1, 1), trace(4, 1, 1)]), limits);
    assert!(matches!(
        refused,
        Err(PushError::LiveTraces {
            live: 2,
            new: 2,
            limit: 3,
            ..
        })
    ));
    drop(on_its_way);
    let admitted = fixture
        .admit(
            batch([trace(3, 1, 1), trace(4, 1, 1), trace(5, 1, 1)]),
            limits,
        )
        .unwrap();
    fixture.write(admitted).blocking_recv().unwrap().unwrap();
    // More of a trace that lives already is always taken.
    fixture.admit(batch([trace(3, 2, 1)]), limits).unwrap();
    assert!(fixture.admit(batch([trace(6, 1, 1)]), limits).is_err());
    fixture.cut_all();
    fixture.admit(batch([trace(6, 1, 1)]), limits).unwrap();
}

#[test]
fn what_nobody_can_send_again_is_taken_without_the_traces_that_are_too_many() {
    let fixture = Fixture::new();
    let one = trace(1, 1, 1).encode().len() as u64;
    let limits = PushLimits {
        overflow: Overflow::LeaveOut,
        max_live_traces: 2,
        max_bytes_per_trace: one * 3 / 2,
    };
    let admitted = fixture
        .admit(
            batch([trace(1, 1, 1), trace(2, 1, 5), trace(3, 1, 1)]),
            limits,
        )
        .unwrap();
    assert_eq!(admitted.left_out, [1], "too large");
    assert_eq!((admitted.too_large_spans, admitted.overflow_spans), (5, 0));
    fixture.write(admitted).blocking_recv().unwrap().unwrap();
    let admitted = fixture
        .admit(batch([trace(4, 1, 1), trace(5, 1, 2)]), limits)
        .unwrap();
    assert_eq!(admitted.left_out, [0, 1], "two live already");
    assert_eq!((admitted.too_large_spans, admitted.overflow_spans), (0, 3));
    drop(admitted);
    fixture.cut_all();
    let admitted = fixture.admit(batch([trace(4, 1, 1)]), limits).unwrap();
    assert!(admitted.left_out.is_empty());
}

#[test]
fn spans_of_a_trace_too_large_are_left_out_and_counted() {
    let fixture = Fixture::new();
    let one = trace(1, 1, 1).encode().len() as u64;
    let limits = PushLimits {
        overflow: Overflow::Refuse,
        max_bytes_per_trace: one * 3 / 2,
        ..NO_LIMITS
    };
    let push = |traces: Vec<TestTrace>| {
        let admitted = fixture.admit(batch(traces), limits).unwrap();
        let too_large = admitted.too_large_spans;
        let kept = admitted.batch.traces.len();
        fixture.write(admitted).blocking_recv().unwrap().unwrap();
        (kept, too_large)
    };
    assert_eq!(push(vec![trace(1, 1, 1)]), (1, 0));
    assert_eq!(push(vec![trace(1, 2, 1), trace(2, 1, 1)]), (1, 1));
    // Also after the trace was cut, until two blocks were closed without it.
    fixture.cut_all();
    assert_eq!(push(vec![trace(1, 2, 1), trace(3, 1, 1)]), (1, 1));
    fixture.cut_all();
    push(vec![trace(4, 1, 1)]);
    fixture.cut_all();
    assert_eq!(push(vec![trace(1, 2, 1)]), (1, 0));
    // What was admitted and then not written does not count.
    drop(fixture.admit(batch([trace(7, 1, 1)]), limits).unwrap());
    assert_eq!(push(vec![trace(7, 1, 1)]), (1, 0));
}

#[test]
fn blocks_are_closed_by_size_while_traces_are_cut() {
    let fixture = Fixture::new();
    for n in 1..=6 {
        fixture.push([trace(n, 1, 1)]);
    }
    let one = trace(1, 1, 1).encode().len() as u64;
    let half_compressed = BlockCut {
        max_bytes: one,
        ..NEVER
    };
    let due = TraceCut {
        max_idle: Duration::from_nanos(10),
        max_live: Duration::from_secs(1),
    };
    assert_eq!(
        fixture
            .tenant
            .cut(105, Cut::Due(due), half_compressed, 0.5, None)
            .len(),
        0,
        "nothing is idle yet"
    );
    let closed = fixture
        .tenant
        .cut(200, Cut::Due(due), half_compressed, 0.5, None);
    assert_eq!(closed.len(), 3, "two traces each");
    assert!(closed.iter().all(|block| block.sorted().len() == 2));
    let by_size = fixture
        .metrics
        .blocks_cut
        .with_label_values(&["max_block_bytes"]);
    assert_eq!(by_size.get(), 3);
    assert_eq!(fixture.tenant.sizes().uncompleted_blocks, 3);
}
