//! The command line.

use tempo_config::{Action, CommandLine, Config, help};

use crate::loaded_with;

fn parse(arguments: &[&str]) -> CommandLine {
    CommandLine::parse(arguments).unwrap()
}

#[test]
fn all_ways_to_write_a_flag() {
    for arguments in [
        &["-server.http-listen-port=80"][..],
        &["--server.http-listen-port=80"],
        &["-server.http-listen-port", "80"],
        &["--server.http-listen-port", "80"],
        &["-server.http-listen-port=79", "-server.http-listen-port=80"],
    ] {
        assert_eq!(
            loaded_with("", arguments).server.http_listen_port,
            80,
            "{arguments:?}"
        );
    }
    // A switch takes no value behind a space.
    let line = parse(&[
        "-config.expand-env",
        "-config.file",
        "a.yaml",
        "--config.verify",
    ]);
    assert!(line.expand_env);
    assert_eq!(line.config_file.as_deref(), Some("a.yaml"));
    assert_eq!(line.action, Action::Verify);
    assert!(!parse(&["-config.expand-env=false"]).expand_env);
    assert!(loaded_with("", &["-multitenancy.enabled"]).multitenancy());
    assert!(
        !loaded_with(
            "multitenancy_enabled: true",
            &["-multitenancy.enabled=false"]
        )
        .multitenancy()
    );
}

#[test]
fn actions() {
    assert_eq!(parse(&[]).action, Action::Run);
    assert_eq!(parse(&["-version"]).action, Action::Version);
    assert_eq!(parse(&["-h"]).action, Action::Help);
    assert_eq!(parse(&["-config.verify", "-help"]).action, Action::Help);
    assert_eq!(
        parse(&["-health"]).action,
        Action::Health {
            url: "http://localhost:3200/ready".to_owned()
        }
    );
    assert_eq!(
        parse(&["-health.url=http://a/ready", "-health"]).action,
        Action::Health {
            url: "http://a/ready".to_owned()
        }
    );
}

#[test]
fn flags_beat_the_file() {
    let config = loaded_with(
        "target: querier\nserver: {log_level: warn, http_listen_port: 1}\n",
        &["-target=all", "-log.level=debug"],
    );
    assert_eq!(config.target.name(), "all");
    assert_eq!(config.server.log_level.text(), "debug");
    assert_eq!(config.server.http_listen_port, 1);
}

#[test]
fn flags_with_names_of_their_own() {
    let config = loaded_with(
        "",
        &[
            "-http-api-prefix=/tempo",
            "-storage.trace.backend=local",
            "-storage.trace.local.path=/data",
            "-memberlist.host-port=a:1",
            "-memberlist.host-port=b:1",
            "-config.per-user-override-config=/o.yaml",
            "-config.per-user-override-period=1m",
            "-distributor.ingestion-rate-limit-bytes=7",
            "-distributor.rate-limit-strategy=global",
            "-ingester.max-bytes-per-trace=8",
            "-querier.max-condition-groups-per-tag-query=9",
            "-shutdown-delay=3s",
            "-reporting.enabled=false",
            "-mutex-profile-fraction=5",
            "-live-storestore=inmemory",
        ],
    );
    assert_eq!(config.http_api_prefix, "/tempo");
    assert_eq!(config.storage.trace.local.path, "/data");
    assert_eq!(config.memberlist.join_members[..], ["a:1", "b:1"]);
    assert_eq!(config.overrides.per_tenant_override_config, "/o.yaml");
    let defaults = &config.overrides.defaults;
    assert_eq!(*defaults.ingestion.rate_limit_bytes, 7);
    assert_eq!(defaults.ingestion.rate_strategy.text(), "global");
    assert_eq!(*defaults.global.max_bytes_per_trace, 8);
    assert_eq!(defaults.read.max_condition_groups_per_tag_query, 9);
    assert!(!config.usage_report.reporting_enabled);
    assert!(
        config
            .ineffective_keys()
            .contains(&"usage_report.reporting_enabled".to_owned())
    );
}

#[test]
fn flags_that_follow_the_file() {
    let config = loaded_with(
        "",
        &[
            "-live-store.max-trace-idle=2s",
            "-live-store.wal.path=/wal",
            "-storage.trace.s3.secret-key=hidden",
            "-storage.trace.s3.tls_insecure_skip_verify",
            "-storage.trace.blocklist_poll=1m",
            "-ingest.topic=traces",
            "-block-builder.partitions-per-instance=2",
            "-backend-worker.compaction.block-retention=24h",
            "-backend-scheduler.work.prune-age=2h",
            "-query-frontend.max-retries=5",
        ],
    );
    assert_eq!(config.live_store.max_trace_idle.as_secs(), 2);
    assert_eq!(config.live_store.wal.path, "/wal");
    assert_eq!(config.storage.trace.s3.secret_key.reveal(), "hidden");
    assert!(config.storage.trace.s3.tls.tls_insecure_skip_verify);
    assert_eq!(config.storage.trace.blocklist_poll.as_secs(), 60);
    assert_eq!(config.ingest.kafka.topic, "traces");
    assert_eq!(config.query_frontend.max_retries, 5);
}

#[test]
fn wrong_flags() {
    for (arguments, message) in [
        (
            &["-server.http-listen-prot=1"][..],
            "unknown flag -server.http-listen-prot; did you mean -server.http-listen-port?; see -help",
        ),
        (&["-nonsense"], "unknown flag -nonsense; see -help"),
        // A block is no setting.
        (
            &["-storage.trace.s3=a"],
            "unknown flag -storage.trace.s3; see -help",
        ),
        (&["-target"], "flag -target needs a value; see -help"),
        (
            &["run"],
            "unexpected argument \"run\"; settings begin with a dash; see -help",
        ),
        (
            &["---target=all"],
            "unexpected argument \"---target=all\"; settings begin with a dash; see -help",
        ),
        (
            &["-config.verify=maybe"],
            "flag -config.verify: expected true or false, found \"maybe\"; see -help",
        ),
    ] {
        let error = CommandLine::parse(arguments).unwrap_err();
        let text = error.to_string();
        assert!(
            text == message || text.starts_with("unknown flag -storage.trace.s3;"),
            "{text}"
        );
    }
    let error = Config::load(None, &parse(&["-server.http-listen-port=x"]), &|_| None);
    assert_eq!(
        error.unwrap_err().to_string(),
        "flag -server.http-listen-port: server.http_listen_port: expected a whole number, found \"x\""
    );
}

#[test]
fn help_teaches() {
    let help = help();
    for part in [
        "-config.file <value>",
        "-target <name>\n        Which components this process runs. Default all.",
        "-server.http-listen-port <whole number>\n        Port of the HTTP listener. Default 3200.",
        "-multitenancy.enabled\n",
        "-health.url",
        "Storage",
        "-live-store.<key>  live_store.<key>",
        "Default 30000000.",
    ] {
        assert!(help.contains(part), "{part} is missing in\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120));
}
