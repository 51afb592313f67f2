//! The odd ways in which the same can be written.

use std::time::Duration;

use crate::{load, loaded};

#[test]
fn durations() {
    for (text, millis) in [
        ("0", 0),
        ("0s", 0),
        ("5s", 5_000),
        ("\"5s\"", 5_000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        (".5s", 500),
        ("90m", 5_400_000),
        ("250ms", 250),
        ("1m1h", 3_660_000),
    ] {
        let config = loaded(&format!("shutdown_delay: {text}"));
        assert_eq!(
            *config.shutdown_delay,
            Duration::from_millis(millis),
            "{text}"
        );
    }
    for (text, message) in [
        ("1d", "time: unknown unit \"d\" in duration \"1d\""),
        ("10", "time: missing unit in duration \"10\""),
        ("5 s", "time: unknown unit \" s\" in duration \"5 s\""),
        ("abc", "time: invalid duration \"abc\""),
    ] {
        assert_eq!(
            load(&format!("shutdown_delay: {text}"))
                .unwrap_err()
                .to_string(),
            format!(
                "line 1, column 17: shutdown_delay: expected a duration such as 1h30m or 500ms: {message}"
            )
        );
    }
    assert_eq!(
        load("shutdown_delay: -1s").unwrap_err().to_string(),
        "line 1, column 17: shutdown_delay: expected a duration that is not negative, found \"-1s\""
    );
}

#[test]
fn durations_of_prometheus() {
    let retention = |text: &str| {
        format!("overrides: {{defaults: {{compaction: {{block_retention: {text}}}}}}}")
    };
    for (text, seconds) in [
        ("0", 0),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("1d12h", 129_600),
        ("30m", 1800),
    ] {
        let config = loaded(&retention(text));
        assert_eq!(
            *config.overrides.defaults.compaction.block_retention,
            Duration::from_secs(seconds),
            "{text}"
        );
    }
    for text in ["1.5h", "1m1h", "1us"] {
        let error = load(&retention(text)).unwrap_err().to_string();
        assert!(error.contains("not a valid duration string"), "{error}");
    }
}

#[test]
fn bytes() {
    for (text, bytes) in [
        ("52428800", 52_428_800),
        ("52_428_800", 52_428_800),
        ("50MiB", 52_428_800),
        ("1GiB", 1 << 30),
        ("1Gi", 1 << 30),
        ("100MB", 100_000_000),
        ("1.5KiB", 1536),
        ("63KiB1023B", 65_535),
        ("0B", 0),
        ("0", 0),
        ("3e+07", 30_000_000),
        ("5.0", 5),
    ] {
        let config = loaded(&format!("live_store: {{max_block_bytes: {text}}}"));
        assert_eq!(*config.live_store.max_block_bytes, bytes, "{text}");
    }
    for text in [
        "1XiB",
        "MiB",
        "-1",
        "1.5",
        "1e99",
        "99999999999999999999",
        "\"\"",
    ] {
        let error = load(&format!("live_store:\n  max_block_bytes: {text}")).unwrap_err();
        assert!(
            error.to_string().starts_with(
                "line 2, column 20: live_store.max_block_bytes: expected a number of bytes such as"
            ),
            "{error}"
        );
    }
}

#[test]
fn switches() {
    for (text, on) in [
        ("true", true),
        ("True", true),
        ("yes", true),
        ("on", true),
        ("false", false),
        ("no", false),
        ("Off", false),
    ] {
        assert_eq!(
            loaded(&format!("multitenancy_enabled: {text}")).multitenancy(),
            on,
            "{text}"
        );
    }
    for text in ["\"true\"", "1", "enabled", "[]"] {
        assert!(
            load(&format!("multitenancy_enabled: {text}")).is_err(),
            "{text}"
        );
    }
    assert!(loaded("auth_enabled: true").multitenancy());
}

#[test]
fn numbers() {
    for (text, port) in [
        ("3300", 3300),
        ("0x10", 16),
        ("0o17", 15),
        ("017", 15),
        ("+80", 80),
        ("\"81\"", 81),
    ] {
        let config = loaded(&format!("server: {{http_listen_port: {text}}}"));
        assert_eq!(config.server.http_listen_port, port, "{text}");
    }
    for (text, number) in [("0.05", 0.05), ("1", 1.0), ("1e-2", 0.01)] {
        let config = loaded(&format!(
            "storage: {{trace: {{block: {{bloom_filter_false_positive: {text}}}}}}}"
        ));
        assert_eq!(
            config.storage.trace.block.bloom_filter_false_positive,
            number
        );
    }
    for (text, expected) in [
        ("65536", "a whole number from 0 to 65535, found \"65536\""),
        ("-1", "a whole number from 0 to 65535, found \"-1\""),
        ("many", "a whole number, found \"many\""),
        ("1.5", "a whole number, found \"1.5\""),
    ] {
        let error = load(&format!("server: {{http_listen_port: {text}}}")).unwrap_err();
        assert!(
            error.to_string().ends_with(&format!("expected {expected}")),
            "{error}"
        );
    }
}

#[test]
fn lists_and_texts() {
    for text in ["a:7946", "[a:7946]", "\n  - a:7946"] {
        let config = loaded(&format!("memberlist:\n  join_members: {text}"));
        assert_eq!(config.memberlist.join_members[..], ["a:7946"]);
    }
    assert!(
        loaded("memberlist: {join_members: \"\"}")
            .memberlist
            .join_members
            .is_empty()
    );
    for text in ["\"a,b\"", "[a, b]"] {
        let config = loaded(&format!(
            "query_frontend: {{log_query_request_headers: {text}}}"
        ));
        assert_eq!(
            config.query_frontend.log_query_request_headers[..],
            ["a", "b"]
        );
    }
    // Numbers and booleans are text where text is meant.
    assert_eq!(
        loaded("live_store: {ring: {instance_id: 007}}")
            .live_store
            .ring
            .instance_id,
        "007"
    );
    assert_eq!(loaded("http_api_prefix: true").http_api_prefix, "true");
}

#[test]
fn nothing_keeps_the_default() {
    let config = loaded(
        "server:\nshutdown_delay:\nstorage:\n  trace:\n    s3:\n    blocklist_poll: ~\n    block:\n      parquet_dedicated_columns: null\n",
    );
    assert_eq!(config.server.http_listen_port, 3200);
    assert_eq!(
        *config.storage.trace.blocklist_poll,
        Duration::from_secs(300)
    );
    // Lists are emptied.
    assert!(
        config
            .storage
            .trace
            .block
            .parquet_dedicated_columns
            .is_empty()
    );
    for text in ["", "---\n", "# nothing\n", "{}"] {
        assert_eq!(loaded(text).target.name(), "all");
    }
}
