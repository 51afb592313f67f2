use std::{io::Write, path::PathBuf};

use prometheus::Registry;

use super::*;
use crate::RateStrategy;

/// Overrides over a file that the test writes.
struct Scene {
    _directory: tempfile::TempDir,
    file: PathBuf,
    registry: Registry,
    overrides: Overrides,
    service: Service,
}

async fn build(name: &str, content: &[u8], config: Config) -> Result<Scene, Error> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::write(&file, content).unwrap();
    let registry = Registry::new();
    let config = Config {
        runtime_file: file.to_str().unwrap().to_owned(),
        ..config
    };
    let (overrides, service) = Overrides::build(config, &registry).await?;
    Ok(Scene {
        _directory: directory,
        file,
        registry,
        overrides,
        service,
    })
}

async fn scene(content: &str) -> Scene {
    build("overrides.yaml", content.as_bytes(), Config::default())
        .await
        .unwrap()
}

impl Scene {
    fn write(&self, content: &str) {
        std::fs::write(&self.file, content).unwrap();
    }

    fn rate(&self, tenant: &str) -> u64 {
        self.overrides.tenant(tenant).ingestion_rate_limit_bytes()
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let found = family.get_metric().iter().find(|metric| {
            labels.iter().all(|(name, value)| {
                let mut all = metric.get_label().iter();
                all.any(|label| label.name() == *name && label.value() == *value)
            })
        })?;
        Some(found.get_gauge().get_value())
    }

    fn reloaded(&self) -> Option<f64> {
        self.metric("tempo_runtime_config_last_reload_successful", &[])
    }
}

#[tokio::test]
async fn an_entry_counts_as_a_whole_then_the_wildcard_then_the_defaults() {
    let scene = scene(
        "overrides:\n  user1: {ingestion: {rate_limit_bytes: 1}}\n  \"*\": {read: {max_search_duration: 16s}}\n",
    )
    .await;
    let user1 = scene.overrides.tenant("user1");
    assert_eq!(user1.source(), LimitsSource::Tenant);
    assert_eq!(user1.ingestion_rate_limit_bytes(), 1);
    assert_eq!(user1.ingestion_burst_size_bytes(), 0);
    assert_eq!(user1.max_search_duration(), None);
    assert_eq!(user1.max_bytes_per_trace(), None);
    let user2 = scene.overrides.tenant("user2");
    assert_eq!(user2.source(), LimitsSource::Wildcard);
    assert_eq!(user2.max_search_duration(), Some(Duration::from_secs(16)));
    assert_eq!(user2.ingestion_rate_limit_bytes(), 0);

    let fixed = Overrides::fixed(TenantOverrides::tempo_defaults()).tenant("user1");
    assert_eq!(fixed.source(), LimitsSource::Defaults);
    assert_eq!(fixed.ingestion_rate_limit_bytes(), 30_000_000);
    assert_eq!(fixed.max_traces_per_user(), Some(10_000));
    assert_eq!(fixed.max_bytes_per_trace(), Some(5_000_000));
}

#[tokio::test]
async fn some_fields_of_an_entry_fall_back_to_the_defaults() {
    let mut defaults = TenantOverrides::tempo_defaults();
    defaults.ingestion.rate_strategy = RateStrategy::Global;
    defaults.ingestion.retry_info_enabled = Some(false);
    defaults.read.engine_bytes_tracking = Some(true);
    let config = Config {
        defaults,
        ..Config::default()
    };
    let yaml = "
        overrides:
          bare: {}
          own:
            ingestion: {rate_strategy: local, retry_info_enabled: true}
            read: {engine_bytes_tracking: false, max_condition_groups_per_tag_query: 5}
            metrics_generator: {native_histogram_bucket_factor: 2, native_histogram_max_bucket_number: 3, native_histogram_min_reset_duration: 4s}
        ";
    let scene = build("o.yaml", yaml.as_bytes(), config).await.unwrap();
    let bare = scene.overrides.tenant("bare");
    assert!(!bare.ingestion_retry_info_enabled());
    assert_eq!(bare.engine_bytes_tracking(), Some(true));
    assert_eq!(bare.native_histogram_bucket_factor(), 1.1);
    assert_eq!(bare.native_histogram_max_bucket_number(), 100);
    let quarter = Duration::from_secs(900);
    assert_eq!(bare.native_histogram_min_reset_duration(), quarter);
    let own = scene.overrides.tenant("own");
    assert!(own.ingestion_retry_info_enabled());
    assert_eq!(own.engine_bytes_tracking(), Some(false));
    assert_eq!(own.native_histogram_bucket_factor(), 2.0);
    assert_eq!(own.native_histogram_max_bucket_number(), 3);
    let four = Duration::from_secs(4);
    assert_eq!(own.native_histogram_min_reset_duration(), four);
    // Of the defaults alone, whatever the entry says.
    assert_eq!(own.ingestion_rate_strategy(), RateStrategy::Global);
    assert_eq!(own.max_condition_groups_per_tag_query(), 100);
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_one() {
    let mut scene = scene("overrides: {t: {ingestion: {rate_limit_bytes: 1}}}").await;
    assert_eq!(scene.reloaded(), Some(1.0));
    for bad in ["overrides: {t: {unknown: 1}}", "{"] {
        scene.write(bad);
        assert!(scene.service.reload().await.is_err());
        assert_eq!((scene.rate("t"), scene.reloaded()), (1, Some(0.0)));
    }
    scene.write("overrides: {t: {ingestion: {rate_limit_bytes: 2}}}");
    scene.service.reload().await.unwrap();
    assert_eq!((scene.rate("t"), scene.reloaded()), (2, Some(1.0)));

    std::fs::remove_file(&scene.file).unwrap();
    assert!(scene.service.reload().await.is_err());
    assert_eq!((scene.rate("t"), scene.reloaded()), (2, Some(0.0)));
    // The same content comes back.
    scene.write("overrides: {t: {ingestion: {rate_limit_bytes: 2}}}");
    scene.service.reload().await.unwrap();
    assert_eq!(scene.reloaded(), Some(1.0));
}

#[tokio::test]
async fn a_bad_file_at_start_is_an_error() {
    let bad = build("o.yaml", b"overrides: {t: {x: 1}}", Config::default()).await;
    assert!(
        matches!(bad.err(), Some(Error::File { problem, .. }) if problem.starts_with("line 1, column 17: overrides.t.x: unknown key"))
    );
    for missing in ["/absent/overrides.yaml", "https://conf/overrides.yaml"] {
        let config = Config {
            runtime_file: missing.to_owned(),
            ..Config::default()
        };
        let error = Overrides::build(config, &Registry::new()).await.err();
        assert!(matches!(error, Some(Error::File { .. })), "{missing}");
    }
}

#[tokio::test]
async fn a_packed_file_is_unpacked() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed
        .write_all(b"overrides: {t: {ingestion: {rate_limit_bytes: 1}}}")
        .unwrap();
    let content = packed.finish().unwrap();
    let scene = build("o.yaml.gz", &content, Config::default())
        .await
        .unwrap();
    assert_eq!(scene.rate("t"), 1);
    let broken = build("o.yaml.gz", b"overrides: {}", Config::default()).await;
    assert!(matches!(broken.err(), Some(Error::File { .. })));
}

#[tokio::test]
async fn text_is_expanded_and_limits_are_checked_as_configured() {
    let config = Config {
        expand: Some(Arc::new(|text| Ok(text.replace("${RATE}", "5")))),
        check: Some(Arc::new(|entry| {
            let unknown = entry.forwarders.iter();
            let problem = |name| format!("'{name}' does not exist");
            unknown
                .map(|name| ("forwarders".to_owned(), problem(name)))
                .collect()
        })),
        ..Config::default()
    };
    let content = b"overrides: {t: {ingestion: {rate_limit_bytes: ${RATE}}}}";
    let mut scene = build("o.yaml", content, config).await.unwrap();
    assert_eq!(scene.rate("t"), 5);
    scene.write("overrides: {t: {forwarders: [f]}}");
    let error = scene.service.reload().await.unwrap_err().to_string();
    let place = "line 1, column 29: overrides.t.forwarders: 'f' does not exist";
    assert!(error.ends_with(place), "{error}");
}

#[tokio::test]
async fn limits_are_shown_in_metrics() {
    let yaml = "
        overrides:
          t:
            ingestion: {rate_limit_bytes: 7}
            compaction: {block_retention: 1h}
            metrics_generator: {disable_collection: true}
        ";
    let mut scene = scene(yaml).await;
    let defaults = |name| scene.metric("tempo_limits_defaults", &[("limit_name", name)]);
    assert_eq!(defaults("max_local_traces_per_user"), Some(10_000.0));
    assert_eq!(
        defaults("max_bytes_per_tag_values_query"),
        Some(1_000_000.0)
    );
    let of = |scene: &Scene, name: &str| {
        let labels = [("limit_name", name), ("user", "t")];
        scene.metric("tempo_limits_overrides", &labels)
    };
    assert_eq!(of(&scene, "ingestion_rate_limit_bytes"), Some(7.0));
    assert_eq!(of(&scene, "block_retention"), Some(3600e9));
    assert_eq!(of(&scene, "metrics_generator_dry_run_enabled"), Some(1.0));
    assert_eq!(of(&scene, "max_bytes_per_tag_values_query"), None);
    scene.write("overrides: {}");
    scene.service.reload().await.unwrap();
    assert_eq!(of(&scene, "ingestion_rate_limit_bytes"), None);
}

#[tokio::test]
async fn the_file_is_reloaded_while_it_runs() {
    let config = Config {
        reload_period: Duration::from_millis(1),
        ..Config::default()
    };
    let content = b"overrides: {t: {ingestion: {rate_limit_bytes: 1}}}";
    let Scene {
        _directory,
        file,
        overrides,
        service,
        ..
    } = build("o.yaml", content, config).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(service.run(shutdown.clone()));
    std::fs::write(&file, "overrides: {t: {ingestion: {rate_limit_bytes: 2}}}").unwrap();
    while overrides.tenant("t").ingestion_rate_limit_bytes() != 2 {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn status_pages_show_what_counts() {
    let scene = scene("overrides: {\"<t>\": {ingestion: {rate_limit_bytes: 7}}}").await;
    let page = scene.overrides.tenants_page("now".to_owned());
    assert_eq!(
        serde_json::to_string(&page).unwrap(),
        r#"{"now":"now","tenants":[{"name":"<t>","has_runtime_overrides":true,"has_user_configurable_overrides":false}]}"#
    );
    let html = page.to_html();
    assert!(
        html.contains("&lt;t&gt;") && !html.contains("<t>"),
        "{html}"
    );

    let own = scene.overrides.tenant_page("<t>", "now".to_owned());
    assert_eq!(
        own.runtime_overrides,
        "ingestion:\n    rate_limit_bytes: 7\n"
    );
    assert_eq!(own.using_default_or_wildcard_runtime_overrides, "<t>");
    assert!(own.to_html().contains("rate_limit_bytes: 7"));
    let nobody = scene.overrides.tenant_page("nobody", "now".to_owned());
    assert_eq!(
        nobody.using_default_or_wildcard_runtime_overrides,
        "default overrides"
    );
    assert!(
        nobody
            .runtime_overrides
            .contains("rate_limit_bytes: 30000000")
    );
    assert_eq!(
        scene.overrides.runtime_yaml(),
        "overrides:\n    \"<t>\":\n        ingestion:\n            rate_limit_bytes: 7\n"
    );
}
