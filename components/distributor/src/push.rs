//! One push from a receiver to the sink: the order in which it is judged.
//!
//! Decode, tenant, rate, ids, regroup, sink, and only then the answer. Counting follows Tempo: what
//! a tenant sent counts as ingress before its rate is judged, as received after.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tempo_model::{
    TraceBatch,
    tenant::{self, TenantError},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::Instant};

use crate::{
    config::Config,
    decompress::{DecompressError, Encoding},
    inflight::{InflightBudget, InflightPermit},
    limits::{Limits, TenantLimits},
    metrics::{DiscardReason, Metrics},
    otlp_json, rate_limit,
    refusal::{Refusal, RefusalKind},
    regroup::{self, Bounds, Fault, RegroupError, Truncations},
    sink::{PartialSuccess, TraceSink},
    span_log,
    tenants::{Tenant, Tenants},
    workspace::{Workspace, Workspaces},
};

/// A request that is estimated to decode to more bytes than this is prepared on a blocking thread,
/// so that it does not hold up its neighbours. A MiB is about 0.6 ms of work; the way to the other
/// thread and back costs 0.1 ms, so that for smaller ones it is not worth it.
const HEAVY_REQUEST_BYTES: usize = 1 << 20;

/// A push, as a receiver got it.
#[derive(Debug)]
pub struct PushRequest {
    /// The spans, possibly compressed.
    pub body: Bytes,
    /// How it is written.
    pub format: Format,
    /// How it is compressed.
    pub encoding: Encoding,
    /// Most bytes that it may take when decompressed.
    pub max_decompressed_bytes: usize,
    /// Whom the sender claims to be.
    pub org_id: OrgId,
    /// Whether the sender asked that no metrics be generated from these spans.
    pub skip_metrics_generation: bool,
    /// Through which receiver it came.
    pub source: &'static Source,
}

impl PushRequest {
    /// How much work it is to prepare: bytes to go through, roughly.
    fn estimated_bytes(&self) -> usize {
        let decompressed = match self.encoding {
            Encoding::Identity => self.body.len(),
            // Traces compress to a fifth or less, and decompression costs more than the walk.
            _ => self.body.len().saturating_mul(8),
        };
        match self.format {
            Format::Protobuf => decompressed,
            Format::Json | Format::Foreign(_) => decompressed.saturating_mul(4),
        }
    }
}

/// How a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OTLP protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
    /// What Jaeger and Zipkin write.
    Foreign(tempo_translate::Format),
}

/// The tenant header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrgId {
    /// None, or more than one.
    Absent,
    /// Exactly one, perhaps empty.
    Present(String),
}

impl OrgId {
    /// Reads it from the headers of a request (or the metadata of a call, which is the same).
    pub fn from_headers(headers: &http::HeaderMap) -> Self {
        let mut values = headers.get_all(tenant::ORG_ID_HEADER).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => {
                Self::Present(String::from_utf8_lossy(value.as_bytes()).into_owned())
            }
            _ => Self::Absent,
        }
    }
}

/// A kind of receiver, as metrics name it, and what is particular to it.
#[derive(Debug)]
pub struct Source {
    /// Label `receiver`.
    pub receiver: &'static str,
    /// Label `transport`.
    pub transport: &'static str,
    /// The refusal of a request that decompresses to more than so many bytes.
    pub too_large: fn(usize) -> Refusal,
}

/// Judges pushes and hands them to the sink. Shared by all receivers.
pub struct Distributor {
    config: Config,
    limits: Arc<dyn Limits>,
    sink: Arc<dyn TraceSink>,
    metrics: Metrics,
    tenants: Tenants,
    inflight: Arc<InflightBudget>,
    workspaces: Workspaces,
    /// Heavy requests prepared at once: no more than there are cores.
    heavy: Semaphore,
    truncation_log: OncePerSecond,
}

/// A push that belongs to a valid tenant.
struct Judged {
    tenant: Arc<Tenant>,
    limits: TenantLimits,
    spans: u64,
    outcome: Result<TraceBatch, Refusal>,
}

impl Distributor {
    pub(crate) fn new(
        config: Config,
        limits: Arc<dyn Limits>,
        sink: Arc<dyn TraceSink>,
        metrics: Metrics,
    ) -> Self {
        let inflight = InflightBudget::new(
            config.max_inflight_request_bytes,
            metrics.inflight_bytes.clone(),
        );
        Self {
            tenants: Tenants::new(config.max_tracked_tenants),
            config,
            limits,
            sink,
            metrics,
            inflight,
            workspaces: Workspaces::default(),
            heavy: Semaphore::new(available_parallelism().map_or(1, usize::from)),
            truncation_log: OncePerSecond::default(),
        }
    }

    /// The budget that receivers take the bytes from which they read.
    pub fn inflight(&self) -> &Arc<InflightBudget> {
        &self.inflight
    }

    /// Judges a push and hands it to the sink; `Ok` once the sink has it. `permit` holds the bytes
    /// of the body.
    pub async fn push(
        self: &Arc<Self>,
        request: PushRequest,
        permit: InflightPermit,
    ) -> Result<PartialSuccess, Refusal> {
        let started = Instant::now();
        let source = request.source;
        let (judged, permit) = self.judge(request, permit).await?;
        let Some(Judged {
            tenant,
            limits,
            spans,
            outcome,
        }) = judged
        else {
            return Ok(PartialSuccess::default());
        };
        let outcome = match outcome {
            Ok(batch) => self
                .sink
                .push(&tenant.name, batch)
                .await
                .map_err(|error| Refusal::from_sink(error, self.retry_after(&limits))),
            Err(refusal) => Err(refusal),
        };
        drop(permit);
        self.metrics.answered(source, outcome.is_ok(), spans);
        self.delay(&tenant.name, &limits, started).await;
        self.metrics
            .push_duration
            .observe(started.elapsed().as_secs_f64());
        outcome
    }

    /// Prepares a request here or, if that takes long, on a blocking thread.
    async fn judge(
        self: &Arc<Self>,
        request: PushRequest,
        permit: InflightPermit,
    ) -> Result<(Option<Judged>, InflightPermit), Refusal> {
        if request.estimated_bytes() <= HEAVY_REQUEST_BYTES {
            return self.prepare(request, permit);
        }
        let stopping = || Refusal::unavailable("the distributor is stopping; try again");
        let _turn = self.heavy.acquire().await.map_err(|_| stopping())?;
        let distributor = Arc::clone(self);
        spawn_blocking(move || distributor.prepare(request, permit))
            .await
            .map_err(|error| {
                if error.is_panic() {
                    tracing::error!(%error, "preparing a request panicked");
                }
                stopping()
            })?
    }

    /// Everything between the body and the sink. `None` is a request without spans, which is fine
    /// whoever sends it.
    fn prepare(
        &self,
        request: PushRequest,
        mut permit: InflightPermit,
    ) -> Result<(Option<Judged>, InflightPermit), Refusal> {
        self.workspaces.with(|workspace| {
            let Workspace {
                decompressor,
                decompressed,
                transcoded,
                scratch,
            } = workspace;
            let mut otlp: &[u8] = &request.body;
            if request.encoding != Encoding::Identity {
                decompressor
                    .decompress(
                        request.encoding,
                        otlp,
                        request.max_decompressed_bytes,
                        &mut permit,
                        decompressed,
                    )
                    .map_err(|error| decompress_refusal(error, request.source))?;
                otlp = decompressed;
            }
            match request.format {
                Format::Protobuf => {}
                Format::Json => {
                    otlp_json::to_protobuf(otlp, transcoded)
                        .map_err(|error| Refusal::invalid(format!("invalid OTLP/JSON: {error}")))?;
                    permit.grow(transcoded.len())?;
                    otlp = transcoded;
                }
                Format::Foreign(format) => {
                    tempo_translate::to_otlp(format, otlp, transcoded)
                        .map_err(|malformed| Refusal::invalid(malformed.to_string()))?;
                    permit.grow(transcoded.len())?;
                    otlp = transcoded;
                }
            }
            let spans = regroup::count_spans(otlp)
                .map_err(|malformed| Refusal::invalid(malformed.to_string()))?;
            if spans == 0 {
                return Ok((None, permit));
            }
            let tenant = self.tenant(&request.org_id).inspect_err(|_| {
                self.metrics.answered(request.source, false, spans);
            })?;
            let limits = self.limits.limits(&tenant.name);
            let outcome = self.admit(otlp, &tenant, &limits, spans, scratch);
            let outcome = outcome.and_then(|mut batch| {
                batch.skip_metrics_generation = request.skip_metrics_generation;
                permit.grow(batch.byte_count() as usize)?;
                Ok(batch)
            });
            // The body and what was made of it go with this function.
            permit.shrink_to(
                outcome
                    .as_ref()
                    .map_or(0, |batch| batch.byte_count() as usize),
            );
            let judged = Judged {
                tenant,
                limits,
                spans,
                outcome,
            };
            Ok((Some(judged), permit))
        })
    }

    fn tenant(&self, org_id: &OrgId) -> Result<Arc<Tenant>, Refusal> {
        let get = |name: &str| Ok(self.tenants.get(name, &self.metrics, Instant::now()));
        if !self.config.multitenancy_enabled {
            return get(tenant::SINGLE_TENANT);
        }
        let parsed = match org_id {
            OrgId::Absent => Err(TenantError::Missing),
            OrgId::Present(header) => tenant::parse_single(header),
        };
        match parsed {
            Ok(name) => get(&name),
            // Retryable, unlike a header that is there and wrong: proxies in front may be at fault.
            Err(error @ TenantError::Missing) => Err(Refusal::unavailable(error.to_string())),
            Err(error) => Err(Refusal::invalid(error.to_string())),
        }
    }

    /// Holds a request against the tenant's limits and regroups it.
    fn admit(
        &self,
        otlp: &[u8],
        tenant: &Tenant,
        limits: &TenantLimits,
        spans: u64,
        scratch: &mut regroup::Scratch,
    ) -> Result<TraceBatch, Refusal> {
        let bytes = otlp.len() as u64;
        tenant.metrics.ingress_bytes.inc_by(bytes);
        if !tenant.take(bytes, limits, Instant::now()) {
            self.metrics
                .discarded(&tenant.name, DiscardReason::RateLimited, spans);
            return Err(Refusal {
                kind: RefusalKind::ResourceExhausted,
                message: rate_limit::refusal_text(bytes, limits, &tenant.name),
                retry_after: self.retry_after(limits),
            });
        }
        let bounds = Bounds {
            max_attribute_bytes: self.max_attribute_bytes(limits),
            max_regrouped_bytes: self.config.max_regrouped_bytes,
        };
        let regrouped = regroup::regroup(otlp, &bounds, scratch);
        let id_fault = match &regrouped {
            Err(RegroupError::Malformed(malformed)) => match malformed.fault {
                Fault::TraceId { .. } => Some(DiscardReason::InvalidTraceId),
                Fault::SpanId { .. } => Some(DiscardReason::InvalidSpanId),
                _ => return Err(Refusal::invalid(malformed.to_string())),
            },
            _ => None,
        };
        tenant.metrics.bytes_received.inc_by(bytes);
        tenant.metrics.spans_received.inc_by(spans);
        let config = &self.config;
        span_log::log_spans(otlp, &tenant.name, "received", config.log_received_spans);
        span_log::count_spans(
            otlp,
            &tenant.name,
            &self.metrics,
            config.metric_received_spans,
        );
        if let Some(reason) = id_fault {
            self.metrics.discarded(&tenant.name, reason, spans);
            span_log::log_spans(otlp, &tenant.name, "discarded", config.log_discarded_spans);
        }
        let regrouped = regrouped.map_err(|error| Refusal::invalid(error.to_string()))?;
        self.metrics.truncated(&tenant.name, &regrouped.truncations);
        self.log_truncation(&tenant.name, &regrouped.truncations);
        self.metrics
            .traces_per_batch
            .observe(regrouped.traces.len() as f64);
        observe_distances(tenant, scratch.end_times());
        Ok(regrouped.into_batch(false))
    }

    fn max_attribute_bytes(&self, limits: &TenantLimits) -> usize {
        // A tenant may change the limit but not turn it off.
        [limits.max_attribute_bytes, self.config.max_attribute_bytes]
            .into_iter()
            .find(|&limit| limit > 0)
            .unwrap_or(usize::MAX)
    }

    fn retry_after(&self, limits: &TenantLimits) -> Option<Duration> {
        Some(self.config.retry_after_on_resource_exhausted)
            .filter(|after| limits.retry_info_enabled && !after.is_zero())
    }

    fn log_truncation(&self, tenant: &str, truncations: &Truncations) {
        if let Some(example) = &truncations.example
            && self.truncation_log.is_due()
        {
            tracing::warn!(
                tenant,
                example_scope = example.scope.name(),
                example_name = example.name,
                example_field = example.field,
                example_orig_size = example.original_bytes,
                "attributes truncated"
            );
        }
    }

    /// Sleeps so that the push takes about as long as it is meant to.
    async fn delay(&self, tenant: &str, limits: &TenantLimits, started: Instant) {
        let target = limits
            .artificial_delay
            .unwrap_or(self.config.artificial_delay);
        let left = target.saturating_sub(started.elapsed());
        if !left.is_zero() {
            let left = left.mul_f64(rand::random_range(0.9..=1.1));
            tokio::time::sleep(left).await;
            self.metrics.added_latency(tenant, left.as_secs_f64());
        }
    }
}

fn decompress_refusal(error: DecompressError, source: &Source) -> Refusal {
    match error {
        DecompressError::TooLarge { max_bytes } => (source.too_large)(max_bytes),
        DecompressError::Corrupt { .. } => Refusal::invalid(error.to_string()),
        DecompressError::Overloaded(overloaded) => overloaded.into(),
    }
}

/// Records how far from now spans end. A span without an end is nowhere.
fn observe_distances(tenant: &Tenant, end_times: &[u64]) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64);
    let in_future = tenant.metrics.in_future.local();
    let in_past = tenant.metrics.in_past.local();
    for &end in end_times.iter().filter(|&&end| end > 0) {
        let (histogram, nanos) = if end > now {
            (&in_future, end - now)
        } else {
            (&in_past, now - end)
        };
        histogram.observe((nanos / 1_000_000_000) as f64);
    }
    in_future.flush();
    in_past.flush();
}

/// Lets something happen at most once per second.
#[derive(Debug, Default)]
pub(crate) struct OncePerSecond {
    last_unix_second: AtomicU64,
}

impl OncePerSecond {
    pub(crate) fn is_due(&self) -> bool {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        self.last_unix_second.swap(now, Ordering::Relaxed) != now
    }
}
