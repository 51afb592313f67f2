//! Metrics of the live-store. Names are Tempo's where Tempo has the thing measured; those of the
//! write-ahead log and of live columns are ours.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, exponential_buckets,
};
use tempo_runtime::metrics::register;

use crate::wal::{AppendError, Damage};

fn name(rest: &str) -> String {
    format!("tempo_live_store_{rest}")
}

fn counter(registry: &Registry, rest: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::new(name(rest), help))
}

fn counters(
    registry: &Registry,
    rest: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(
        registry,
        IntCounterVec::new(Opts::new(name(rest), help), labels),
    )
}

fn gauge(registry: &Registry, rest: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    register(registry, IntGauge::new(name(rest), help))
}

fn gauges(
    registry: &Registry,
    rest: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    register(
        registry,
        IntGaugeVec::new(Opts::new(name(rest), help), labels),
    )
}

fn histogram(
    registry: &Registry,
    rest: &str,
    help: &str,
    buckets: Vec<f64>,
) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name(rest), help).buckets(buckets);
    register(registry, Histogram::with_opts(options))
}

/// Everything the live-store counts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) ready: IntGauge,
    pub(crate) catch_up_duration_seconds: Gauge,
    pub(crate) traces_created: IntCounterVec,
    pub(crate) live_traces: IntGaugeVec,
    pub(crate) live_trace_bytes: IntGaugeVec,
    pub(crate) bytes_received: IntCounterVec,
    pub(crate) blocks_cut: IntCounterVec,
    pub(crate) blocks_cleared: IntCounterVec,
    pub(crate) complete_queue_length: IntGauge,
    pub(crate) unflushed_blocks: IntGauge,
    pub(crate) blocks_completed: IntCounter,
    pub(crate) failed_completions: IntCounter,
    pub(crate) completion_retries: IntCounter,
    pub(crate) completion_failed_retries: IntCounter,
    pub(crate) completion_duration_seconds: Histogram,
    pub(crate) completion_size_bytes: Histogram,
    pub(crate) back_pressure_seconds: prometheus::CounterVec,
    pub(crate) back_pressure_duration_seconds: Histogram,
    pub(crate) local_blocks_flushed: IntCounter,
    pub(crate) local_failed_flushes: IntCounter,
    pub(crate) local_flush_retries: IntCounter,
    pub(crate) local_flush_failed_retries: IntCounter,
    pub(crate) local_flush_duration_seconds: Histogram,
    pub(crate) local_flush_size_bytes: Histogram,
    query_inspected_bytes: IntCounterVec,
    pub(crate) lost_spans: IntCounterVec,
    pub(crate) live_tables: IntGaugeVec,
    pub(crate) live_table_bytes: IntGaugeVec,
    pub(crate) live_table_spans: IntGaugeVec,
    pub(crate) pending_bytes: IntGaugeVec,
    pub(crate) local_block_bytes: IntGauge,
    pub(crate) local_blocks: IntGauge,
    pub(crate) needed_blocks: IntGauge,
    pub(crate) unbuilt_blocks_dropped: IntCounter,
    pub(crate) wal: WalMetrics,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = || exponential_buckets(0.01, 2.0, 14);
        let sizes = || exponential_buckets(65_536.0, 2.0, 14);
        let back_pressure = Opts::new(
            name("back_pressure_seconds_total"),
            "Time pushes waited before they were accepted or refused, in seconds.",
        );
        Ok(Self {
            ready: gauge(registry, "ready", "Whether pushes and queries are served.")?,
            catch_up_duration_seconds: register(
                registry,
                Gauge::new(
                    name("catch_up_duration_seconds"),
                    "Time from start to ready, in seconds.",
                ),
            )?,
            traces_created: counters(
                registry,
                "traces_created_total",
                "Traces cut from the live traces into a block.",
                &["tenant"],
            )?,
            live_traces: gauges(
                registry,
                "live_traces",
                "Traces that still receive spans.",
                &["tenant"],
            )?,
            live_trace_bytes: gauges(
                registry,
                "live_trace_bytes",
                "Serialized bytes of traces that still receive spans.",
                &["tenant"],
            )?,
            bytes_received: counters(
                registry,
                "bytes_received_total",
                "Serialized bytes of accepted traces.",
                &["tenant", "data_type"],
            )?,
            blocks_cut: counters(
                registry,
                "blocks_cut_total",
                "Blocks closed for completion, by reason.",
                &["reason"],
            )?,
            blocks_cleared: counters(
                registry,
                "blocks_cleared_total",
                "Blocks removed from local disk, by type.",
                &["block_type"],
            )?,
            unflushed_blocks: gauge(
                registry,
                "unflushed_blocks",
                "Closed blocks that the object store does not have.",
            )?,
            complete_queue_length: gauge(
                registry,
                "complete_queue_length",
                "Blocks that wait for completion.",
            )?,
            blocks_completed: counter(
                registry,
                "blocks_completed_total",
                "Blocks completed on local disk.",
            )?,
            failed_completions: counter(
                registry,
                "failed_completions_total",
                "Attempts to complete a block that failed.",
            )?,
            completion_retries: counter(
                registry,
                "completion_retries_total",
                "Repeated attempts to complete a block.",
            )?,
            completion_failed_retries: counter(
                registry,
                "completion_failed_retries_total",
                "Repeated attempts to complete a block that failed again.",
            )?,
            completion_duration_seconds: histogram(
                registry,
                "completion_duration_seconds",
                "Time to complete a block, in seconds.",
                seconds()?,
            )?,
            completion_size_bytes: histogram(
                registry,
                "completion_size_bytes",
                "Size of completed blocks, in bytes.",
                sizes()?,
            )?,
            back_pressure_seconds: register(
                registry,
                prometheus::CounterVec::new(back_pressure, &["reason"]),
            )?,
            back_pressure_duration_seconds: histogram(
                registry,
                "back_pressure_duration_seconds",
                "Time one push waited, in seconds.",
                seconds()?,
            )?,
            local_blocks_flushed: counter(
                registry,
                "local_blocks_flushed_total",
                "Blocks written to the object store.",
            )?,
            local_failed_flushes: counter(
                registry,
                "local_failed_flushes_total",
                "Attempts to write a block to the object store that failed.",
            )?,
            local_flush_retries: counter(
                registry,
                "local_flush_retries_total",
                "Repeated attempts to write a block to the object store.",
            )?,
            local_flush_failed_retries: counter(
                registry,
                "local_flush_failed_retries_total",
                "Repeated attempts to write a block to the object store that failed again.",
            )?,
            local_flush_duration_seconds: histogram(
                registry,
                "local_flush_duration_seconds",
                "Time to write a block to the object store, in seconds.",
                seconds()?,
            )?,
            local_flush_size_bytes: histogram(
                registry,
                "local_flush_size_bytes",
                "Size of blocks written to the object store, in bytes.",
                sizes()?,
            )?,
            query_inspected_bytes: counters(
                registry,
                "query_inspected_bytes_total",
                "Bytes read to answer queries, by operation.",
                &["tenant", "op"],
            )?,
            lost_spans: counters(
                registry,
                "lost_spans_total",
                "Acknowledged spans that cannot be put into a block because what the disk gives back is damaged.",
                &["tenant"],
            )?,
            live_tables: gauges(
                registry,
                "live_tables",
                "Column tables of spans that are in no local block yet.",
                &["tenant"],
            )?,
            live_table_bytes: gauges(
                registry,
                "live_table_bytes",
                "Memory of those tables, in bytes.",
                &["tenant"],
            )?,
            live_table_spans: gauges(
                registry,
                "live_table_spans",
                "Spans in those tables.",
                &["tenant"],
            )?,
            pending_bytes: gauges(
                registry,
                "pending_bytes",
                "Serialized bytes of spans that wait to become columns.",
                &["tenant"],
            )?,
            local_block_bytes: gauge(
                registry,
                "local_block_bytes",
                "Size of complete blocks on local disk, in bytes.",
            )?,
            local_blocks: gauge(registry, "local_blocks", "Complete blocks on local disk.")?,
            needed_blocks: gauge(
                registry,
                "needed_blocks",
                "Complete blocks on local disk whose spans queries may find nowhere else.",
            )?,
            unbuilt_blocks_dropped: counter(
                registry,
                "unbuilt_blocks_dropped_total",
                "Blocks removed for want of room whose spans queries may have found nowhere else.",
            )?,
            wal: WalMetrics::new(registry)?,
        })
    }

    /// A push waited for room.
    pub(crate) fn pressed(&self, reason: &str, waited: std::time::Duration) {
        let waited = waited.as_secs_f64();
        self.back_pressure_seconds
            .with_label_values(&[reason])
            .inc_by(waited);
        self.back_pressure_duration_seconds.observe(waited);
    }

    /// A query read so many bytes.
    pub(crate) fn inspected(&self, tenant: &str, operation: &str, bytes: u64) {
        self.query_inspected_bytes
            .with_label_values(&[tenant, operation])
            .inc_by(bytes);
    }

    /// Removes what is kept per tenant, when the tenant has gone quiet.
    pub(crate) fn forget_tenant(&self, tenant: &str) {
        for gauges in [
            &self.live_traces,
            &self.live_trace_bytes,
            &self.live_tables,
            &self.live_table_bytes,
            &self.live_table_spans,
            &self.pending_bytes,
        ] {
            let _ = gauges.remove_label_values(&[tenant]);
        }
    }
}

/// What the write-ahead log counts.
#[derive(Debug, Clone)]
pub(crate) struct WalMetrics {
    pub(crate) queue_bytes: IntGauge,
    pub(crate) bytes: IntGauge,
    pub(crate) segments: IntGauge,
    pub(crate) records: IntCounter,
    pub(crate) bytes_written: IntCounter,
    pub(crate) sync_duration_seconds: Histogram,
    append_failures: IntCounterVec,
    corrupt_records: IntCounterVec,
    pub(crate) dropped_bytes: IntCounter,
}

impl WalMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            queue_bytes: gauge(
                registry,
                "wal_queue_bytes",
                "Bytes that wait to be written to the log.",
            )?,
            bytes: gauge(registry, "wal_bytes", "Size of the log on disk, in bytes.")?,
            segments: gauge(registry, "wal_segments", "Files of the log.")?,
            records: counter(registry, "wal_records_total", "Records written to the log.")?,
            bytes_written: counter(
                registry,
                "wal_written_bytes_total",
                "Bytes written to the log.",
            )?,
            sync_duration_seconds: histogram(
                registry,
                "wal_sync_duration_seconds",
                "Time of one sync of the log, in seconds.",
                exponential_buckets(0.0001, 2.0, 16)?,
            )?,
            append_failures: counters(
                registry,
                "wal_append_failures_total",
                "Records or groups of records that were not written, by reason.",
                &["reason"],
            )?,
            corrupt_records: counters(
                registry,
                "wal_corrupt_records_total",
                "Places in the log that were not read as written, by kind.",
                &["kind"],
            )?,
            dropped_bytes: counter(
                registry,
                "wal_dropped_bytes_total",
                "Bytes of the log that were stepped over at replay.",
            )?,
        })
    }

    pub(crate) fn append_failure(&self, error: &AppendError) {
        let reason = match error {
            AppendError::QueueFull { .. } => "queue_full",
            AppendError::TooLarge { .. } => "too_large",
            AppendError::DiskFull { .. } => "disk_full",
            AppendError::Write(_) => "write_failed",
            AppendError::Closed => "closed",
        };
        self.append_failures.with_label_values(&[reason]).inc();
    }

    pub(crate) fn damaged(&self, damage: &Damage) {
        let kind = match damage {
            Damage::Header => "segment_header",
            Damage::Tail { .. } => "torn_tail",
            Damage::Records { .. } => "record",
            Damage::Chunk { .. } => "chunk",
        };
        self.corrupt_records.with_label_values(&[kind]).inc();
        self.dropped_bytes.inc_by(damage.lost_bytes());
    }

    pub(crate) fn unreadable(&self, bytes: u64) {
        self.corrupt_records.with_label_values(&["segment"]).inc();
        self.dropped_bytes.inc_by(bytes);
    }
}
