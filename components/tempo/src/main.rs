//! `tempo`: every component in one binary; `-target` chooses.
//!
//! Owns the command line, the wiring of components, and the endpoints that belong to none of them.
//! Exit codes: 0 in order, 1 for a failure or a configuration that cannot be used, 2 for a wrong
//! command line.

mod admin;
mod allocations;
mod cli;
mod connect;
mod connect_backend_work;
mod connect_kafka;
mod connect_ring;
mod downscale;
mod grpc_health;
mod health_client;
mod limits;
mod process;
mod ring_page;
mod settings;
mod targets;
mod version;

use std::{fs, io::Write, process::ExitCode};

use tempo_config::{Action, CommandLine, Config, RenderMode, blocks::server::LogFormat, expand};
use tempo_runtime::{logging, own_traces::OwnTraces};

const FAILURE: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(outcome) = cli::run(&arguments) {
        return outcome;
    }
    let line = match CommandLine::parse(&arguments) {
        Ok(line) => line,
        Err(error) => return fail(USAGE, &error),
    };
    match &line.action {
        Action::Help => {
            print(&tempo_config::help());
            ExitCode::SUCCESS
        }
        Action::Version => {
            print(&version::text());
            ExitCode::SUCCESS
        }
        Action::Health { url } => match health_client::check(url) {
            Ok(()) => ExitCode::SUCCESS,
            Err(reason) => fail(FAILURE, &reason),
        },
        Action::Verify => verify(&line),
        Action::Run => run(&line),
    }
}

/// Whoever reads may have heard enough (`tempo --help | head`); that is no failure.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn fail(code: u8, reason: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("tempo: {reason}");
    ExitCode::from(code)
}

fn load(line: &CommandLine) -> Result<Config, String> {
    let text = match &line.config_file {
        Some(path) => Some(
            fs::read_to_string(path)
                .map_err(|error| format!("failed to read configuration file {path}: {error}"))?,
        ),
        None => None,
    };
    let variable = |name: &str| std::env::var(name).ok();
    Config::load(text.as_deref(), line, &variable).map_err(|error| {
        let file = line.config_file.as_deref().unwrap_or("command line");
        format!("failed parsing config: {file}: {error}")
    })
}

/// What a start would refuse or warn of, without starting.
fn verify(line: &CommandLine) -> ExitCode {
    let config = match load(line) {
        Ok(config) => config,
        Err(reason) => return fail(FAILURE, &reason),
    };
    if let Err(reason) = resolve(&config, line) {
        return fail(FAILURE, &reason);
    }
    let warnings = config.warnings();
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    if warnings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILURE)
    }
}

/// The settings that the components would get.
fn resolve(
    config: &Config,
    line: &CommandLine,
) -> Result<tempo_overrides::Config, settings::UnusableSetting> {
    targets::check(config)?;
    settings::server::http(config)?;
    settings::server::grpc(config)?;
    // Those keep no blocks, and need not be told where.
    if !matches!(
        config.target,
        tempo_config::Target::Distributor | tempo_config::Target::OverridesApi
    ) {
        settings::backend(config)?;
    }
    settings::distributor(config)?;
    settings::live_store(config)?;
    settings::user_overrides_backend(config)?;
    settings::overrides(config, line.expand_env)
}

fn run(line: &CommandLine) -> ExitCode {
    let config = match load(line) {
        Ok(config) => config,
        Err(reason) => return fail(FAILURE, &reason),
    };
    let overrides = match resolve(&config, line) {
        Ok(overrides) => overrides,
        Err(reason) => return fail(FAILURE, &reason),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tempo")
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILURE, &format!("cannot start threads: {error}")),
    };
    let outcome = runtime.block_on(start(config, overrides));
    // What still blocks a thread is abandoned: everything acknowledged is on disk.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(FAILURE, &reason),
    }
}

async fn start(config: Config, overrides: tempo_overrides::Config) -> Result<(), String> {
    let own_traces = OwnTraces::from_env(config.target.name(), version::VERSION)
        .map_err(|error| error.to_string())?;
    let format = match config.server.log_format {
        LogFormat::Logfmt => logging::LogFormat::Logfmt,
        LogFormat::Json => logging::LogFormat::Json,
    };
    let tracer = own_traces.as_ref().map(OwnTraces::tracer);
    logging::init(format, settings::log_level(&config), tracer)
        .map_err(|error| format!("cannot log: {error}"))?;
    for warning in config.warnings() {
        tracing::warn!(explain = warning.explain, "{}", warning.message);
    }
    let without_effect = config.ineffective_keys();
    if !without_effect.is_empty() {
        tracing::warn!(
            keys = without_effect.join(", "),
            "settings without effect in this version"
        );
    }
    if config.distributor.receivers.kafka.is_some() {
        tracing::error!(
            "the receiver distributor.receivers.kafka is not built, and nothing is read from that \
             topic; let a collector send OTLP instead"
        );
    }
    let pages = admin::ConfigPages {
        current: config.render(RenderMode::Effective),
        diff: config.render(RenderMode::Diff),
        defaults: config.render(RenderMode::Defaults),
    };
    process::run(config, pages, overrides, own_traces)
        .await
        .map_err(|error| error.to_string())
}

/// `${VAR}` in the runtime file, with the rules of the configuration.
pub(crate) fn expand_from_environment(text: &str) -> Result<String, String> {
    expand(text, &|name| std::env::var(name).ok()).map_err(|error| error.to_string())
}
