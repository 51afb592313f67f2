//! What is refused, and what the user reads.

use tempo_config::{CommandLine, Config, Error};

use crate::{load, loaded};

#[track_caller]
fn refused(text: &str, messages: &[&str]) {
    match load(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => {
            let text = error.to_string();
            assert_eq!(text.lines().collect::<Vec<_>>(), messages);
        }
    }
}

#[test]
fn unknown_keys() {
    refused(
        "server:\n  http_listen_prot: 3200\n",
        &[
            "line 2, column 3: server.http_listen_prot: unknown key; did you mean \"http_listen_port\"?",
        ],
    );
    refused(
        "storge: {}\n",
        &["line 1, column 1: storge: unknown key; did you mean \"storage\"?"],
    );
    refused(
        "storage:\n  trace:\n    block:\n      parquet_dedicated_columns:\n        - scope: span\n          nmae: x\n",
        &[
            "line 6, column 11: storage.trace.block.parquet_dedicated_columns[0].nmae: unknown key; did you mean \"name\"?",
        ],
    );
    refused(
        "metrics_generator: {processor: {span_metrics: {filter_policies: [{include: {atributes: []}}]}}}",
        &[
            "line 1, column 77: metrics_generator.processor.span_metrics.filter_policies[0].include.atributes: unknown key; did you mean \"attributes\"?",
        ],
    );
    refused(
        "memory: {limit: 1}",
        &[
            "line 1, column 10: memory.limit: unknown key; known here: automemlimit_enabled, automemlimit_ratio",
        ],
    );
    refused(
        "distributor: {receivers: {otlp/2: {}}}",
        &["line 1, column 27: distributor.receivers.otlp/2: unknown key; did you mean \"otlp\"?"],
    );
}

#[test]
fn retired_keys() {
    refused(
        "ingester:\n  max_block_duration: 5m\ncompactor: {}\n",
        &[
            "line 1, column 1: ingester: ingesters do not exist any more; recent traces are held by live-stores: remove this block and see `live_store`",
            "line 3, column 1: compactor: compactors do not exist any more; move `compaction` to `backend_worker.compaction` and `backend_scheduler.provider.compaction.compaction`",
        ],
    );
}

#[test]
fn wrong_types() {
    refused(
        "server: 3200\n",
        &["line 1, column 9: server: expected a map of settings, found \"3200\""],
    );
    refused(
        "server:\n  - http_listen_port: 1\n",
        &["line 2, column 3: server: expected a map of settings, found a list"],
    );
    refused(
        "live_store:\n  ring:\n    instance_interface_names: eth0\n",
        &[
            "line 3, column 31: live_store.ring.instance_interface_names: expected a list of text, found \"eth0\"",
        ],
    );
    refused(
        "storage: {trace: {s3: {tags: [a]}}}\n",
        &["line 1, column 30: storage.trace.s3.tags: expected a map of text, found a list"],
    );
    refused(
        "storage: {trace: {s3: {secret_key: {a: b}}}}\n",
        &["line 1, column 36: storage.trace.s3.secret_key: expected text, found a map"],
    );
    refused(
        "storage: {trace: {backend: s4}}",
        &[
            "line 1, column 28: storage.trace.backend: expected one of \"\", s3, gcs, azure, local, found \"s4\"; did you mean \"s3\"?",
        ],
    );
    refused(
        "overrides:\n  defaults:\n    cost_attribution:\n      dimensions:\n        a: [b]\n",
        &[
            "line 5, column 12: overrides.defaults.cost_attribution.dimensions.a: expected text, found a list",
        ],
    );
}

#[test]
fn all_at_once() {
    refused(
        "server:\n  http_listen_port: x\n  log_level: loud\nquerier:\n  search:\n    query_timout: 5s\n",
        &[
            "line 2, column 21: server.http_listen_port: expected a whole number, found \"x\"",
            "line 3, column 14: server.log_level: expected one of debug, info, warn, error, found \"loud\"",
            "line 6, column 5: querier.search.query_timout: unknown key; did you mean \"query_timeout\"?",
        ],
    );
}

#[test]
fn broken_yaml() {
    refused(
        "server:\n  log_level: info\n  log_level: warn\n",
        &["line 3, column 3: key \"log_level\" is already set in line 2"],
    );
    refused(
        "target: all\n---\ntarget: querier\n",
        &["line 2, column 1: a second document (`---`); the configuration is one"],
    );
    for text in [
        "server: {",
        "a: b: c",
        "server:\n\tlog_level: info",
        "\"",
        "- a\nb",
        "? [a]\n: b",
    ] {
        assert!(matches!(load(text), Err(Error::Issues(_))), "{text}");
    }
    refused("a: &a [*a]\n", &["line 1, column 8: an alias of itself"]);
}

#[test]
fn targets() {
    for name in tempo_config::Target::names() {
        assert_eq!(loaded(&format!("target: {name}")).target.name(), name);
    }
    for (name, message) in [
        (
            "scalable-single-binary",
            "target \"scalable-single-binary\" was removed in Tempo 3: several processes with every component are not supported any more; use \"all\" in one process, or one target for each component with Kafka between them",
        ),
        (
            "ingester",
            "target \"ingester\" was removed in Tempo 3: ingesters do not exist any more; use \"live-store\" and \"block-builder\"",
        ),
        (
            "compactor",
            "target \"compactor\" was removed in Tempo 3: compactors do not exist any more; use \"backend-scheduler\" (one) and \"backend-worker\" (any number)",
        ),
        (
            "querrier",
            "unrecognised module name: querrier; did you mean \"querier\"?",
        ),
        (
            "database",
            "unrecognised module name: database; known are all, distributor, live-store, block-builder, metrics-generator, metrics-generator-no-local-blocks, querier, query-frontend, backend-scheduler, backend-worker, overrides-api",
        ),
    ] {
        refused(
            &format!("target: {name}"),
            &[&format!("line 1, column 9: target: {message}")],
        );
        let flags = CommandLine::parse([format!("-target={name}")]).unwrap();
        let error = Config::load(None, &flags, &|_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("flag -target: target: {message}")
        );
    }
}

#[test]
fn values_that_do_not_fit_together() {
    for (text, message) in [
        (
            "query_frontend: {trace_by_id: {query_shards: 1}}",
            "query_frontend.trace_by_id.query_shards: expected 2 to 100000, found 1",
        ),
        (
            "query_frontend: {search: {concurrent_jobs: 0}}",
            "query_frontend.search.concurrent_jobs: must be greater than 0",
        ),
        (
            "query_frontend: {query_end_cutoff: 20m}",
            "query_frontend.query_end_cutoff: must not be longer than query_frontend.search.query_backend_after",
        ),
        (
            "storage: {trace: {block: {parquet_dedicated_columns: [{name: a}, {name: a}]}}}",
            "storage.trace.block.parquet_dedicated_columns: \"a\" is there twice in scope span",
        ),
        (
            "cache: {caches: [{roles: [bloom], redis: {}, memcached: {}}]}",
            "cache.caches[0]: set either memcached or redis",
        ),
        (
            "cache: {caches: [{roles: [bloom], redis: {}}, {roles: [bloom], redis: {}}]}",
            "cache.caches[1].roles: bloom is held by an earlier cache",
        ),
    ] {
        assert_eq!(
            load(text).unwrap_err(),
            Error::Invalid(vec![message.to_owned()]),
            "{text}"
        );
    }
}

#[test]
fn warnings() {
    for (text, message) in [
        (
            "live_store: {complete_block_timeout: 1m}",
            "live_store.complete_block_timeout < storage.trace.blocklist_poll",
        ),
        (
            "backend_worker: {compaction: {block_retention: 1m}}",
            "backend_worker.compaction.block_retention < storage.trace.blocklist_poll",
        ),
        (
            "backend_worker: {compaction: {retention_concurrency: 0}}",
            "backend_worker.compaction.retention_concurrency is 0",
        ),
        (
            "storage: {trace: {blocklist_poll_concurrency: 0}}",
            "storage.trace.blocklist_poll_concurrency is 0",
        ),
        (
            "distributor: {log_received_spans: {enabled: true}}",
            "distributor.log_received_spans is enabled",
        ),
        (
            "distributor: {log_discarded_spans: {enabled: true}}",
            "distributor.log_discarded_spans is enabled",
        ),
        (
            "target: querier\nstorage: {trace: {backend: local}}",
            "storage.trace.backend is local, but target is not all",
        ),
        (
            "query_frontend: {mcp_server: {enabled: true}}",
            "query_frontend.mcp_server is enabled",
        ),
        (
            "storage: {trace: {backend: s3, s3: {bucket: a}}}\noverrides: {user_configurable_overrides: {client: {backend: s3, s3: {bucket: a}}}}",
            "overrides.user_configurable_overrides.client names the place of the traces",
        ),
        (
            "storage: {trace: {backend: s3, s3: {native_aws_auth_enabled: true}}}",
            "storage.trace.s3.native_aws_auth_enabled is deprecated",
        ),
        (
            "storage: {trace: {cache: redis}}",
            "storage.trace.cache is deprecated",
        ),
        (
            "query_frontend: {trace_by_id: {concurrent_shards: 60}}",
            "query_frontend.trace_by_id.concurrent_shards > query_shards",
        ),
        (
            "backend_scheduler: {work: {prune_age: 10m}}",
            "backend_scheduler.work.prune_age <= 2 * storage.trace.blocklist_poll",
        ),
        (
            "block_builder: {assigned_partitions: {a: [1]}, partitions_per_instance: 2}",
            "block_builder.assigned_partitions and partitions_per_instance are both set",
        ),
        (
            "query_frontend: {skip_ast_transformations: [all, or_to_on]}",
            "query_frontend.skip_ast_transformations names \"or_to_on\", which does not exist",
        ),
        (
            "query_frontend: {rf1_after: 2024-01-01T00:00:00Z}",
            "query_frontend.rf1_after is deprecated",
        ),
    ] {
        let messages: Vec<String> = loaded(text)
            .warnings()
            .into_iter()
            .map(|warning| warning.message)
            .collect();
        assert_eq!(messages, [message], "{text}");
    }
    let columns: Vec<String> = (0..21).map(|n| format!("{{name: a{n}}}")).collect();
    let text = format!(
        "storage: {{trace: {{block: {{parquet_dedicated_columns: [{}]}}}}}}",
        columns.join(", ")
    );
    assert!(
        loaded(&text).warnings()[0]
            .message
            .contains("21 columns of type string in scope span")
    );
    assert_eq!(loaded("").warnings(), []);
}

#[test]
fn variables_only_on_request() {
    let text = "http_api_prefix: ${PREFIX:/tempo}\n";
    assert_eq!(loaded(text).http_api_prefix, "${PREFIX:/tempo}");
    let flags = CommandLine::parse(["-config.expand-env"]).unwrap();
    let config = Config::load(Some(text), &flags, &|_| None).unwrap();
    assert_eq!(config.http_api_prefix, "/tempo");
    let config = Config::load(Some(text), &flags, &|_| Some("/traces".to_owned())).unwrap();
    assert_eq!(config.http_api_prefix, "/traces");
    let error = Config::load(Some("a: 1\nb: ${"), &flags, &|_| None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 2, column 4: `${` without the name of a variable"
    );
}
