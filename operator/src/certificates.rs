//! Certificates of a stack: where they are, and which names they have.

use crate::api::{CertManager, TempoStack};
use crate::topology::{Component, Names};

/// A certificate, its key, and the authority that signed it, in a Secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Certificate<'a> {
    /// The Secret.
    pub(crate) secret: String,
    /// How cert-manager makes it; `None` means that someone fills the Secret.
    pub(crate) issued: Option<&'a CertManager>,
    /// Names that it must be valid for, the one that clients expect first.
    pub(crate) names: Vec<String>,
}

impl Certificate<'_> {
    /// The name that clients within the stack expect.
    pub(crate) fn server_name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// The one that all pods show to each other, and to those who query.
pub(crate) fn internal(stack: &TempoStack) -> Option<Certificate<'_>> {
    let tls = stack.spec.security.internal_tls.as_ref()?;
    let names = Names::of(stack);
    let issued = tls.cert_manager.as_ref();
    let mut all: Vec<String> = tls.server_name.iter().cloned().collect();
    for component in [Component::QueryFrontend, Component::Distributor] {
        all.extend(service_names(&names, component));
    }
    Some(Certificate {
        secret: secret(tls.secret_ref.as_ref(), &names, "internal-tls"),
        names: with_more(all, issued),
        issued,
    })
}

/// The one that receivers show to senders.
pub(crate) fn receivers(stack: &TempoStack) -> Option<Certificate<'_>> {
    let tls = stack.spec.receivers.otlp.tls.as_ref()?;
    let names = Names::of(stack);
    let issued = tls.cert_manager.as_ref();
    Some(Certificate {
        secret: secret(tls.secret_ref.as_ref(), &names, "receivers-tls"),
        names: with_more(service_names(&names, Component::Distributor), issued),
        issued,
    })
}

fn secret(named: Option<&crate::api::NameRef>, names: &Names, suffix: &str) -> String {
    named.map_or_else(|| names.with(suffix), |secret| secret.name.clone())
}

fn with_more(mut names: Vec<String>, issued: Option<&CertManager>) -> Vec<String> {
    for name in issued.iter().flat_map(|issued| &issued.dns_names) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// A Service's names, as others in the cluster may write them.
fn service_names(names: &Names, component: Component) -> Vec<String> {
    let host = names.host(&names.component(component));
    let short = host.trim_end_matches(".svc");
    vec![
        host.clone(),
        format!("{host}.cluster.local"),
        short.to_owned(),
        names.component(component),
    ]
}
