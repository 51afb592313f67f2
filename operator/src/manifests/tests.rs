use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::api::check;

const SAMPLES: &[(&str, &str)] = &[
    (
        "minimal",
        include_str!("../../../crds/samples/minimal.yaml"),
    ),
    (
        "production",
        include_str!("../../../crds/samples/production.yaml"),
    ),
    (
        "all-fields",
        include_str!("../../../crds/samples/all-fields.yaml"),
    ),
    ("secure", include_str!("../../../crds/samples/secure.yaml")),
];

fn stack(sample: &str) -> TempoStack {
    let (_, text) = SAMPLES.iter().find(|(name, _)| *name == sample).unwrap();
    let mut stack = check::load(text).unwrap().remove(0);
    stack
        .metadata
        .namespace
        .get_or_insert_with(|| "tracing".to_owned());
    stack
}

fn render(stack: &TempoStack, topology: &Topology) -> Vec<Value> {
    let defaults = Defaults::default();
    all(&Context {
        stack,
        names: Names::of(stack),
        topology,
        references_hash: "0123456789abcdef",
        capabilities: Capabilities::all(),
        defaults: &defaults,
    })
    .unwrap()
}

fn settled(sample: &str) -> Vec<Value> {
    let stack = stack(sample);
    render(&stack, &Topology::settled(&stack))
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

#[test]
fn manifests_are_those_that_were_looked_at() {
    for (name, _) in SAMPLES {
        let text: String = settled(name)
            .iter()
            .map(|object| format!("---\n{}", serde_yaml::to_string(object).unwrap()))
            .collect();
        crate::generated::assert_fresh(&format!("operator/testdata/golden/{name}.yaml"), &text);
    }
}

#[test]
fn a_query_frontend_without_others_is_replaced_before_it_goes() {
    let strategy = |replicas: u32| {
        let mut stack = stack("production");
        stack.spec.components.query_frontend.pods.replicas = Some(replicas);
        stack.spec.components.query_frontend.pods.autoscaling = None;
        let objects = render(&stack, &Topology::settled(&stack));
        let frontend = find(&objects, "Deployment", "tempo-prod-query-frontend").unwrap();
        let update = &frontend["spec"]["strategy"]["rollingUpdate"];
        (update["maxSurge"].clone(), update["maxUnavailable"].clone())
    };
    assert_eq!(strategy(1), (json!("25%"), json!(0)));
    assert_eq!(strategy(2), (json!(0), json!(1)));
}

fn same_after_typing<T: DeserializeOwned + Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    let back = serde_json::to_value(typed).unwrap();
    assert_eq!(
        serde_json::to_string_pretty(&sorted(&back)).unwrap(),
        serde_json::to_string_pretty(&sorted(object)).unwrap(),
        "a field that Kubernetes does not know"
    );
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut entries: Vec<_> = fields.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            entries
                .into_iter()
                .map(|(key, value)| (key.clone(), sorted(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn kubernetes_knows_every_field() {
    for (name, _) in SAMPLES {
        for object in settled(name) {
            match object["kind"].as_str().unwrap() {
                "ConfigMap" => same_after_typing::<ConfigMap>(&object),
                "Service" => same_after_typing::<Service>(&object),
                "ServiceAccount" => same_after_typing::<ServiceAccount>(&object),
                "Deployment" => same_after_typing::<Deployment>(&object),
                "StatefulSet" => same_after_typing::<StatefulSet>(&object),
                "PodDisruptionBudget" => same_after_typing::<PodDisruptionBudget>(&object),
                "NetworkPolicy" => same_after_typing::<NetworkPolicy>(&object),
                "Ingress" => same_after_typing::<Ingress>(&object),
                "HorizontalPodAutoscaler" => same_after_typing::<HorizontalPodAutoscaler>(&object),
                "Certificate" | "ServiceMonitor" | "PrometheusRule" | "GrafanaDatasource"
                | "HTTPRoute" | "GRPCRoute" => {}
                other => panic!("{other} is not compared"),
            }
        }
    }
}

#[test]
fn every_pod_fits_the_profile_restricted_and_has_no_secret_in_its_arguments() {
    for (name, _) in SAMPLES {
        for object in settled(name) {
            let pod = &object["spec"]["template"]["spec"];
            let Some(containers) = pod["containers"].as_array() else {
                continue;
            };
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"],
                "RuntimeDefault"
            );
            assert_eq!(pod["automountServiceAccountToken"], false);
            for container in containers {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false);
                assert_eq!(security["readOnlyRootFilesystem"], true);
                assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
                assert!(!container["args"].to_string().contains("${"), "{container}");
                let liveness = container["livenessProbe"].to_string();
                assert!(
                    !liveness.contains("/ready"),
                    "a process that catches up is alive"
                );
            }
        }
    }
}

#[test]
fn names_and_ports_of_the_addresses_are_the_same_in_both_modes() {
    let mut stack = stack("production");
    let ports = |objects: &[Value], name: &str| {
        find(objects, "Service", name).unwrap()["spec"]["ports"].clone()
    };
    let cluster = render(&stack, &Topology::settled(&stack));
    stack.spec.mode = crate::api::Mode::Monolithic;
    let monolith = render(&stack, &Topology::settled(&stack));
    for name in ["tempo-prod-distributor", "tempo-prod-query-frontend"] {
        assert_eq!(ports(&cluster, name), ports(&monolith, name));
        let selector = |objects: &[Value]| {
            find(objects, "Service", name).unwrap()["spec"]["selector"]["app.kubernetes.io/component"].clone()
        };
        assert_eq!(selector(&monolith), "all");
        assert_ne!(selector(&cluster), "all");
    }
    let image = |objects: &[Value], kind: &str, name: &str| {
        find(objects, kind, name).unwrap()["spec"]["template"]["spec"]["containers"][0]["image"]
            .clone()
    };
    assert_eq!(
        image(&cluster, "Deployment", "tempo-prod-querier"),
        image(&monolith, "StatefulSet", "tempo-prod-monolith")
    );
}

#[test]
fn what_autoscalers_choose_is_not_named() {
    let objects = settled("production");
    assert!(
        find(&objects, "Deployment", "tempo-prod-distributor").unwrap()["spec"]
            .get("replicas")
            .is_none()
    );
    assert!(
        find(
            &objects,
            "HorizontalPodAutoscaler",
            "tempo-prod-distributor"
        )
        .is_some()
    );
    assert_eq!(
        find(&objects, "Deployment", "tempo-prod-querier").unwrap()["spec"]["replicas"],
        4
    );
}

#[test]
fn a_key_of_one_component_changes_only_its_pods() {
    let mut stack = stack("production");
    let before = render(&stack, &Topology::settled(&stack));
    stack.spec.components.query_frontend.default_search_limit = 50;
    let after = render(&stack, &Topology::settled(&stack));
    let changed: BTreeSet<String> = before
        .iter()
        .zip(&after)
        .filter(|(a, b)| a["spec"]["template"].is_object() && a != b)
        .map(|(a, _)| a["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        changed,
        BTreeSet::from(["tempo-prod-query-frontend".to_owned()])
    );
    // Limits of tenants are read again without a restart.
    let before = after;
    stack
        .spec
        .tenancy
        .tenants
        .get_mut("team-a")
        .unwrap()
        .retention = Some("24h".into());
    stack.spec.limits.ingestion.max_traces_per_user = Some(7);
    let after = render(&stack, &Topology::settled(&stack));
    for (a, b) in before.iter().zip(&after).filter(|(a, b)| a != b) {
        assert_eq!(a["metadata"]["name"], "tempo-prod-overrides");
        assert_eq!(b["kind"], "ConfigMap");
    }
}

#[test]
fn a_pod_template_is_laid_over_but_not_over_identity() {
    let mut stack = stack("minimal");
    stack.spec.components.monolith.pods.pod_template = serde_json::from_value(json!({
        "metadata": {"labels": {"app.kubernetes.io/component": "evil", "team": "x"}},
        "spec": {"serviceAccountName": "evil", "containers": [{"name": "tempo", "workingDir": "/x"}, {"name": "side", "image": "i"}]},
    }))
    .unwrap();
    let objects = render(&stack, &Topology::settled(&stack));
    let template =
        &find(&objects, "StatefulSet", "tempo-demo-monolith").unwrap()["spec"]["template"];
    assert_eq!(
        template["metadata"]["labels"]["app.kubernetes.io/component"],
        "all"
    );
    assert_eq!(template["metadata"]["labels"]["team"], "x");
    assert_eq!(template["spec"]["serviceAccountName"], "tempo-demo");
    assert_eq!(template["spec"]["containers"][0]["workingDir"], "/x");
    assert!(template["spec"]["containers"][0]["args"].is_array());
    assert_eq!(template["spec"]["containers"][1]["name"], "side");
}

#[test]
fn a_stopped_stack_has_no_pods_and_keeps_its_objects() {
    let mut stack = stack("production");
    stack.spec.stopped = true;
    for object in render(&stack, &Topology::settled(&stack)) {
        if object["spec"]["template"].is_object() {
            assert_eq!(
                object["spec"]["replicas"], 0,
                "{}",
                object["metadata"]["name"]
            );
        }
        assert_ne!(object["kind"], "HorizontalPodAutoscaler");
    }
}

#[test]
fn what_the_cluster_lacks_is_left_out() {
    let stack = stack("production");
    let topology = Topology::settled(&stack);
    let defaults = Defaults::default();
    let context = Context {
        stack: &stack,
        names: Names::of(&stack),
        topology: &topology,
        references_hash: "",
        capabilities: Capabilities::default(),
        defaults: &defaults,
    };
    let kinds: BTreeSet<String> = all(&context)
        .unwrap()
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    for kind in [
        "ServiceMonitor",
        "PrometheusRule",
        "GrafanaDatasource",
        "HTTPRoute",
        "GRPCRoute",
    ] {
        assert!(!kinds.contains(kind));
    }
    assert_eq!(Capabilities::default().missing(&stack).len(), 4);
}

#[test]
fn images_are_named_by_digest_and_tell_their_version() {
    let mut stack = stack("minimal");
    let defaults = Defaults::default();
    assert_eq!(
        image(&stack, &defaults),
        format!("ghcr.io/tempostack/tempo:{}", env!("CARGO_PKG_VERSION"))
    );
    stack.spec.image.repository = Some("registry:5000/tempo".to_owned());
    stack.spec.image.digest = Some("sha256:abc".to_owned());
    assert_eq!(image(&stack, &defaults), "registry:5000/tempo@sha256:abc");
    assert_eq!(version_of("registry:5000/tempo@sha256:abc"), "sha256:abc");
    assert_eq!(version_of("registry:5000/tempo:1.2@sha256:abc"), "1.2");
    assert_eq!(version_of("a/b:2.0"), "2.0");
}

#[test]
fn what_a_cluster_lacks_is_left_out_or_told() {
    let mut stack = stack("secure");
    let bare = Capabilities::default();
    let problem = bare.problem(&stack).unwrap();
    assert_eq!(problem.reason, "CertManagerMissing");
    assert!(
        problem
            .message
            .contains("spec.security.internalTLS.secretRef"),
        "{}",
        problem.message
    );
    assert_eq!(Capabilities::all().problem(&stack), None);
    stack.spec.security.internal_tls =
        serde_json::from_value(json!({"secretRef": {"name": "own"}})).unwrap();
    assert_eq!(bare.problem(&stack), None);
    let objects = render(&stack, &Topology::settled(&stack));
    assert!(objects.iter().all(|object| object["kind"] != "Certificate"));
}

#[test]
fn a_certificate_has_the_names_by_which_it_is_asked_for() {
    let mut stack = stack("secure");
    stack.spec.receivers.otlp.tls = serde_json::from_value(json!({
        "certManager": {
            "issuerRef": {"name": "company", "kind": "ClusterIssuer"},
            "dnsNames": ["otlp.example"],
        },
    }))
    .unwrap();
    let objects = render(&stack, &Topology::settled(&stack));
    let internal = find(&objects, "Certificate", "tempo-secure-internal-tls").unwrap();
    assert_eq!(
        internal["spec"]["dnsNames"][0],
        "tempo-secure-query-frontend.tracing.svc"
    );
    let receivers = find(&objects, "Certificate", "tempo-secure-receivers-tls").unwrap();
    assert_eq!(receivers["spec"]["issuerRef"]["kind"], "ClusterIssuer");
    let names = receivers["spec"]["dnsNames"].as_array().unwrap();
    assert!(names.contains(&json!("otlp.example")));
    assert!(names.contains(&json!("tempo-secure-distributor.tracing.svc")));
    // Only those who receive spans have its key.
    let mounts = |kind: &str, name: &str| {
        let workload = find(&objects, kind, name).unwrap();
        workload["spec"]["template"]["spec"]["volumes"].to_string()
    };
    assert!(mounts("Deployment", "tempo-secure-distributor").contains("receivers-tls"));
    assert!(!mounts("Deployment", "tempo-secure-querier").contains("receivers-tls"));
    assert!(mounts("Deployment", "tempo-secure-querier").contains("internal-tls"));
}

#[test]
fn who_goes_through_the_gateway_does_not_go_around_it() {
    let mut stack = stack("secure");
    stack.spec.network_policy.enabled = true;
    let ports = |stack: &TempoStack| {
        let objects = render(stack, &Topology::settled(stack));
        let policy = find(&objects, "NetworkPolicy", "tempo-secure").unwrap();
        let ports = policy["spec"]["ingress"][2]["ports"].as_array().unwrap();
        ports
            .iter()
            .map(|port| port["port"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ports(&stack), [3200, 8080]);
    stack.spec.observability.service_monitor.enabled = false;
    assert_eq!(ports(&stack), [8080]);
    stack.spec.gateway.enabled = false;
    assert_eq!(ports(&stack), [3200, 9095, 4317, 4318]);
}
