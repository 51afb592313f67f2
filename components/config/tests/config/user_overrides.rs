//! The document of overrides that tenants set themselves.

use tempo_config::blocks::user_overrides::UserOverrides;

#[test]
fn every_key_is_read_and_written_as_tempo_does() {
    // In Tempo's order, and with its spelling of durations.
    let all = r#"{"forwarders":["dev"],"cost_attribution":{"dimensions":{"resource.team":"team"}},"metrics_generator":{"processors":["service-graphs"],"disable_collection":false,"collection_interval":"30s","trace_id_label_name":"my_trace_id","ingestion_time_range_slack":"1m30s","generate_native_histograms":"native","native_histogram_max_bucket_number":101,"native_histogram_bucket_factor":1.2,"native_histogram_min_reset_duration":"10m0s","span_name_sanitization":"enabled","processor":{"service_graphs":{"dimensions":[],"enable_client_server_prefix":true,"enable_messaging_system_latency_histogram":true,"enable_virtual_node_label":false,"peer_attributes":["db.name"],"filter_policies":[],"histogram_buckets":[0.1,0.5],"span_multiplier_key":"k","enable_tracestate_span_multiplier":true},"span_metrics":{"dimensions":["a \"b\" \\ \u0007 ü"],"intrinsic_dimensions":{"service":true},"dimension_mappings":[{"name":"foo","source_labels":["bar","bar2"],"join":"/"}],"enable_target_info":true,"filter_policies":[{"include":{"match_type":"strict","attributes":[{"key":"span.a","value":"5"},{"key":"span.b","value":5},{"key":"span.c","value":true}]}}],"histogram_buckets":[1,2],"target_info_excluded_dimensions":["x"],"enable_instance_label":false,"span_multiplier_key":"","enable_tracestate_span_multiplier":false},"host_info":{"host_identifiers":["host.id"],"metric_name":"m"}}}}"#;
    let read = UserOverrides::from_json(all).unwrap();
    assert_eq!(read.to_json(), all);
    let (stored, left_out) = UserOverrides::from_stored_json(all).unwrap();
    assert_eq!((stored, left_out), (read.clone(), vec![]));
    // Another reader agrees that it is JSON, and YAML.
    let json: serde_json::Value = serde_json::from_str(&read.to_json()).unwrap();
    let yaml: serde_json::Value = serde_yaml::from_str(&read.to_yaml()).unwrap();
    assert_eq!(json, yaml);
}

#[test]
fn what_is_not_set_is_not_written() {
    let empty = r#"{"cost_attribution":{},"metrics_generator":{"processor":{"service_graphs":{},"span_metrics":{},"host_info":{}}}}"#;
    for nothing in [
        "{}",
        r#"{"forwarders":null,"metrics_generator":{}}"#,
        "null",
    ] {
        let read = UserOverrides::from_json(nothing).unwrap();
        assert_eq!(read, UserOverrides::default());
        assert_eq!(read.to_json(), empty);
    }
    let nanos = r#"{"metrics_generator":{"collection_interval":15000000000}}"#;
    let read = UserOverrides::from_json(nanos).unwrap();
    assert!(read.to_json().contains(r#""collection_interval":"15s""#));
}

#[test]
fn what_is_unknown_or_wrong_is_named() {
    let refused = |json: &str| UserOverrides::from_json(json).unwrap_err().to_string();
    for (json, message) in [
        (
            r#"{"metrics_generator":{"procesors":[]}}"#,
            "metrics_generator.procesors: unknown key; did you mean \"processors\"?",
        ),
        // Not for tenants to set.
        (
            r#"{"ingestion":{"rate_limit_bytes":1}}"#,
            "ingestion: unknown key; known here: forwarders, cost_attribution, metrics_generator",
        ),
        (
            r#"{"metrics_generator":{"collection_interval":"soon"}}"#,
            "metrics_generator.collection_interval: expected a duration such as 30s: time: invalid duration \"soon\"",
        ),
        (
            r#"{"metrics_generator":{"disable_collection":"true"}}"#,
            "metrics_generator.disable_collection: expected true or false, found \"true\"",
        ),
        ("[]", "expected a map of settings, found a list"),
    ] {
        assert!(refused(json).ends_with(message), "{}", refused(json));
    }
    // A later version may have stored more; what is wrong stays wrong.
    let later = r#"{"forwarders":["a"],"metrics_generator":{"new":{"x":1}},"newer":[]}"#;
    let (read, left_out) = UserOverrides::from_stored_json(later).unwrap();
    assert_eq!(read.forwarders, Some(vec!["a".to_owned()]));
    assert_eq!(left_out, ["metrics_generator.new", "newer"]);
    assert!(UserOverrides::from_stored_json(r#"{"forwarders":5}"#).is_err());
}
