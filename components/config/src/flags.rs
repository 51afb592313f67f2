//! The command line, as Go's flag package reads it.
//!
//! `-flag`, `--flag`, `-flag=value` and `-flag value` mean the same; a flag that is on or off
//! takes a value only behind `=`. Tempo's flags have names of their own or follow the YAML: the
//! flag `-live-store.max-trace-idle` is the key `live_store.max_trace_idle`.

use std::fmt::Write;

use crate::blocks::root::RawConfig;
use crate::document::{Content, Entry, Mark, Node};
use crate::nearest::nearest;
use crate::units::merge_flag_list;
use crate::value::{Block, Value};

/// The address that `-health` asks when none is given.
pub const DEFAULT_HEALTH_URL: &str = "http://localhost:3200/ready";

/// Flags with a name of their own: group, flag, key, what it does.
const NAMED: &[(&str, &str, &str, &str)] = &[
    (
        "Components",
        "target",
        "target",
        "Which components this process runs.",
    ),
    (
        "Server",
        "server.http-listen-port",
        "server.http_listen_port",
        "Port of the HTTP listener.",
    ),
    (
        "Server",
        "server.grpc-listen-port",
        "server.grpc_listen_port",
        "Port of the gRPC listener.",
    ),
    (
        "Server",
        "http-api-prefix",
        "http_api_prefix",
        "Prefix of the paths of the HTTP API.",
    ),
    (
        "Server",
        "multitenancy.enabled",
        "multitenancy_enabled",
        "Take the tenant of every request from X-Scope-OrgID.",
    ),
    (
        "Server",
        "auth.enabled",
        "auth_enabled",
        "Deprecated for -multitenancy.enabled.",
    ),
    (
        "Server",
        "shutdown-delay",
        "shutdown_delay",
        "How long to go on serving, but not ready, before stopping.",
    ),
    (
        "Server",
        "log.level",
        "server.log_level",
        "Least important lines that are logged: debug, info, warn, error.",
    ),
    (
        "Storage",
        "storage.trace.backend",
        "storage.trace.backend",
        "Kind of object store: local, s3, gcs, azure.",
    ),
    (
        "Storage",
        "storage.trace.local.path",
        "storage.trace.local.path",
        "Folder of the blocks, for the local store.",
    ),
    (
        "Storage",
        "storage.trace.s3.bucket",
        "storage.trace.s3.bucket",
        "Bucket, for S3.",
    ),
    (
        "Storage",
        "storage.trace.s3.endpoint",
        "storage.trace.s3.endpoint",
        "Host and port, for S3.",
    ),
    (
        "Limits",
        "config.per-user-override-config",
        "overrides.per_tenant_override_config",
        "File with limits of tenants.",
    ),
    (
        "Limits",
        "config.per-user-override-period",
        "overrides.per_tenant_override_period",
        "Time between looks for changes of that file.",
    ),
    (
        "Limits",
        "config.enable-legacy-overrides",
        "overrides.enable_legacy_overrides",
        "Accept the flat form of overrides.",
    ),
    (
        "Limits",
        "distributor.rate-limit-strategy",
        "overrides.defaults.ingestion.rate_strategy",
        "How the rate of a tenant is shared: local, global.",
    ),
    (
        "Limits",
        "distributor.ingestion-rate-limit-bytes",
        "overrides.defaults.ingestion.rate_limit_bytes",
        "Bytes per second and tenant.",
    ),
    (
        "Limits",
        "distributor.ingestion-burst-size-bytes",
        "overrides.defaults.ingestion.burst_size_bytes",
        "Bytes at once and tenant.",
    ),
    (
        "Limits",
        "ingester.max-traces-per-user",
        "overrides.defaults.ingestion.max_traces_per_user",
        "Live traces per tenant.",
    ),
    (
        "Limits",
        "ingester.max-global-traces-per-user",
        "overrides.defaults.ingestion.max_global_traces_per_user",
        "Not enforced.",
    ),
    (
        "Limits",
        "ingester.max-bytes-per-trace",
        "overrides.defaults.global.max_bytes_per_trace",
        "Size of a trace.",
    ),
    (
        "Limits",
        "querier.max-bytes-per-tag-values-query",
        "overrides.defaults.read.max_bytes_per_tag_values_query",
        "Bytes of tag values in an answer.",
    ),
    (
        "Limits",
        "querier.max-blocks-per-tag-values-query",
        "overrides.defaults.read.max_blocks_per_tag_values_query",
        "Not enforced.",
    ),
    (
        "Limits",
        "querier.max-condition-groups-per-tag-query",
        "overrides.defaults.read.max_condition_groups_per_tag_query",
        "Alternatives in a query for tags.",
    ),
    (
        "Limits",
        "metrics-generator.native-histogram-bucket-factor",
        "overrides.defaults.metrics_generator.native_histogram_bucket_factor",
        "Growth of buckets.",
    ),
    (
        "Limits",
        "metrics-generator.native-histogram-max-bucket-number",
        "overrides.defaults.metrics_generator.native_histogram_max_bucket_number",
        "Number of buckets.",
    ),
    (
        "Limits",
        "metrics-generator.native-histogram-min-reset-duration",
        "overrides.defaults.metrics_generator.native_histogram_min_reset_duration",
        "Time between resets.",
    ),
    (
        "Finding faults",
        "distributor.log-received-spans.enabled",
        "distributor.log_received_spans.enabled",
        "Log received spans.",
    ),
    (
        "Finding faults",
        "distributor.log-received-spans.include-attributes",
        "distributor.log_received_spans.include_all_attributes",
        "Log their attributes, too.",
    ),
    (
        "Finding faults",
        "distributor.log-received-spans.filter-by-status-error",
        "distributor.log_received_spans.filter_by_status_error",
        "Log only spans with an error.",
    ),
    (
        "Cluster",
        "memberlist.host-port",
        "memberlist.join_members",
        "Member to begin with; may be repeated.",
    ),
    (
        "Cluster",
        "memberlist.bind-port",
        "memberlist.bind_port",
        "Port of the gossip.",
    ),
    (
        "Cluster",
        "memberlist.message-history-buffer-bytes",
        "memberlist.message_history_buffer_bytes",
        "Messages to remember.",
    ),
    (
        "Cluster",
        "live-store.instance-availability-zone",
        "live_store.ring.instance_zone",
        "Availability zone of a live-store.",
    ),
    (
        "Cluster",
        "block-builder.max-bytes-per-cycle",
        "block_builder.max_consuming_bytes",
        "Bytes of a round of the block-builder.",
    ),
    (
        "Cluster",
        "generator.instance-id",
        "metrics_generator.instance_id",
        "Name of a metrics-generator.",
    ),
    (
        "Cluster",
        "generator.leave-consumer-group-on-shutdown",
        "metrics_generator.leave_consumer_group_on_shutdown",
        "Leave the consumer group at the end.",
    ),
    (
        "Cluster",
        "generator.skip-stale-backlog-on-startup",
        "metrics_generator.skip_stale_backlog_on_startup",
        "Begin with new records.",
    ),
    (
        "Cluster",
        "generatorstore",
        "metrics_generator.ring.kvstore.store",
        "Store of the ring; the dot is missing in Tempo, too.",
    ),
    (
        "Cluster",
        "live-storestore",
        "live_store.ring.kvstore.store",
        "Store of the ring; the dot is missing in Tempo, too.",
    ),
    (
        "Other",
        "query-frontend.mcp-server.enabled",
        "query_frontend.mcp_server.enabled",
        "A server for language models.",
    ),
    (
        "Other",
        "reporting.enabled",
        "usage_report.reporting_enabled",
        "Has no effect; reports are never sent.",
    ),
    (
        "Other",
        "enable-go-runtime-metrics",
        "enable_go_runtime_metrics",
        "Has no effect.",
    ),
    (
        "Other",
        "span-profiling",
        "span_profiling",
        "Has no effect.",
    ),
];

/// Beginnings of flags that follow the YAML, and the beginnings of the keys.
const FAMILIES: &[(&str, &str)] = &[
    ("storage.trace.", "storage.trace."),
    ("live-store.", "live_store."),
    ("distributor.", "distributor."),
    ("querier.", "querier."),
    ("query-frontend.", "query_frontend."),
    ("ingest.", "ingest.kafka."),
    ("block-builder.", "block_builder."),
    ("backend-scheduler.", "backend_scheduler."),
    ("backend-worker.", "backend_worker."),
    ("generator.", "metrics_generator."),
    ("memberlist.", "memberlist."),
    ("server.", "server."),
];

/// Flags of Tempo that are taken and mean nothing here.
const WITHOUT_EFFECT: &[&str] = &["mutex-profile-fraction", "block-profile-threshold"];

/// Flags that are no settings: name, whether a value follows, what it does.
const ACTIONS: &[(&str, bool, &str)] = &[
    ("config.file", true, "File with the configuration (YAML)."),
    (
        "config.expand-env",
        false,
        "Replace ${VAR} in the configuration by variables of the environment.",
    ),
    (
        "config.verify",
        false,
        "Check the configuration and stop; fails on warnings, too.",
    ),
    ("version", false, "Print the version and stop."),
    (
        "health",
        false,
        "Ask a running process whether it is ready and stop.",
    ),
    ("health.url", true, "Address to ask."),
    ("help", false, "Print this text and stop."),
    ("h", false, "The same."),
];

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandLine {
    /// What to do.
    pub action: Action,
    /// The file to read.
    pub config_file: Option<String>,
    /// Whether `${VAR}` in the file is replaced.
    pub expand_env: bool,
    /// Settings: flag, key, values in the order given.
    settings: Vec<(String, String, Vec<String>)>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Action {
    /// Run the components.
    #[default]
    Run,
    /// Check the configuration; exit code 1 for errors and warnings.
    Verify,
    /// Print the version.
    Version,
    /// Print [`help`].
    Help,
    /// Ask whether the process at this address is ready; exit code 1 if not.
    Health {
        /// The address.
        url: String,
    },
}

/// The command line is wrong: exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; see -help")]
pub struct CommandLineError(String);

impl CommandLine {
    /// Reads the arguments behind the program's name.
    pub fn parse<S: AsRef<str>>(
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self, CommandLineError> {
        let schema = RawConfig::default();
        let mut line = Self::default();
        let mut health_url = DEFAULT_HEALTH_URL.to_owned();
        let mut health = false;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.as_ref();
            let Some(flag) = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'))
                .filter(|flag| !flag.is_empty() && !flag.starts_with(['-', '=']))
            else {
                return Err(CommandLineError(format!(
                    "unexpected argument {argument:?}; settings begin with a dash"
                )));
            };
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let known = Known::find(name, &schema).ok_or_else(|| unknown_flag(name, &schema))?;
            let value = match given {
                Some(value) => value,
                None if known.is_switch() => "true".to_owned(),
                None => match arguments.next() {
                    Some(value) => value.as_ref().to_owned(),
                    None => {
                        return Err(CommandLineError(format!("flag -{name} needs a value")));
                    }
                },
            };
            match known {
                Known::Setting { path, .. } => line.add_setting(name, path, value),
                Known::WithoutEffect => {}
                Known::Action { .. } => match name {
                    "config.file" => line.config_file = Some(value).filter(|v| !v.is_empty()),
                    "config.expand-env" => line.expand_env = switch(name, &value)?,
                    "config.verify" => line.choose(Action::Verify, switch(name, &value)?),
                    "version" => line.choose(Action::Version, switch(name, &value)?),
                    "help" | "h" => line.choose(Action::Help, switch(name, &value)?),
                    "health.url" => health_url = value,
                    _ => health = switch(name, &value)?,
                },
            }
        }
        if health && line.action == Action::Run {
            line.action = Action::Health { url: health_url };
        }
        Ok(line)
    }

    /// The first action given counts, help above all.
    fn choose(&mut self, action: Action, chosen: bool) {
        if chosen && (self.action == Action::Run || action == Action::Help) {
            self.action = action;
        }
    }

    fn add_setting(&mut self, flag: &str, path: String, value: String) {
        match self
            .settings
            .iter_mut()
            .find(|(_, known, _)| *known == path)
        {
            Some((_, _, values)) => values.push(value),
            None => self.settings.push((flag.to_owned(), path, vec![value])),
        }
    }

    /// Whether a flag switches the key on.
    pub(crate) fn sets(&self, path: &str) -> bool {
        self.settings.iter().any(|(_, known, values)| {
            known == path && values.last().is_some_and(|value| value == "true")
        })
    }

    /// The settings as documents: flag and tree.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, Node)> {
        let schema = RawConfig::default();
        self.settings.iter().map(move |(flag, path, values)| {
            let is_list =
                find(&schema, path).is_some_and(|(value, _)| value.type_name().starts_with("list"));
            let content = if is_list {
                merge_flag_list(values)
            } else {
                // As in Go, the last one counts.
                Content::plain(values.last().map_or("", String::as_str))
            };
            (flag.as_str(), nested(path, content))
        })
    }
}

/// What is known under the name of a flag.
enum Known {
    Setting { path: String, is_switch: bool },
    Action { takes_value: bool },
    WithoutEffect,
}

impl Known {
    fn find(name: &str, schema: &RawConfig) -> Option<Self> {
        if let Some((_, takes_value, _)) = ACTIONS.iter().find(|(known, ..)| *known == name) {
            return Some(Self::Action {
                takes_value: *takes_value,
            });
        }
        if WITHOUT_EFFECT.contains(&name) {
            return Some(Self::WithoutEffect);
        }
        let path = match NAMED.iter().find(|(_, known, ..)| *known == name) {
            Some((_, _, path, _)) => (*path).to_owned(),
            None => FAMILIES.iter().find_map(|(flags, keys)| {
                let rest = name.strip_prefix(flags)?;
                Some(format!("{keys}{}", rest.replace('-', "_")))
            })?,
        };
        let (value, _) = find(schema, &path)?;
        if value.block().is_some() {
            return None;
        }
        Some(Self::Setting {
            is_switch: value.type_name() == "true or false",
            path,
        })
    }

    fn is_switch(&self) -> bool {
        match self {
            Self::Setting { is_switch, .. } => *is_switch,
            Self::Action { takes_value } => !takes_value,
            Self::WithoutEffect => false,
        }
    }
}

fn switch(name: &str, value: &str) -> Result<bool, CommandLineError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(CommandLineError(format!(
            "flag -{name}: expected true or false, found {other:?}"
        ))),
    }
}

fn unknown_flag(name: &str, schema: &RawConfig) -> CommandLineError {
    let all = all_flags(schema);
    let hint = nearest(name, all.iter().map(String::as_str))
        .map_or(String::new(), |near| format!("; did you mean -{near}?"));
    CommandLineError(format!("unknown flag -{name}{hint}"))
}

/// Every flag there is.
fn all_flags(schema: &RawConfig) -> Vec<String> {
    let mut flags: Vec<String> = ACTIONS
        .iter()
        .map(|(name, ..)| *name)
        .chain(NAMED.iter().map(|(_, name, ..)| *name))
        .chain(WITHOUT_EFFECT.iter().copied())
        .map(str::to_owned)
        .collect();
    for (family, keys) in FAMILIES {
        if let Some((value, _)) = find(schema, keys.trim_end_matches('.'))
            && let Some(block) = value.block()
        {
            collect(block, family, &mut flags);
        }
    }
    flags
}

fn collect(block: &dyn Block, prefix: &str, flags: &mut Vec<String>) {
    for field in block.fields() {
        let name = format!("{prefix}{}", field.key.replace('_', "-"));
        match field.value.block() {
            Some(inner) => collect(inner, &format!("{name}."), flags),
            None => flags.push(name),
        }
    }
}

/// The value under a key, and what it means.
fn find<'a>(root: &'a dyn Block, path: &str) -> Option<(&'a dyn Value, &'static [&'static str])> {
    let (key, rest) = match path.split_once('.') {
        Some((key, rest)) => (key, Some(rest)),
        None => (path, None),
    };
    let field = root.fields().into_iter().find(|field| field.key == key)?;
    match rest {
        None => Some((field.value, field.meaning)),
        Some(rest) => find(field.value.block()?, rest),
    }
}

/// The tree with one value under a key.
fn nested(path: &str, content: Content) -> Node {
    let mark = Mark::default();
    path.rsplit('.')
        .fold(Node { content, mark }, |value, key| Node {
            content: Content::Map(vec![Entry {
                key: key.to_owned(),
                mark,
                value,
            }]),
            mark,
        })
}

/// What `-help` prints: the flags by group, with their defaults.
pub fn help() -> String {
    let schema = RawConfig::default();
    let mut text = String::from(
        "tempo receives traces over OTLP, keeps them in an object store and answers queries.\n\
         \n\
         Try it without any configuration:\n\
         \n\
         \x20 tempo -storage.trace.backend=local -storage.trace.local.path=/tmp/tempo/blocks \\\n\
         \x20       -live-store.wal.path=/tmp/tempo/wal\n\
         \n\
         Usually a file says what to do, and flags say it better: built-in defaults, then the\n\
         file, then flags. Flags are written -flag=value or -flag value, with one dash or two.\n",
    );
    let _ = writeln!(text, "\nGeneral");
    for (name, takes_value, meaning) in ACTIONS.iter().filter(|(name, ..)| *name != "h") {
        let value = if *takes_value { " <value>" } else { "" };
        let default = match *name {
            "health.url" => format!(" Default {DEFAULT_HEALTH_URL}."),
            _ => String::new(),
        };
        let _ = writeln!(text, "  -{name}{value}\n        {meaning}{default}");
    }
    let mut group = "";
    for (flag_group, name, path, meaning) in NAMED {
        if *flag_group != group {
            group = flag_group;
            let _ = writeln!(text, "\n{group}");
        }
        let Some((value, _)) = find(&schema, path) else {
            continue;
        };
        let kind = match value.type_name() {
            kind if kind == "true or false" => String::new(),
            kind if kind.starts_with("one of") => " <name>".to_owned(),
            kind => format!(" <{kind}>"),
        };
        let default = match value.render().inline() {
            default if default.is_empty() || default == "\"\"" || default == "[]" => String::new(),
            default => format!(" Default {default}."),
        };
        let _ = writeln!(text, "  -{name}{kind}\n        {meaning}{default}");
    }
    let _ = writeln!(text, "\nSettings of the file as flags");
    for (flags, keys) in FAMILIES {
        let _ = writeln!(
            text,
            "  -{flags}<key>  {}<key>, with dashes for underscores",
            keys
        );
    }
    text.push_str(
        "\nAll settings with their defaults are in docs/reference/configuration.md; the effective\n\
         ones are served at /status/config.\n",
    );
    text
}
