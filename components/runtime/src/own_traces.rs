//! The process's own traces, sent over OTLP/gRPC.
//!
//! On only when the standard variables ask for it: `OTEL_TRACES_EXPORTER` (`otlp`, or `none`),
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`. `OTEL_SERVICE_NAME`
//! overrides the service name; the sampler is `OTEL_TRACES_SAMPLER`'s.

use std::env;

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};

/// The running exporter. Flush it with [`OwnTraces::shutdown`] before the process ends.
#[derive(Debug)]
pub struct OwnTraces {
    provider: SdkTracerProvider,
}

/// Why own traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum OwnTracesError {
    /// `OTEL_TRACES_EXPORTER` names something else than `otlp` or `none`.
    #[error("OTEL_TRACES_EXPORTER={0} is not supported: use otlp or none")]
    UnknownExporter(String),
    /// The exporter refused its settings.
    #[error("cannot export own traces, check OTEL_EXPORTER_OTLP_*: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl OwnTraces {
    /// Starts the exporter if the environment asks for it. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the environment asks for something that is not supported.
    pub fn from_env(target: &str, version: &str) -> Result<Option<Self>, OwnTracesError> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let exporter = set("OTEL_TRACES_EXPORTER");
        match exporter.as_deref() {
            Some("none") => return Ok(None),
            Some("otlp") => {}
            Some(other) => return Err(OwnTracesError::UnknownExporter(other.to_owned())),
            None if set("OTEL_EXPORTER_OTLP_ENDPOINT").is_none()
                && set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").is_none() =>
            {
                return Ok(None);
            }
            None => {}
        }
        let service = set("OTEL_SERVICE_NAME").unwrap_or_else(|| format!("tempo-{target}"));
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attribute(KeyValue::new("service.version", version.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(SpanExporter::builder().with_tonic().build()?)
            .with_resource(resource)
            .build();
        Ok(Some(Self { provider }))
    }

    /// The tracer that the logging layer feeds.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("tempo")
    }

    /// Sends what is buffered and stops.
    pub fn shutdown(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "own traces not flushed");
        }
    }
}
