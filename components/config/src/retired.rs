//! Keys and targets of Tempo 2 that Tempo 3 has given up, and the way on.

/// Why the key is no more, and what to do.
pub(crate) fn reason(path: &str) -> Option<&'static str> {
    Some(match path {
        "ingester" | "ingester_client" => {
            "ingesters do not exist any more; recent traces are held by live-stores: remove this block and see `live_store`"
        }
        "compactor" => {
            "compactors do not exist any more; move `compaction` to `backend_worker.compaction` and `backend_scheduler.provider.compaction.compaction`"
        }
        "metrics_generator.processor.local_blocks" | "metrics_generator.traces_storage" => {
            "local blocks of the metrics-generator do not exist any more; remove this block, recent time series are computed by live-stores"
        }
        "metrics_generator.query_timeout" => {
            "metrics-generators do not answer queries any more; remove this key"
        }
        "querier.search.external_endpoints" | "querier.search.prefer_self" => {
            "external search endpoints do not exist any more; remove this key"
        }
        _ => return None,
    })
}

/// Why the target is no more, and what to do.
pub(crate) fn target(name: &str) -> Option<&'static str> {
    Some(match name {
        "scalable-single-binary" => {
            "several processes with every component are not supported any more; use \"all\" in one process, or one target for each component with Kafka between them"
        }
        "ingester" => "ingesters do not exist any more; use \"live-store\" and \"block-builder\"",
        "compactor" => {
            "compactors do not exist any more; use \"backend-scheduler\" (one) and \"backend-worker\" (any number)"
        }
        _ => return None,
    })
}
