//! Certificates by cert-manager, of which the kind is here and the controller is not: the scenario
//! makes what it would.

use serde_json::Value;

use super::AT_ONCE;
use crate::{
    Outcome,
    context::Context,
    ensure,
    stack::{READY_LIMIT, Stack, condition, only, quick, uids},
};

const KIND: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: certificates.cert-manager.io}
spec:
  group: cert-manager.io
  scope: Namespaced
  names: {kind: Certificate, plural: certificates, singular: certificate}
  versions:
    - name: v1
      served: true
      storage: true
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
";
const SECRET: &str = "tempo-demo-internal-tls";

fn secret(key: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {SECRET}}}
type: kubernetes.io/tls
stringData:
  tls.crt: '-----BEGIN CERTIFICATE-----'
  ca.crt: '-----BEGIN CERTIFICATE-----'
  tls.key: {key}
"
    )
}

pub(super) fn by_cert_manager(context: &Context<'_>) -> Outcome {
    let played = play(context);
    let removed = context.cluster().kubectl(&[
        "delete",
        "customresourcedefinition",
        "certificates.cert-manager.io",
        "--ignore-not-found",
    ]);
    if played.is_err() || removed.is_err() {
        return played.and(removed.map(drop));
    }
    // It goes on without, too, and without being started again.
    context.apply(&quick("demo"))?;
    context.stack("demo").wait_ready(READY_LIMIT).map(drop)
}

fn play(context: &Context<'_>) -> Outcome {
    let cluster = context.cluster();
    context.apply(
        &(quick("demo") + "  security: {internalTLS: {certManager: {issuerRef: {name: own}}}}\n"),
    )?;
    let stack = context.stack("demo");
    let told = stack.wait_condition("ConfigValid", "False", "CertManagerMissing", AT_ONCE)?;
    let message = condition(&told, "ConfigValid").map(|told| told["message"].to_string());
    ensure(
        message
            .as_ref()
            .is_some_and(|message| message.contains("secretRef")),
        || format!("the message must tell the way on: {message:?}"),
    )?;

    cluster.apply("default", KIND)?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "customresourcedefinition/certificates.cert-manager.io",
        "--timeout=30s",
    ])?;
    // Nobody starts the operator again for that.
    let certificates = stack.wait_owned(
        "certificates.cert-manager.io",
        READY_LIMIT,
        "a Certificate is asked for",
        |found| !found.is_empty(),
    )?;
    stack.wait_condition("IntegrationsReady", "False", "CertificateNotReady", AT_ONCE)?;
    let (name, certificate) = only(&certificates, "Certificate")?;
    ensure(
        certificate["spec"]["secretName"] == SECRET
            && certificate["spec"]["issuerRef"]["name"] == "own",
        || format!("{name} is {}", certificate["spec"]),
    )?;

    // What cert-manager makes, and makes anew, is no reason for other pods.
    stack.wait_ready(READY_LIMIT)?;
    let before = (generation(&stack)?, uids(&stack.owned("pods")?));
    for key in ["first", "second"] {
        context.apply(&secret(key))?;
        stack.wait_condition("IntegrationsReady", "True", "Ready", AT_ONCE)?;
    }
    let after = (generation(&stack)?, uids(&stack.owned("pods")?));
    ensure(before == after, || {
        format!("a new certificate made new pods: {before:?} became {after:?}")
    })?;

    // Who fills the Secret by hand needs no Certificate.
    context.apply(
        &(quick("demo")
            + &format!("  security: {{internalTLS: {{secretRef: {{name: {SECRET}}}}}}}\n")),
    )?;
    cluster.wait_gone(
        &context.namespace,
        "certificates.cert-manager.io",
        &stack.selector(),
        AT_ONCE,
    )
}

fn generation(stack: &Stack<'_>) -> Outcome<Value> {
    let sets = stack.owned("statefulsets")?;
    only(&sets, "StatefulSet").map(|(_, set)| set["metadata"]["generation"].clone())
}
