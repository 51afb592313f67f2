use tempo_config::parse_runtime_overrides;

use super::*;

/// What is said of a document, which is `{"metrics_generator": …}` unless it begins with `{`.
fn refusal(json: &str) -> Option<String> {
    let json = match json.starts_with('{') {
        true => json.to_owned(),
        false => format!(r#"{{"metrics_generator":{{{json}}}}}"#),
    };
    let document = UserOverrides::from_json(&json).unwrap();
    check_document(&document, &BTreeSet::from(["mine".to_owned()])).err()
}

#[test]
fn documents_are_refused_in_tempos_words() {
    for (json, text) in [
        (
            r#"{"forwarders":["mine","other"]}"#,
            r#"forwarder "other" is not a known forwarder, contact your system administrator"#,
        ),
        (
            r#""processors":["local-blocks"]"#,
            r#"metrics_generator.processor "local-blocks" is not a known processor, valid values: [service-graphs service-graphs-request service-graphs-latency service-graphs-connection-info span-metrics span-metrics-count span-metrics-latency span-metrics-size host-info]"#,
        ),
        (
            r#""collection_interval":"10s""#,
            r#"metrics_generator.collection_interval "10s" is outside acceptable range of 15s to 5m"#,
        ),
        (
            r#""collection_interval":"5m0.001s""#,
            r#"metrics_generator.collection_interval "5m0.001s" is outside acceptable range of 15s to 5m"#,
        ),
        (
            r#""trace_id_label_name":"trace.id""#,
            r#"trace_id_label_name "trace.id" is not a valid Prometheus label name"#,
        ),
        (
            r#""ingestion_time_range_slack":"12h0m1s""#,
            r#"metrics_generator.ingestion_time_range_slack "12h0m1s" is outside acceptable range of 0s to 12h"#,
        ),
        (
            r#""native_histogram_bucket_factor":1"#,
            "metrics_generator.native_histogram_bucket_factor must be greater than 1",
        ),
        (
            r#""generate_native_histograms":"some""#,
            r#"metrics_generator.generate_native_histograms "some" is not a valid value, valid values: classic, native, both"#,
        ),
        (
            r#""span_name_sanitization":"some""#,
            r#"span_name_sanitization "some" is not valid, valid values: [ dry_run enabled]"#,
        ),
        (
            r#""processor":{"service_graphs":{"histogram_buckets":[0.1,2,2]}}"#,
            "metrics_generator.processor.service_graphs.histogram_buckets must be strictly increasing: bucket[2]=2 is <= bucket[1]=2",
        ),
        (
            r#""processor":{"span_metrics":{"histogram_buckets":[2,0.1]}}"#,
            "metrics_generator.processor.span_metrics.histogram_buckets must be strictly increasing: bucket[1]=0.1 is <= bucket[0]=2",
        ),
        (
            r#"{"cost_attribution":{"dimensions":{"resource.a.b":"","span.x":"a_b"}}}"#,
            "cost_attribution.dimensions has duplicate label name: 'a_b', both 'resource.a.b' and 'span.x' map to it",
        ),
        (
            r#"{"cost_attribution":{"dimensions":{"x":"__name"}}}"#,
            "cost_attribution.dimensions config has invalid label name: '__name'",
        ),
        (
            r#""processor":{"span_metrics":{"intrinsic_dimensions":{"kind":true}}}"#,
            r#"intrinsic dimension "kind" is not supported, valid values: [service span_name span_kind status_code status_message]"#,
        ),
        (
            r#""processor":{"host_info":{"metric_name":""}}"#,
            "metric_name is invalid",
        ),
        (
            r#""processor":{"span_metrics":{"dimension_mappings":[{"name":"","source_labels":["a"]}]}}"#,
            "dimension_mappings: name cannot be empty",
        ),
        (
            r#""processor":{"span_metrics":{"dimension_mappings":[{"name":"a"}]}}"#,
            r#"dimension_mappings: source_labels cannot be empty for mapping with name "a""#,
        ),
        (
            r#""processor":{"span_metrics":{"dimensions":["foo.bar"],"dimension_mappings":[{"name":"foo_bar","source_labels":["a"]}]}}"#,
            r#"dimension_mapping "foo_bar" produces label "foo_bar" which collides with dimension "foo.bar""#,
        ),
        (
            r#""processor":{"span_metrics":{"dimension_mappings":[{"name":"a.b","source_labels":["a"]},{"name":"a_b","source_labels":["a"]}]}}"#,
            r#"dimension_mapping "a_b" produces label "a_b" which collides with dimension_mapping "a.b""#,
        ),
    ] {
        assert_eq!(refusal(json).as_deref(), Some(text));
    }
    for good in [
        "{}",
        r#"{"forwarders":["mine"]}"#,
        r#""processors":[]"#,
        r#""processors":["span-metrics","host-info"],"collection_interval":"15s""#,
        r#""ingestion_time_range_slack":"12h","span_name_sanitization":"""#,
        // Like an intrinsic, so its label has a prefix; dimensions may share one.
        r#""processor":{"span_metrics":{"intrinsic_dimensions":{"span_name":true},"dimensions":["a.b","a_b"],"dimension_mappings":[{"name":"span.name","source_labels":["a"]}]}}"#,
    ] {
        assert_eq!(refusal(good), None, "{good}");
    }
}

#[test]
fn filters_must_compile() {
    let policy = |match_type: &str, key: &str, value: &str| {
        format!(
            r#""processor":{{"span_metrics":{{"filter_policies":[{{"include":{{"match_type":"{match_type}","attributes":[{{"key":"{key}","value":{value}}}]}}}}]}}}}"#
        )
    };
    for (match_type, key, value) in [
        ("strict", "kind", r#""SPAN_KIND_SERVER""#),
        ("strict", "status", r#""STATUS_CODE_OK""#),
        ("strict", "name", r#""a""#),
        ("strict", "span.http.status_code", "200"),
        ("regex", "resource.service.name", r#""a.*""#),
        ("regex", "kind", r#""SERVER""#),
    ] {
        assert_eq!(refusal(&policy(match_type, key, value)), None, "{key}");
    }
    for (match_type, key, value, text) in [
        (
            "strict",
            "kind",
            r#""foo""#,
            "unsupported kind intrinsic string value: foo",
        ),
        (
            "strict",
            "kind",
            "true",
            "invalid kind intrinsic value: true",
        ),
        (
            "strict",
            "status",
            r#""foo""#,
            "unsupported status intrinsic string value: foo",
        ),
        (
            "strict",
            "name",
            "true",
            "unsupported name intrinsic value: true",
        ),
        (
            "strict",
            "duration",
            r#""1s""#,
            "unsupported intrinsic: duration",
        ),
        (
            "strict",
            ".a",
            r#""x""#,
            "invalid or unsupported attribute scope: .a",
        ),
        ("strict", "", r#""x""#, "invalid attribute"),
        ("strict", "{", r#""x""#, "invalid include policy: "),
        (
            "regex",
            "span.a",
            r#""(""#,
            "invalid attribute filter regexp: ",
        ),
        (
            "regex",
            "span.a",
            "5",
            "invalid attribute filter regexp value: 5",
        ),
    ] {
        let refusal = refusal(&policy(match_type, key, value)).unwrap();
        assert!(refusal.starts_with("invalid include policy: "), "{refusal}");
        assert!(refusal.contains(text), "{refusal}");
    }
    let empty = refusal(r#""processor":{"service_graphs":{"filter_policies":[{}]}}"#);
    assert!(
        empty
            .unwrap()
            .starts_with("invalid filter policy; policies must have at least")
    );
}

#[test]
fn entries_of_the_runtime_file_keep_the_same_rules() {
    let problems = |yaml: &str| {
        let table = parse_runtime_overrides(&format!("overrides: {{t: {yaml}}}"), false).unwrap();
        entry_problems(&table["t"])
    };
    for (yaml, path, text) in [
        (
            "{metrics_generator: {native_histogram_bucket_factor: 1.0}}",
            BUCKET_FACTOR,
            "must be greater than 1",
        ),
        (
            "{metrics_generator: {processor: {span_metrics: {histogram_buckets: [1, 1]}}}}",
            SPAN_METRICS_BUCKETS,
            "must be strictly increasing: bucket[1]=1 is <= bucket[0]=1",
        ),
        (
            "{cost_attribution: {dimensions: {a: x, b: x}}}",
            COST_DIMENSIONS,
            "has duplicate label name: 'x', both 'a' and 'b' map to it",
        ),
    ] {
        assert_eq!(problems(yaml), [(path.to_owned(), text.to_owned())]);
    }
    assert!(problems("{}").is_empty());
    // As in Tempo, the generator alone judges what is not named here.
    assert!(problems("{metrics_generator: {processors: [other]}}").is_empty());
    assert!(entry_problems(&TenantOverrides::tempo_defaults()).is_empty());
}
