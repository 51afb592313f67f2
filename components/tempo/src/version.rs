//! What this binary calls itself.

/// The release of Grafana Tempo whose interfaces this one has, and its own version. Clients compare
/// the first part: Grafana turns features on by it.
pub(crate) const VERSION: &str = concat!("3.0.3+tempostack.", env!("CARGO_PKG_VERSION"));

/// The commit it was built from, when the build told.
pub(crate) const REVISION: &str = match option_env!("TEMPO_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What `-version` and `/status/version` print.
pub(crate) fn text() -> String {
    format!("tempo, version {VERSION} (revision: {REVISION})")
}
