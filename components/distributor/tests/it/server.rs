//! A distributor on real sockets, the sinks behind it, and a look at its metrics.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use prometheus::{Registry, proto::MetricFamily};
use tempo_distributor::{
    Config, Deps, Distributor, GrpcReceiver, Handle, HttpReceiver, Limits, PartialSuccess, Service,
    SinkError, TenantLimits, TraceSink, build, discarded_spans_counter, place,
};
use tempo_model::TraceBatch;
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Keeps what it gets and answers as it is told.
#[derive(Default)]
pub(crate) struct TestSink {
    taken: Mutex<Vec<(String, TraceBatch)>>,
    pub(crate) answer: Mutex<Option<SinkError>>,
    /// What it leaves out of each batch that it takes.
    pub(crate) success: Mutex<PartialSuccess>,
    /// When set, every push waits for a permit; [`Gate::entered`] tells that it does.
    pub(crate) gate: Option<Gate>,
}

pub(crate) struct Gate {
    pub(crate) entered: Semaphore,
    pub(crate) opened: Semaphore,
}

#[async_trait::async_trait]
impl TraceSink for TestSink {
    async fn push(&self, tenant: &str, batch: TraceBatch) -> Result<PartialSuccess, SinkError> {
        if let Some(gate) = &self.gate {
            gate.entered.add_permits(1);
            gate.opened.acquire().await.unwrap().forget();
        }
        if let Some(error) = self.answer.lock().unwrap().clone() {
            return Err(error);
        }
        self.taken.lock().unwrap().push((tenant.to_owned(), batch));
        Ok(self.success.lock().unwrap().clone())
    }
}

impl TestSink {
    pub(crate) fn behind_a_gate() -> Self {
        Self {
            gate: Some(Gate {
                entered: Semaphore::new(0),
                opened: Semaphore::new(0),
            }),
            ..Self::default()
        }
    }

    /// Everything taken so far: tenant and batch.
    pub(crate) fn taken(&self) -> Vec<(String, TraceBatch)> {
        self.taken.lock().unwrap().clone()
    }

    pub(crate) fn spans(&self) -> u64 {
        let taken = self.taken();
        taken.iter().map(|(_, batch)| batch.span_count()).sum()
    }
}

/// The same limits for everybody, changeable.
pub(crate) struct TestLimits(pub(crate) Mutex<TenantLimits>);

impl Limits for TestLimits {
    fn limits(&self, _tenant: &str) -> TenantLimits {
        *self.0.lock().unwrap()
    }
}

/// Both receivers on ports of the system's choice.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.receivers.otlp_grpc = Some(GrpcReceiver {
        endpoint: "localhost:0".to_owned(),
        ..GrpcReceiver::default()
    });
    config.receivers.otlp_http = Some(HttpReceiver {
        endpoint: "localhost:0".to_owned(),
        ..HttpReceiver::default()
    });
    config
}

/// A distributor and all that a test wants to look at.
pub(crate) struct Fixture {
    pub(crate) sink: Arc<TestSink>,
    pub(crate) limits: Arc<TestLimits>,
    pub(crate) registry: Registry,
    pub(crate) handle: Handle,
    service: Option<Service>,
}

impl Fixture {
    pub(crate) fn new(config: Config, sink: TestSink) -> Self {
        let sink = Arc::new(sink);
        let limits = Arc::new(TestLimits(Mutex::new(TenantLimits::default())));
        let registry = Registry::new();
        let discarded_spans = discarded_spans_counter().unwrap();
        registry
            .register(Box::new(discarded_spans.clone()))
            .unwrap();
        let (handle, service) = build(
            config,
            Deps {
                sink: Arc::clone(&sink) as _,
                limits: Arc::clone(&limits) as _,
                registry: &registry,
                discarded_spans,
            },
        )
        .unwrap();
        Self {
            sink,
            limits,
            registry,
            handle,
            service: Some(service),
        }
    }

    pub(crate) fn set_limits(&self, change: impl FnOnce(&mut TenantLimits)) {
        change(&mut self.limits.0.lock().unwrap());
    }

    pub(crate) fn distributor(&self) -> &Arc<Distributor> {
        &self.handle.distributor
    }

    /// Serves until the fixture's token is cancelled.
    pub(crate) fn serve(&mut self) -> Running {
        let shutdown = CancellationToken::new();
        let service = self.service.take().expect("served once");
        Running {
            task: tokio::spawn(service.run(shutdown.clone())),
            shutdown,
        }
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.handle.addrs[place::OTLP_HTTP]
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.handle.addrs[place::OTLP_GRPC]
    }

    /// The value of a counter or gauge, or how often a histogram was observed; 0 if it is not
    /// there.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| value(family, labels))
    }
}

fn value(family: &MetricFamily, labels: &[(&str, &str)]) -> f64 {
    let metrics = family.get_metric().iter().filter(|metric| {
        labels.iter().all(|(name, value)| {
            metric
                .get_label()
                .iter()
                .any(|label| label.name() == *name && label.value() == *value)
        })
    });
    metrics
        .map(|metric| {
            metric.get_counter().get_value()
                + metric.get_gauge().get_value()
                + metric.get_histogram().get_sample_count() as f64
        })
        .sum()
}

/// A distributor that serves.
pub(crate) struct Running {
    task: JoinHandle<Result<(), tempo_distributor::Error>>,
    pub(crate) shutdown: CancellationToken,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}
