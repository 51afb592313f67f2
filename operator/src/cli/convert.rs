//! `convert`: from resources of grafana/tempo-operator.

use std::process::ExitCode;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempo_operator::api::check;

use super::{Error, File, say};

pub(super) fn run(file: &File) -> Result<ExitCode, Error> {
    let text = file.read()?;
    let mut found = false;
    for document in serde_yaml::Deserializer::from_str(&text) {
        let value = Value::deserialize(document)?;
        let Some(converted) = convert(&value) else {
            continue;
        };
        found = true;
        for note in &converted.notes {
            eprintln!("note: {note}");
        }
        if let Err(problems) = check::admit(&converted.stack, None) {
            for problem in problems {
                eprintln!("to be completed by hand: {problem}");
            }
        }
        say(format_args!(
            "---\n{}",
            serde_yaml::to_string(&converted.stack)?
        ))?;
    }
    if found {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Error::Other(format!(
            "{}: no TempoStack or TempoMonolithic of tempo.grafana.com/v1alpha1 in it",
            file.name()
        )))
    }
}

struct Converted {
    stack: Value,
    notes: Vec<String>,
}

struct Conversion<'a> {
    from: &'a Value,
    spec: Value,
    notes: Vec<String>,
    /// Fields that were looked at.
    known: Vec<&'static str>,
}

fn convert(resource: &Value) -> Option<Converted> {
    let version = resource["apiVersion"].as_str()?;
    let kind = resource["kind"].as_str()?;
    if !version.starts_with("tempo.grafana.com/") {
        return None;
    }
    let mut conversion = Conversion {
        from: &resource["spec"],
        spec: json!({"mode": "Monolithic"}),
        notes: Vec::new(),
        known: Vec::new(),
    };
    match kind {
        "TempoStack" => conversion.tempo_stack(),
        "TempoMonolithic" => conversion.tempo_monolithic(),
        _ => return None,
    }
    conversion.leftovers();
    let mut metadata = Map::new();
    for field in ["name", "namespace"] {
        if let Some(value) = resource["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    Some(Converted {
        stack: json!({
            "apiVersion": "tempostack.io/v1alpha1",
            "kind": "TempoStack",
            "metadata": metadata,
            "spec": conversion.spec,
        }),
        notes: conversion.notes,
    })
}

impl Conversion<'_> {
    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn set(&mut self, path: &str, value: Value) {
        let mut at = &mut self.spec;
        for key in path.split('.') {
            at = &mut at[key];
        }
        *at = value;
    }

    /// Copies a field that means the same.
    fn copy(&mut self, from: &'static str, to: &str) {
        self.known.push(from.split('.').next().unwrap_or(from));
        let found = from
            .split('.')
            .try_fold(self.from, |value, key| value.get(key))
            .filter(|value| !value.is_null())
            .cloned();
        if let Some(value) = found {
            self.set(to, value);
        }
    }

    fn tempo_stack(&mut self) {
        self.note("it becomes mode Monolithic, which needs no Kafka; for more than about 25 MB/s set mode: Microservices and kafka");
        self.storage_of_stack();
        self.common();
        self.copy("retention.global.traces", "storage.retention");
        self.copy("storageSize", "components.monolith.storage.size");
        self.copy(
            "storageClassName",
            "components.monolith.storage.storageClassName",
        );
        self.copy(
            "search.defaultResultLimit",
            "components.queryFrontend.defaultSearchLimit",
        );
        self.copy(
            "search.maxDuration",
            "components.queryFrontend.maxSearchDuration",
        );
        self.limits("limits.global", "limits");
        self.known.extend([
            "storage",
            "limits",
            "template",
            "size",
            "replicationFactor",
            "hashRing",
            "resources",
            "images",
        ]);
        let from = self.from;
        for (tenant, limits) in from["limits"]["perTenant"]
            .as_object()
            .into_iter()
            .flatten()
        {
            self.set(
                &format!("tenancy.tenants.{tenant}.limits"),
                limits_of(limits),
            );
        }
        for (tenant, retention) in from["retention"]["perTenant"]
            .as_object()
            .into_iter()
            .flatten()
        {
            self.set(
                &format!("tenancy.tenants.{tenant}.retention"),
                retention["traces"].clone(),
            );
        }
        let generator = &from["template"]["metricsGenerator"];
        if generator["enabled"] == true {
            let remotes: Vec<Value> = generator["remoteWriteURLs"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|url| json!({"url": url}))
                .collect();
            self.set(
                "metricsGenerator",
                json!({"enabled": true, "remoteWrite": remotes}),
            );
            let processors: Vec<Value> = generator["processors"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|name| *name != "local-blocks")
                .cloned()
                .collect();
            self.set("metricsGenerator.processors", json!(processors));
        }
        for name in [
            "distributor",
            "ingester",
            "compactor",
            "querier",
            "queryFrontend",
        ] {
            let component = &from["template"][name];
            let component = component.get("component").unwrap_or(component);
            if component
                .as_object()
                .is_some_and(|fields| !fields.is_empty())
            {
                self.note(format!("template.{name}: its pods do not exist in mode Monolithic; look at components.monolith"));
            }
        }
        if from["template"]["queryFrontend"]["jaegerQuery"]["enabled"] == true {
            self.note("template.queryFrontend.jaegerQuery: the Jaeger UI is not part of a stack; use Grafana");
        }
        if from["template"]["gateway"]["enabled"] == true {
            self.note(
                "template.gateway: set gateway.auth.oidc for your OpenID provider, or gateway.auth.staticSecretRef to a Secret with htpasswd",
            );
        }
        if from["size"].is_string() {
            self.note("size: the sizes differ; set size to demo, small, medium or large");
        }
    }

    fn tempo_monolithic(&mut self) {
        self.known.push("storage");
        let from = self.from;
        let traces = &from["storage"]["traces"];
        match traces["backend"].as_str().unwrap_or("memory") {
            "memory" => {
                self.set("storage.local", json!({"ephemeral": true}));
                self.note("storage.traces.backend memory becomes a volume that goes with the pod");
            }
            "pv" => {
                let size = traces.get("size").cloned().unwrap_or_else(|| json!("10Gi"));
                self.set("storage.local.size", size);
                if let Some(class) = traces.get("storageClassName") {
                    self.set("storage.local.storageClassName", class.clone());
                }
            }
            backend => {
                let secret = traces[backend]["secret"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                self.object_store(backend, &secret);
                self.tls(&traces[backend]["tls"]);
            }
        }
        self.common();
        for field in ["resources", "nodeSelector", "tolerations", "affinity"] {
            if let Some(value) = from.get(field) {
                self.set(&format!("components.monolith.{field}"), value.clone());
            }
        }
        self.known.extend([
            "resources",
            "nodeSelector",
            "tolerations",
            "affinity",
            "ingestion",
            "query",
            "management",
            "podSecurityContext",
        ]);
        let otlp = &from["ingestion"]["otlp"];
        for protocol in ["grpc", "http"] {
            if otlp[protocol]["enabled"] == false {
                self.set(&format!("receivers.otlp.{protocol}"), json!(false));
            }
        }
        if from["jaegerui"]["enabled"] == true {
            self.note("jaegerui: the Jaeger UI is not part of a stack; use Grafana");
        }
        self.known.push("jaegerui");
        if from["multitenancy"]["enabled"] == true {
            self.set("tenancy.enabled", json!(true));
            self.note("multitenancy: for a gateway set gateway.auth.oidc for your OpenID provider, or gateway.auth.staticSecretRef to a Secret with htpasswd");
        }
        self.known.push("multitenancy");
        if from["management"] == "Unmanaged" {
            self.set("paused", json!(true));
        }
    }

    /// What both kinds have.
    fn common(&mut self) {
        let from = self.from;
        if from["managementState"] == "Unmanaged" {
            self.set("paused", json!(true));
        }
        if let Some(name) = from["serviceAccount"].as_str() {
            self.set("serviceAccount", json!({"create": false, "name": name}));
        }
        let metrics = &from["observability"]["metrics"];
        if metrics["createServiceMonitors"] == true || metrics["serviceMonitors"]["enabled"] == true
        {
            self.set("observability.serviceMonitor.enabled", json!(true));
        }
        if metrics["createPrometheusRules"] == true || metrics["prometheusRules"]["enabled"] == true
        {
            self.set("observability.prometheusRule.enabled", json!(true));
        }
        let grafana = &from["observability"]["grafana"];
        if grafana["createDatasource"] == true || grafana["dataSource"]["enabled"] == true {
            self.set("observability.grafanaDatasource.enabled", json!(true));
        }
        if let Some(endpoint) = from["observability"]["tracing"]["otlp_http_endpoint"].as_str() {
            self.note(format!("observability.tracing.otlp_http_endpoint {endpoint}: set observability.tracing.otlpEndpoint to the gRPC port of that collector"));
        }
        if from["networkPolicy"]["enabled"] == true {
            self.set("networkPolicy.enabled", json!(true));
        }
        if !from["tenants"].is_null() {
            self.set("tenancy.enabled", json!(true));
            self.note("tenants: OpenID Connect and roles are not part of a stack; put an authenticating proxy in front");
        }
        for field in ["env", "envFrom"] {
            if let Some(value) = from.get(field) {
                self.set(&format!("components.defaults.{field}"), value.clone());
            }
        }
        if let Some(extra) = from["extraConfig"].get("tempo") {
            self.set("extraConfig", extra.clone());
            self.note("extraConfig: keys that Tempo 3 does not have are refused; check the result with `tempo-operator check`");
        }
        if from["timeout"].is_string() {
            self.note("timeout: is not converted; set extraConfig.query_frontend.api_timeout if you need it");
        }
        self.known.extend([
            "managementState",
            "serviceAccount",
            "observability",
            "networkPolicy",
            "tenants",
            "env",
            "envFrom",
            "extraConfig",
            "timeout",
        ]);
    }

    fn storage_of_stack(&mut self) {
        let secret = &self.from["storage"]["secret"];
        let kind = secret["type"].as_str().unwrap_or("s3").to_owned();
        let name = secret["name"].as_str().unwrap_or_default().to_owned();
        self.object_store(&kind, &name);
        let tls = self.from["storage"]["tls"].clone();
        self.tls(&tls);
    }

    /// Bucket and endpoint are in the Secret there, and in the resource here.
    fn object_store(&mut self, kind: &str, secret: &str) {
        match kind {
            "gcs" => {
                self.set("storage.gcs", json!({"bucket": "FROM-SECRET", "credentials": {"secretRef": {"name": secret}}}));
                self.note(format!(
                    "storage.gcs.bucket: copy it from key bucketname of Secret {secret}"
                ));
            }
            "azure" => {
                self.set("storage.azure", json!({"container": "FROM-SECRET", "accountName": "FROM-SECRET", "credentials": {"secretRef": {"name": secret}}}));
                self.note(format!(
                    "storage.azure: copy container and account_name from Secret {secret}"
                ));
            }
            _ => {
                self.set("storage.s3", json!({"bucket": "FROM-SECRET", "endpoint": "FROM-SECRET", "credentials": {"secretRef": {"name": secret}}}));
                self.note(format!("storage.s3: copy bucket and endpoint from Secret {secret}; its access keys are used as they are"));
            }
        }
    }

    fn tls(&mut self, tls: &Value) {
        if tls["enabled"] != true {
            return;
        }
        if let Some(ca) = tls["caName"].as_str() {
            self.set(
                "storage.tls.caRef.configMap",
                json!({"name": ca, "key": "service-ca.crt"}),
            );
        }
        if let Some(cert) = tls["certName"].as_str() {
            self.set("storage.tls.certSecretRef", json!({"name": cert}));
        }
    }

    fn limits(&mut self, from: &str, to: &str) {
        let found = from
            .split('.')
            .try_fold(self.from, |value, key| value.get(key))
            .cloned();
        if let Some(limits) = found {
            self.set(to, limits_of(&limits));
        }
    }

    fn leftovers(&mut self) {
        let unknown: Vec<String> = self
            .from
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .filter(|name| !self.known.contains(&name.as_str()))
            .collect();
        for name in unknown {
            self.note(format!("{name}: has no counterpart, and is left out"));
        }
    }
}

fn limits_of(limits: &Value) -> Value {
    let mut converted = json!({});
    let ingestion = &limits["ingestion"];
    for (from, to) in [
        ("ingestionBurstSizeBytes", "burstSizeBytes"),
        ("ingestionRateLimitBytes", "rateLimitBytes"),
        ("maxBytesPerTrace", "maxBytesPerTrace"),
        ("maxTracesPerUser", "maxTracesPerUser"),
    ] {
        if let Some(value) = ingestion.get(from) {
            converted["ingestion"][to] = value.clone();
        }
    }
    for (from, to) in [
        ("maxBytesPerTagValues", "maxBytesPerTagValues"),
        ("maxSearchDuration", "maxSearchDuration"),
    ] {
        if let Some(value) = limits["query"].get(from) {
            converted["query"][to] = value.clone();
        }
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_of_theirs_becomes_one_of_ours() {
        let theirs = json!({
            "apiVersion": "tempo.grafana.com/v1alpha1",
            "kind": "TempoStack",
            "metadata": {"name": "simplest", "namespace": "t", "uid": "x"},
            "spec": {
                "storage": {"secret": {"name": "minio", "type": "s3"}, "tls": {"enabled": true, "caName": "ca"}},
                "storageSize": "1Gi",
                "retention": {"global": {"traces": "72h"}, "perTenant": {"a": {"traces": "1h"}}},
                "limits": {"global": {"ingestion": {"ingestionRateLimitBytes": 500}}},
                "hashRing": {},
                "somethingNew": 1,
            },
        });
        let converted = convert(&theirs).unwrap();
        let spec = &converted.stack["spec"];
        assert_eq!(spec["storage"]["retention"], "72h");
        assert_eq!(spec["storage"]["tls"]["caRef"]["configMap"]["name"], "ca");
        assert_eq!(spec["limits"]["ingestion"]["rateLimitBytes"], 500);
        assert_eq!(spec["tenancy"]["tenants"]["a"]["retention"], "1h");
        assert_eq!(spec["components"]["monolith"]["storage"]["size"], "1Gi");
        assert!(
            converted
                .notes
                .iter()
                .any(|note| note.contains("somethingNew"))
        );
        assert!(
            check::admit(&converted.stack, None).is_ok(),
            "{:?}",
            check::admit(&converted.stack, None)
        );
    }

    #[test]
    fn a_monolith_of_theirs_becomes_one_of_ours() {
        let theirs = json!({
            "apiVersion": "tempo.grafana.com/v1alpha1",
            "kind": "TempoMonolithic",
            "metadata": {"name": "sample"},
            "spec": {"storage": {"traces": {"backend": "pv", "size": "20Gi"}}, "jaegerui": {"enabled": true}},
        });
        let converted = convert(&theirs).unwrap();
        assert_eq!(converted.stack["spec"]["storage"]["local"]["size"], "20Gi");
        assert!(converted.notes[0].contains("Jaeger"));
        assert!(check::admit(&converted.stack, None).is_ok());
        assert!(convert(&json!({"apiVersion": "v1", "kind": "Pod"})).is_none());
    }
}
