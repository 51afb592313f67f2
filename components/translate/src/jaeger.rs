//! Jaeger's batches as OTLP.

mod spans;
mod thrift_model;

use prost::Message as _;
use tempo_proto::{
    jaeger::api_v2::{Batch, PostSpansRequest},
    opentelemetry::proto::trace::v1::ResourceSpans,
};

use crate::{
    Malformed,
    thrift::{Protocol, Reader},
};

/// The one call of Jaeger's agent that carries Jaeger's spans.
const EMIT_BATCH: &str = "emitBatch";

pub(crate) fn from_proto(input: &[u8]) -> Result<Vec<ResourceSpans>, Malformed> {
    let request = PostSpansRequest::decode(input)
        .map_err(|error| Malformed::new(format!("not a PostSpansRequest: {error}")))?;
    spans::translate(request.batch.unwrap_or_default())
}

pub(crate) fn from_thrift(input: &[u8]) -> Result<Vec<ResourceSpans>, Malformed> {
    let mut reader = Reader::new(Protocol::Binary, input);
    spans::translate(thrift_model::batch(&mut reader)?)
}

pub(crate) fn from_agent(
    input: &[u8],
    protocol: Protocol,
) -> Result<Vec<ResourceSpans>, Malformed> {
    let mut reader = Reader::new(protocol, input);
    let name = reader.call()?;
    if name != EMIT_BATCH {
        return Err(reader.error(format_args!("unknown call '{name}', known is {EMIT_BATCH}")));
    }
    let mut batch = Batch::default();
    reader.fields(EMIT_BATCH, &[1], |reader, id, kind| {
        match id {
            1 => batch = thrift_model::batch_field(reader, kind)?,
            _ => reader.skip(kind)?,
        }
        Ok(())
    })?;
    spans::translate(batch)
}
