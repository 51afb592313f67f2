//! Secrets and ConfigMaps that a stack names: which they are, what must be in them, and their
//! hash, by which pods notice a change.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::api::{SecretKey, TempoStack};
use crate::certificates::{self, Certificate};

/// Kind of an object that a stack names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

impl Kind {
    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// An object that a stack names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Field that names it.
    pub field: &'static str,
    /// Keys that must be in it.
    pub keys: Vec<String>,
    /// Whether values become environment variables that the configuration takes in.
    pub expanded: bool,
    /// Whether processes read it again when it changes, so that no pod starts anew for it.
    pub reread: bool,
    /// Whether cert-manager makes it: it may come later than the pods that need it.
    pub issued: bool,
}

/// Contents of the objects that were found, by key.
pub type Found = BTreeMap<(Kind, String), BTreeMap<String, Vec<u8>>>;

/// What is wrong with the objects that a stack names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The objects that the stack names.
pub fn of(stack: &TempoStack) -> Vec<Reference> {
    let spec = &stack.spec;
    let mut found = Collector::default();
    if let Some(s3) = &spec.storage.s3
        && let Some(secret) = s3.credentials.as_ref().and_then(|c| c.secret_ref.as_ref())
    {
        found.secret(
            "storage.s3.credentials.secretRef",
            &secret.name,
            &[&secret.access_key_id_key, &secret.secret_access_key_key],
            false,
        );
    }
    if let Some(gcs) = &spec.storage.gcs
        && let Some(secret) = gcs.credentials.as_ref().and_then(|c| c.secret_ref.as_ref())
    {
        let key = secret.key.as_deref().unwrap_or(GCS_KEY);
        found.secret(
            "storage.gcs.credentials.secretRef",
            &secret.name,
            &[key],
            false,
        );
    }
    if let Some(azure) = &spec.storage.azure
        && let Some(secret) = azure
            .credentials
            .as_ref()
            .and_then(|c| c.secret_ref.as_ref())
    {
        let key = secret.key.as_deref().unwrap_or(AZURE_KEY);
        found.secret(
            "storage.azure.credentials.secretRef",
            &secret.name,
            &[key],
            true,
        );
    }
    if let Some(tls) = &spec.storage.tls {
        if let Some(ca) = &tls.ca_ref {
            if let Some(reference) = &ca.config_map {
                found.add(
                    Kind::ConfigMap,
                    "storage.tls.caRef.configMap",
                    &reference.name,
                    &[&reference.key],
                    false,
                );
            }
            if let Some(reference) = &ca.secret {
                found.key("storage.tls.caRef.secret", reference, false);
            }
        }
        if let Some(cert) = &tls.cert_secret_ref {
            found.secret("storage.tls.certSecretRef", &cert.name, TLS_KEYS, false);
        }
    }
    if let Some(kafka) = &spec.kafka {
        if let Some(tls) = &kafka.tls {
            if let Some(ca) = &tls.ca_secret_ref {
                found.key("kafka.tls.caSecretRef", ca, false);
            }
            if let Some(cert) = &tls.cert_secret_ref {
                found.secret("kafka.tls.certSecretRef", &cert.name, TLS_KEYS, false);
            }
        }
        if let Some(sasl) = &kafka.sasl {
            for (field, reference) in [
                ("kafka.sasl.usernameSecretRef", &sasl.username_secret_ref),
                ("kafka.sasl.passwordSecretRef", &sasl.password_secret_ref),
                ("kafka.sasl.tokenSecretRef", &sasl.token_secret_ref),
            ] {
                if let Some(reference) = reference {
                    found.key(field, reference, true);
                }
            }
        }
    }
    if spec.metrics_generator.enabled {
        for remote in &spec.metrics_generator.remote_write {
            if let Some(secret) = &remote.basic_auth_secret_ref {
                found.secret(
                    "metricsGenerator.remoteWrite.basicAuthSecretRef",
                    &secret.name,
                    &["username", "password"],
                    true,
                );
            }
            if let Some(token) = &remote.bearer_token_secret_ref {
                found.key(
                    "metricsGenerator.remoteWrite.bearerTokenSecretRef",
                    token,
                    true,
                );
            }
            if let Some(ca) = &remote.ca_secret_ref {
                found.key("metricsGenerator.remoteWrite.caSecretRef", ca, false);
            }
        }
    }
    if let Some(tls) = &spec.receivers.otlp.tls {
        let keys = if tls.require_client_certificate {
            TLS_AND_CA_KEYS
        } else {
            TLS_KEYS
        };
        if let Some(certificate) = certificates::receivers(stack) {
            found.certificate("receivers.otlp.tls", &certificate, keys);
        }
    }
    if let Some(certificate) = certificates::internal(stack) {
        found.certificate("security.internalTLS", &certificate, TLS_AND_CA_KEYS);
    }
    if spec.gateway.enabled {
        if let Some(auth) = &spec.gateway.auth {
            if let Some(users) = &auth.static_secret_ref {
                found.secret(
                    "gateway.auth.staticSecretRef",
                    &users.name,
                    &["htpasswd"],
                    false,
                );
            }
            if let Some(oidc) = &auth.oidc {
                found.secret(
                    "gateway.auth.oidc.clientSecretRef",
                    &oidc.client_secret_ref.name,
                    &[OIDC_CLIENT_SECRET, OIDC_COOKIE_SECRET],
                    false,
                );
                if let Some(ca) = &oidc.ca_secret_ref {
                    found.key("gateway.auth.oidc.caSecretRef", ca, false);
                }
            }
        }
        if let Some(tls) = &spec.gateway.tls_secret_ref {
            found.secret("gateway.tlsSecretRef", &tls.name, TLS_KEYS, false);
        }
    }
    found.references
}

/// Key of a Google service account's key file.
pub const GCS_KEY: &str = "key.json";
/// Key of an Azure account's key.
pub const AZURE_KEY: &str = "account_key";
/// Key of what the gateway shows to an OpenID provider.
pub const OIDC_CLIENT_SECRET: &str = "client_secret";
/// Key of what seals the gateway's cookies.
pub const OIDC_COOKIE_SECRET: &str = "cookie_secret";
/// Lengths that oauth2-proxy takes for it: those of AES.
const OIDC_COOKIE_SECRET_BYTES: &[usize] = &[16, 24, 32];
const TLS_KEYS: &[&str] = &["tls.crt", "tls.key"];
const TLS_AND_CA_KEYS: &[&str] = &["tls.crt", "tls.key", "ca.crt"];
/// What a file of certificates begins with, comments aside.
const PEM: &str = "-----BEGIN CERTIFICATE-----";
/// Keys that other operators' Secrets hold for short-lived credentials.
const SHORT_LIVED_KEYS: &[&str] = &["role_arn"];

#[derive(Default)]
struct Collector {
    references: Vec<Reference>,
}

impl Collector {
    fn add(&mut self, kind: Kind, field: &'static str, name: &str, keys: &[&str], expanded: bool) {
        self.references.push(Reference {
            kind,
            name: name.to_owned(),
            field,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            expanded,
            reread: false,
            issued: false,
        });
    }
    /// Servers and clients of ours look at these files again and again.
    fn certificate(&mut self, field: &'static str, certificate: &Certificate<'_>, keys: &[&str]) {
        self.references.push(Reference {
            kind: Kind::Secret,
            name: certificate.secret.clone(),
            field,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            expanded: false,
            reread: true,
            issued: certificate.issued.is_some(),
        });
    }
    fn secret(&mut self, field: &'static str, name: &str, keys: &[&str], expanded: bool) {
        self.add(Kind::Secret, field, name, keys, expanded);
    }
    fn key(&mut self, field: &'static str, reference: &SecretKey, expanded: bool) {
        self.secret(field, &reference.name, &[&reference.key], expanded);
    }
}

/// What is wrong with what was found; the first problem is enough for a condition.
pub fn problem(references: &[Reference], found: &Found) -> Option<Problem> {
    references.iter().find_map(|reference| {
        let Reference { kind, name, field, .. } = reference;
        let Some(content) = found.get(&(*kind, name.clone())) else {
            return (!reference.issued).then(|| Problem {
                reason: match kind {
                    Kind::Secret => "SecretNotFound",
                    Kind::ConfigMap => "ConfigMapNotFound",
                },
                message: format!(
                    "{} {name:?}, named by spec.{field}, does not exist; create it in the namespace of the stack",
                    kind.name()
                ),
            });
        };
        if let Some(problem) = conflict(reference, content) {
            return Some(problem);
        }
        reference.keys.iter().find_map(|key| match content.get(key) {
            None => Some(Problem {
                reason: "SecretKeyMissing",
                message: format!(
                    "{} {name:?}, named by spec.{field}, has no key {key:?}; it has {}",
                    kind.name(),
                    names(content)
                ),
            }),
            Some(value) if value.is_empty() => Some(Problem {
                reason: "SecretKeyMissing",
                message: format!(
                    "key {key:?} of {} {name:?}, named by spec.{field}, is empty",
                    kind.name()
                ),
            }),
            Some(value) if reference.expanded && !fits_quotes(value) => Some(Problem {
                reason: "SecretKeyUnusable",
                message: format!(
                    "key {key:?} of {} {name:?}, named by spec.{field}, holds a quote or a line break; configuration can't take it in",
                    kind.name()
                ),
            }),
            Some(value)
                if key == OIDC_COOKIE_SECRET && !OIDC_COOKIE_SECRET_BYTES.contains(&value.len()) =>
            {
                Some(Problem {
                    reason: "SecretKeyUnusable",
                    message: format!(
                        "key {key:?} of {} {name:?}, named by spec.{field}, has {} characters in place of 16, 24 or 32; make one by: openssl rand -hex 16",
                        kind.name(),
                        value.len()
                    ),
                })
            }
            Some(value) if key.ends_with(".crt") && !holds_certificate(value) => Some(Problem {
                reason: "SecretKeyUnusable",
                message: format!(
                    "key {key:?} of {} {name:?}, named by spec.{field}, holds no certificate: \"{PEM}\" is expected",
                    kind.name()
                ),
            }),
            Some(_) => None,
        })
    })
}

fn holds_certificate(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| text.contains(PEM))
}

fn conflict(reference: &Reference, content: &BTreeMap<String, Vec<u8>>) -> Option<Problem> {
    if reference.field != "storage.s3.credentials.secretRef" {
        return None;
    }
    let short = SHORT_LIVED_KEYS
        .iter()
        .find(|key| content.contains_key(**key))?;
    Some(Problem {
        reason: "ConflictingCredentials",
        message: format!(
            "Secret {:?}, named by spec.{}, holds access keys and {short:?}; use storage.s3.credentials.workloadIdentity for the role, or remove {short:?}",
            reference.name, reference.field
        ),
    })
}

fn names(content: &BTreeMap<String, Vec<u8>>) -> String {
    if content.is_empty() {
        return "none".to_owned();
    }
    content.keys().cloned().collect::<Vec<_>>().join(", ")
}

/// Whether a value can stand between single quotes of YAML on one line.
fn fits_quotes(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| !text.contains(['\'', '\n', '\r']))
}

/// A hash of all that is referenced: pods that bear it start anew when it changes.
pub fn hash(references: &[Reference], found: &Found) -> String {
    let wanted: BTreeSet<(Kind, &str, &str)> = references
        .iter()
        .filter(|reference| !reference.reread)
        .flat_map(|reference| {
            reference
                .keys
                .iter()
                .map(|key| (reference.kind, reference.name.as_str(), key.as_str()))
        })
        .collect();
    let mut hasher = Sha256::new();
    for (kind, name, key) in wanted {
        let content = found
            .get(&(kind, name.to_owned()))
            .and_then(|content| content.get(key));
        for part in [
            kind.name().as_bytes(),
            name.as_bytes(),
            key.as_bytes(),
            content.map_or(&[][..], Vec::as_slice),
        ] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    short_hex(&hasher.finalize())
}

/// A hash of a text.
pub fn hash_text(text: &str) -> String {
    short_hex(&Sha256::digest(text.as_bytes()))
}

fn short_hex(digest: &[u8]) -> String {
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::check;

    fn stack() -> TempoStack {
        check::load(include_str!("../../crds/samples/production.yaml"))
            .unwrap()
            .remove(0)
    }

    fn content(entries: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
            .collect()
    }

    fn all() -> Found {
        BTreeMap::from([
            (
                (Kind::Secret, "kafka-ca".to_owned()),
                content(&[("ca.crt", PEM)]),
            ),
            (
                (Kind::Secret, "kafka-user".to_owned()),
                content(&[("user", "u"), ("password", "p")]),
            ),
            (
                (Kind::Secret, "remote-write".to_owned()),
                content(&[("username", "u"), ("password", "p")]),
            ),
        ])
    }

    #[test]
    fn what_is_wrong_with_secrets_is_told() {
        let references = of(&stack());
        assert_eq!(references.len(), 4);
        assert_eq!(problem(&references, &all()), None);
        let mut found = all();
        found.remove(&(Kind::Secret, "kafka-ca".to_owned()));
        let missing = problem(&references, &found).unwrap();
        assert_eq!(missing.reason, "SecretNotFound");
        assert!(missing.message.contains("spec.kafka.tls.caSecretRef"));
        let mut found = all();
        found.insert(
            (Kind::Secret, "kafka-user".to_owned()),
            content(&[("user", "u"), ("pass", "p")]),
        );
        let wrong = problem(&references, &found).unwrap();
        assert_eq!(wrong.reason, "SecretKeyMissing");
        assert!(
            wrong
                .message
                .contains("no key \"password\"; it has pass, user"),
            "{}",
            wrong.message
        );
        let mut found = all();
        found.insert(
            (Kind::Secret, "kafka-user".to_owned()),
            content(&[("user", "u"), ("password", "it's")]),
        );
        assert_eq!(
            problem(&references, &found).unwrap().reason,
            "SecretKeyUnusable"
        );
    }

    #[test]
    fn the_hash_follows_what_is_used_and_nothing_else() {
        let references = of(&stack());
        let before = hash(&references, &all());
        let mut found = all();
        found.insert(
            (Kind::Secret, "kafka-ca".to_owned()),
            content(&[("ca.crt", PEM), ("other", "x")]),
        );
        assert_eq!(hash(&references, &found), before);
        found.insert(
            (Kind::Secret, "kafka-ca".to_owned()),
            content(&[("ca.crt", "-----BEGIN CERTIFICATE----- of another")]),
        );
        assert_ne!(hash(&references, &found), before);
    }

    #[test]
    fn certificates_are_read_again_and_those_that_are_made_may_come_later() {
        let mut stack = stack();
        let tls = |value| serde_json::from_value(value).unwrap();
        stack.spec.security.internal_tls =
            Some(tls(serde_json::json!({"secretRef": {"name": "internal"}})));
        let provided = of(&stack);
        let missing = problem(&provided, &all()).unwrap();
        assert_eq!(missing.reason, "SecretNotFound");
        assert!(missing.message.contains("spec.security.internalTLS"));
        let mut found = all();
        let keys = [("tls.crt", PEM), ("tls.key", "key"), ("ca.crt", "no PEM")];
        found.insert((Kind::Secret, "internal".to_owned()), content(&keys));
        let unusable = problem(&provided, &found).unwrap();
        assert_eq!(unusable.reason, "SecretKeyUnusable");
        assert!(unusable.message.contains("ca.crt"), "{}", unusable.message);
        let before = hash(&provided, &found);
        let keys = [("tls.crt", PEM), ("tls.key", "new"), ("ca.crt", PEM)];
        found.insert((Kind::Secret, "internal".to_owned()), content(&keys));
        assert_eq!(problem(&provided, &found), None);
        assert_eq!(hash(&provided, &found), before);
        stack.spec.security.internal_tls = Some(tls(serde_json::json!({
            "certManager": {"issuerRef": {"name": "ca"}},
        })));
        let issued = of(&stack);
        assert_eq!(problem(&issued, &all()), None);
        assert_eq!(hash(&issued, &all()), before);
    }
}
