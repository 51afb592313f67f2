//! The effective configuration.

use tempo_config::{RenderMode, Secret};

use crate::loaded;

#[test]
fn what_is_shown_is_read_again() {
    for text in [
        "",
        include_str!("../../testdata/monolith-s3.yaml"),
        "target: querier",
    ] {
        let config = loaded(text);
        let shown = config.render(RenderMode::Effective);
        // Another reader agrees that it is YAML without repeated keys.
        serde_yaml::from_str::<serde_yaml::Value>(&shown).unwrap();
        let again = loaded(&shown);
        assert!(again.render(RenderMode::Effective) == shown, "{shown}");
        assert_eq!(again.distributor, config.distributor);
        // Secrets and what is passed on are not shown, all else is the same.
        assert_eq!(again.server, config.server);
        assert_eq!(again.live_store, config.live_store);
        assert_eq!(
            again.overrides.defaults.ingestion,
            config.overrides.defaults.ingestion
        );
        assert_eq!(again.query_frontend, config.query_frontend);
        assert_eq!(again.storage.trace.block, config.storage.trace.block);
    }
}

#[test]
fn differences() {
    let config = loaded(
        "target: querier\nserver: {log_level: warn}\nstorage: {trace: {s3: {bucket: b, tags: {a: \"1\"}}}}\n\
         query_frontend: {url_deny_list: [\"^/a: b\"]}\n",
    );
    assert_eq!(
        config.render(RenderMode::Diff),
        "target: querier\n\
         server:\n    log_level: warn\n\
         query_frontend:\n    url_deny_list:\n        - \"^/a: b\"\n\
         storage:\n    trace:\n        s3:\n            bucket: b\n            tags:\n                a: \"1\"\n"
    );
    assert_eq!(
        loaded("target: querier").render(RenderMode::Diff),
        "target: querier\n"
    );
    let defaults = loaded("target: querier").render(RenderMode::Defaults);
    assert!(defaults.starts_with("target: all\n"));
    assert!(defaults.contains("\n    http_listen_port: 3200\n"));
    assert!(defaults.contains("max_connection_idle: 2562047h47m16.854775807s\n"));
    assert_eq!(RenderMode::parse("diff"), Some(RenderMode::Diff));
    assert_eq!(RenderMode::parse("x"), None);
}

#[test]
fn secrets_stay_secret() {
    let config = loaded(
        "storage: {trace: {s3: {secret_key: topsecret, session_token: topsecret}, azure: {storage_account_key: topsecret}}}\n\
         ingest: {kafka: {sasl_password: topsecret}}\n\
         overrides: {defaults: {metrics_generator: {remote_write_headers: {Authorization: topsecret}}}}\n\
         metrics_generator: {storage: {remote_write: [{basic_auth: {password: topsecret}}]}}\n",
    );
    for mode in [RenderMode::Effective, RenderMode::Diff] {
        let shown = config.render(mode);
        assert!(!shown.contains("topsecret"), "{shown}");
        assert!(shown.contains("secret_key: \"<secret>\""), "{shown}");
    }
    assert!(!format!("{config:?}").contains("topsecret"));
    assert_eq!(format!("{:?}", Secret::from("a")), "<secret>");
}
