//! Certificates that cert-manager makes.

use serde_json::{Value, json};

use super::Context;
use crate::certificates::{self, Certificate};

pub(super) fn all(context: &Context<'_>) -> Vec<Value> {
    if !context.capabilities.cert_manager {
        return Vec::new();
    }
    [
        certificates::internal(context.stack),
        certificates::receivers(context.stack),
    ]
    .into_iter()
    .flatten()
    .filter_map(|certificate| made(context, &certificate))
    .collect()
}

fn made(context: &Context<'_>, certificate: &Certificate<'_>) -> Option<Value> {
    let issued = certificate.issued?;
    Some(context.object(
        "cert-manager.io/v1",
        "Certificate",
        &certificate.secret,
        context.shared_labels(),
        json!({"spec": {
            "secretName": certificate.secret,
            "dnsNames": certificate.names,
            "usages": ["digital signature", "server auth", "client auth"],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "duration": issued.duration,
            "renewBefore": issued.renew_before,
            "issuerRef": issued.issuer_ref,
        }}),
    ))
}
