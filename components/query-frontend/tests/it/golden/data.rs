//! The recorded cases and what was sent for them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use prost::Message as _;
use serde_json::Value;
use tempo_model::TraceId;
use tempo_proto::{
    opentelemetry::proto::trace::v1::{ResourceSpans, ScopeSpans},
    tempopb::Trace,
};

fn golden_dir() -> PathBuf {
    let dir = std::env::var_os("TEMPO_GOLDEN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"),
        PathBuf::from,
    );
    assert!(
        dir.join("cases.json").is_file(),
        "no golden data in {}: set TEMPO_GOLDEN_DIR",
        dir.display()
    );
    dir
}

/// What was recorded.
pub(super) struct Golden {
    pub(super) dir: PathBuf,
    /// Unix seconds.
    pub(super) t0: i64,
    pub(super) cases: Vec<Value>,
}

impl Golden {
    pub(super) fn load() -> Self {
        let dir = golden_dir();
        let text = std::fs::read(dir.join("cases.json")).unwrap();
        let mut cases: Value = serde_json::from_slice(&text).unwrap();
        let Value::Array(list) = cases["cases"].take() else {
            panic!("cases.json holds no list of cases");
        };
        Self {
            dir,
            t0: cases["t0"].as_i64().unwrap(),
            cases: list,
        }
    }

    /// The traces that were sent: the parts of each, one per request.
    pub(super) fn input(&self) -> BTreeMap<TraceId, Vec<Vec<u8>>> {
        let mut traces: BTreeMap<TraceId, Vec<Vec<u8>>> = BTreeMap::new();
        for number in 0..8 {
            let path = self.dir.join(format!("input/{number:02}.pb"));
            // A request is the same message as a trace, but with spans of many.
            let request = Trace::decode(&*std::fs::read(path).unwrap()).unwrap();
            let mut of_request: BTreeMap<TraceId, Trace> = BTreeMap::new();
            for batch in request.resource_spans {
                for scope in &batch.scope_spans {
                    let mut by_trace: BTreeMap<TraceId, Vec<_>> = BTreeMap::new();
                    for span in &scope.spans {
                        let id = TraceId::from_padded(&span.trace_id);
                        by_trace.entry(id).or_default().push(span.clone());
                    }
                    for (id, spans) in by_trace {
                        let scope_spans = vec![ScopeSpans {
                            spans,
                            ..scope.clone()
                        }];
                        let trace = of_request.entry(id).or_default();
                        trace.resource_spans.push(ResourceSpans {
                            scope_spans,
                            ..batch.clone()
                        });
                    }
                }
            }
            for (id, trace) in of_request {
                traces.entry(id).or_default().push(trace.encode_to_vec());
            }
        }
        traces
    }
}
