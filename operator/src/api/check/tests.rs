use serde_json::json;

use super::*;

fn stack(spec: Value) -> Value {
    json!({
        "apiVersion": "tempostack.io/v1alpha1",
        "kind": "TempoStack",
        "metadata": {"name": "demo", "namespace": "tracing"},
        "spec": spec,
    })
}

fn local() -> Value {
    json!({"storage": {"local": {}}})
}

fn micro() -> Value {
    json!({
        "mode": "Microservices",
        "storage": {"s3": {"bucket": "b", "region": "r"}},
        "kafka": {"bootstrapServers": ["k:9092"]},
    })
}

fn with(mut base: Value, pointer: &str, value: Value) -> Value {
    let mut at = &mut base;
    for key in pointer.split('.') {
        at = &mut at[key];
    }
    *at = value;
    base
}

#[test]
fn defaults_are_filled_in() {
    let stack = admit(&stack(local()), None).unwrap();
    assert_eq!(stack.spec.mode, super::super::Mode::Monolithic);
    assert_eq!(stack.spec.storage.local.unwrap().size, "10Gi");
    assert_eq!(stack.spec.storage.retention.0, "336h");
    assert_eq!(
        stack.spec.components.block_builder.partitions_per_instance,
        1
    );
    assert!(stack.spec.receivers.otlp.grpc);
}

#[test]
fn wrong_specs_are_refused_with_a_remedy() {
    let name = |name: &str| with(stack(local()), "metadata.name", json!(name));
    let cases: Vec<(Value, &str)> = vec![
        (stack(json!({})), "spec.storage: is missing"),
        (
            stack(json!({"storage": {}})),
            "set exactly one of storage.s3",
        ),
        (
            stack(json!({"storage": {"local": {}, "s3": {"bucket": "b", "region": "r"}}})),
            "set exactly one of storage.s3",
        ),
        (
            stack(with(local(), "mode", json!("Microservices"))),
            "mode Microservices needs kafka",
        ),
        (
            stack(with(
                with(micro(), "storage", json!({"local": {}})),
                "mode",
                json!("Microservices"),
            )),
            "needs storage that all pods reach",
        ),
        (
            stack(with(
                with(micro(), "components.liveStore.replicas", json!(6)),
                "kafka.topic.partitions",
                json!(4),
            )),
            "kafka.topic.partitions must be at least",
        ),
        (
            stack(with(micro(), "components.liveStore.replicas", json!(0))),
            "to stop the stack set stopped: true",
        ),
        (
            stack(with(
                micro(),
                "components.liveStore.autoscaling",
                json!({"maxReplicas": 3}),
            )),
            "scale subresource",
        ),
        (
            stack(with(
                with(
                    micro(),
                    "components.blockBuilder",
                    json!({"replicas": 1, "partitionsPerInstance": 2}),
                ),
                "components.liveStore.replicas",
                json!(3),
            )),
            "some partitions never become blocks",
        ),
        (
            stack(with(
                local(),
                "components.querier",
                json!({"replicas": 2, "autoscaling": {"maxReplicas": 3}}),
            )),
            "set either replicas or autoscaling",
        ),
        (
            stack(with(
                local(),
                "components.backendScheduler.replicas",
                json!(2),
            )),
            "exactly one of this component",
        ),
        (
            stack(with(
                local(),
                "gateway",
                json!({"enabled": true, "auth": {"staticSecretRef": {"name": "users"}}}),
            )),
            "gateway.enabled needs tenancy.enabled",
        ),
        (
            stack(with(
                with(local(), "tenancy.enabled", json!(true)),
                "gateway",
                json!({"enabled": true, "auth": {}}),
            )),
            "exactly one of gateway.auth.staticSecretRef and gateway.auth.oidc",
        ),
        (
            stack(with(
                with(local(), "tenancy.enabled", json!(true)),
                "gateway",
                json!({"enabled": true, "auth": {"oidc": {"issuerURL": "idp", "clientID": "tempo", "clientSecretRef": {"name": "oidc"}}}}),
            )),
            "issuerURL",
        ),
        (
            stack(with(
                with(
                    with(local(), "tenancy.enabled", json!(true)),
                    "gateway",
                    json!({"enabled": true, "auth": {"staticSecretRef": {"name": "users"}}}),
                ),
                "receivers.otlp.tls",
                json!({"secretRef": {"name": "otlp"}}),
            )),
            "set gateway.tlsSecretRef",
        ),
        (
            stack(with(local(), "security.internalTLS", json!({}))),
            "exactly one of security.internalTLS.secretRef and certManager",
        ),
        (
            stack(with(
                local(),
                "receivers.otlp.tls",
                json!({"secretRef": {"name": "a"}, "certManager": {"issuerRef": {"name": "ca"}}}),
            )),
            "exactly one of receivers.otlp.tls.secretRef and certManager",
        ),
        (
            stack(with(
                local(),
                "components.memcached.autoscaling",
                json!({"maxReplicas": 3}),
            )),
            "components.memcached.replicas",
        ),
        (
            stack(with(local(), "caches.memcached.memoryMiB", json!(1))),
            "less than 64",
        ),
        (
            stack(with(local(), "updateStrategy.drainWait", json!("5m"))),
            "updateStrategy.drainWait must be at least timings.queryBackendAfter",
        ),
        (
            stack(with(local(), "timings.queryBackendAfter", json!("10s"))),
            "at least timings.queryEndCutoff",
        ),
        (
            stack(with(local(), "metricsGenerator.enabled", json!(true))),
            "where shall the metrics go",
        ),
        (
            stack(
                json!({"storage": {"s3": {"bucket": "b", "endpoint": "https://s:9000", "insecure": true}}}),
            ),
            "drop one of them",
        ),
        (
            stack(json!({"storage": {"s3": {"bucket": "b"}}})),
            "set storage.s3.region",
        ),
        (
            stack(json!({"storage": {"s3": {"bucket": "b", "region": "r", "credentials": {}}}})),
            "set exactly one of credentials.secretRef",
        ),
        (
            stack(with(micro(), "kafka.sasl", json!({"mechanism": "PLAIN"}))),
            "needs kafka.sasl.usernameSecretRef",
        ),
        (
            stack(with(
                micro(),
                "kafka.bootstrapServers",
                json!(["http://k:9092"]),
            )),
            "does not match",
        ),
        (
            stack(with(local(), "image.digest", json!("sha256:abc"))),
            "does not match",
        ),
        (
            stack(with(local(), "zones", json!({"count": 6}))),
            "6 is more than 5",
        ),
        (
            stack(with(local(), "zones", json!({"count": 2, "names": ["a"]}))),
            "zones.names",
        ),
        (
            stack(with(local(), "storage.retension", json!("1h"))),
            "did you mean \"retention\"?",
        ),
        (
            stack(with(local(), "mode", json!("Monolith"))),
            "Monolith is none of Monolithic, Microservices",
        ),
        (
            stack(with(local(), "paused", json!("yes"))),
            "expected true or false, found text",
        ),
        (
            name("a-name-of-twenty-nine-letters"),
            "at most 28 characters",
        ),
        (name("1st"), "must begin with a letter"),
    ];
    for (value, expected) in cases {
        let text = match admit(&value, None) {
            Ok(_) => "accepted".to_owned(),
            Err(problems) => lines(&problems),
        };
        assert!(
            text.contains(expected),
            "{value}\nexpected {expected:?}, found {text:?}"
        );
    }
    assert!(admit(&name("a-name-of-28-letters-is-fine"), None).is_ok());
}

#[test]
fn changes_that_lose_data_are_refused() {
    let s3 = json!({"storage": {"s3": {"bucket": "b", "region": "r"}}});
    let cases: Vec<(Value, Value, Option<&str>)> = vec![
        (
            local(),
            s3.clone(),
            Some("the kind of storage can't be changed"),
        ),
        (
            local(),
            with(s3.clone(), "storage.allowChange", json!(true)),
            None,
        ),
        (
            s3.clone(),
            with(s3.clone(), "storage.s3.bucket", json!("c")),
            Some("storage.s3.bucket can't be changed"),
        ),
        (
            s3.clone(),
            with(s3.clone(), "storage.prefix", json!("p")),
            Some("storage.prefix can't be changed"),
        ),
        (s3.clone(), with(s3, "storage.retention", json!("1h")), None),
        (
            with(micro(), "kafka.topic.partitions", json!(4)),
            with(micro(), "kafka.topic.partitions", json!(3)),
            Some("Kafka only adds partitions"),
        ),
        (
            with(micro(), "kafka.topic.partitions", json!(4)),
            with(micro(), "kafka.topic.partitions", json!(8)),
            None,
        ),
        (
            with(
                local(),
                "components.monolith.storage",
                json!({"size": "10Gi"}),
            ),
            with(
                local(),
                "components.monolith.storage",
                json!({"size": "5Gi"}),
            ),
            Some("can't shrink"),
        ),
        (
            with(
                local(),
                "components.monolith.storage",
                json!({"size": "900Mi"}),
            ),
            with(
                local(),
                "components.monolith.storage",
                json!({"size": "1Gi"}),
            ),
            None,
        ),
    ];
    for (old, new, expected) in cases {
        let old = apply_defaults(crd::schema(), &stack(old));
        let new = stack(new);
        match (admit(&new, Some(&old)), expected) {
            (Ok(_), None) => {}
            (Err(problems), Some(expected)) => {
                let text = lines(&problems);
                assert!(text.contains(expected), "{new}: {text}");
            }
            (outcome, expected) => panic!("{new}: expected {expected:?}, found {outcome:?}"),
        }
    }
}
