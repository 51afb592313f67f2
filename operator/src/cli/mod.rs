//! The command line.

mod convert;
mod diff;
mod explain;
mod show;

use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use clap::{Args, Parser, Subcommand};
use tempo_operator::api::{TempoStack, check, crd};
use tempo_operator::controller;
use tempo_operator::manifests::{self, Capabilities, Context, Defaults};
use tempo_operator::references;
use tempo_operator::topology::{Names, Topology};
use tokio_util::sync::CancellationToken;

/// Runs tracing backends on Kubernetes from TempoStack resources.
///
/// In a cluster it runs as `tempo-operator run`. The other commands help people, and all but
/// `diff`, `status` and `run` need no cluster:
///
///   tempo-operator crd | kubectl apply --server-side -f -
///   tempo-operator check stack.yaml
///   tempo-operator render stack.yaml | less
///   tempo-operator explain spec.kafka.topic
///
/// Installed as kubectl-tempostack, it is `kubectl tempostack …`.
#[derive(Debug, Parser)]
#[command(version, about, long_about, verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look after stacks; what the operator's Deployment runs.
    Run(Box<Run>),
    /// Print the definition of TempoStack (CRD).
    Crd,
    /// Check a file as the API server would, and its configuration as Tempo would.
    ///
    /// Exit code 1 when something is wrong; each line names the field and the remedy.
    Check(File),
    /// Print what would be applied for a file, as YAML.
    Render(Render),
    /// Say what a field means, or where the values of a file come from.
    ///
    /// With a path, such as spec.kafka.topic, its meaning, default and rules. With -f, what is
    /// filled in where the file says nothing, and why.
    Explain(Explain),
    /// Show what would change in the cluster if a file were applied.
    ///
    /// Asks the API server for a dry run of every object. Exit code 1 when something differs.
    Diff(Render),
    /// Show how a stack of the cluster is: phase, conditions, what goes on and what to do.
    Status(Status),
    /// Turn resources of grafana/tempo-operator into a TempoStack of ours.
    ///
    /// Reads its TempoStack (tempo.grafana.com/v1alpha1) or TempoMonolithic; what has no
    /// counterpart is told on standard error.
    Convert(File),
}

/// A file.
#[derive(Debug, Args)]
struct File {
    /// The file; - is standard input.
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Render {
    #[command(flatten)]
    file: File,
    /// Namespace where the file names none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Leave out kinds that a bare cluster lacks: ServiceMonitor, HTTPRoute and the like.
    #[arg(long)]
    bare: bool,
    #[command(flatten)]
    images: Images,
}

#[derive(Debug, Args)]
struct Images {
    /// Image of Tempo where the stack names none, without tag.
    #[arg(long, env = "TEMPO_IMAGE_REPOSITORY", default_value_t = Defaults::default().image_repository)]
    tempo_image: String,
    /// Its tag.
    #[arg(long, env = "TEMPO_IMAGE_TAG", default_value_t = Defaults::default().image_tag)]
    tempo_tag: String,
    /// Image of nginx, for gateways.
    #[arg(long, env = "GATEWAY_IMAGE", default_value_t = Defaults::default().gateway_image)]
    gateway_image: String,
    /// Image of oauth2-proxy, for gateways with OpenID Connect.
    #[arg(long, env = "OIDC_PROXY_IMAGE", default_value_t = Defaults::default().oidc_proxy_image)]
    oidc_proxy_image: String,
    /// Image of memcached.
    #[arg(long, env = "MEMCACHED_IMAGE", default_value_t = Defaults::default().memcached_image)]
    memcached_image: String,
}

impl Default for Images {
    fn default() -> Self {
        let defaults = Defaults::default();
        Self {
            tempo_image: defaults.image_repository,
            tempo_tag: defaults.image_tag,
            gateway_image: defaults.gateway_image,
            oidc_proxy_image: defaults.oidc_proxy_image,
            memcached_image: defaults.memcached_image,
        }
    }
}

impl Images {
    fn defaults(&self) -> Defaults {
        Defaults {
            image_repository: self.tempo_image.clone(),
            image_tag: self.tempo_tag.clone(),
            gateway_image: self.gateway_image.clone(),
            oidc_proxy_image: self.oidc_proxy_image.clone(),
            memcached_image: self.memcached_image.clone(),
        }
    }
}

#[derive(Debug, Args)]
struct Run {
    /// Look only after stacks of this namespace; empty means all.
    #[arg(long, env = "WATCH_NAMESPACE", default_value = "")]
    watch_namespace: String,
    /// Namespace of the lease by which one of several operators works.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the lease.
    #[arg(long, env = "LEASE_NAME", default_value = "tempo-operator")]
    lease_name: String,
    /// Work without a lease: there is one operator.
    #[arg(long, env = "NO_LEADER_ELECTION")]
    no_leader_election: bool,
    /// Name of this process.
    #[arg(long, env = "POD_NAME", default_value_t = format!("tempo-operator-{}", std::process::id()))]
    identity: String,
    /// Address of /healthz, /readyz and /metrics.
    #[arg(long, env = "LISTEN_ADDRESS", default_value = "0.0.0.0:8080")]
    listen_address: String,
    /// Stacks that are looked after at once.
    #[arg(long, env = "MAX_CONCURRENT_STACKS", default_value_t = 8)]
    max_concurrent_stacks: u16,
    /// Least important lines that are logged: debug, info, warn, error.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: tracing::Level,
    /// Form of log lines.
    #[arg(long, env = "LOG_FORMAT", default_value = "logfmt", value_parser = ["logfmt", "json"])]
    log_format: String,
    #[command(flatten)]
    images: Images,
}

#[derive(Debug, Args)]
struct Explain {
    /// Path of a field, such as spec.kafka.topic.
    path: Option<String>,
    /// A file whose values are explained.
    #[arg(short, long, conflicts_with = "path")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Status {
    /// Name of the stack; unset means all of the namespace.
    name: Option<String>,
    /// Namespace; unset means that of the kubeconfig.
    #[arg(short, long)]
    namespace: Option<String>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path}:\n{source}")]
    Check { path: String, source: check::Error },
    #[error("{0}")]
    Config(#[from] tempo_operator::config::ConfigError),
    #[error(transparent)]
    Controller(#[from] controller::Error),
    #[error("the API of Kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    #[error("{0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error("nobody reads standard output")]
    NobodyReads,
    #[error("{0}")]
    Other(String),
}

impl File {
    fn name(&self) -> String {
        self.file.display().to_string()
    }

    fn read(&self) -> Result<String, Error> {
        read(&self.file)
    }

    fn stacks(&self) -> Result<Vec<TempoStack>, Error> {
        check::load(&self.read()?).map_err(|source| Error::Check {
            path: self.name(),
            source,
        })
    }
}

/// Prints; whoever reads may stop reading.
pub(crate) fn say(text: impl fmt::Display) -> Result<(), Error> {
    match write!(io::stdout(), "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::NobodyReads),
        Err(error) => Err(Error::Other(format!("standard output: {error}"))),
    }
}

fn read(path: &std::path::Path) -> Result<String, Error> {
    let mut text = String::new();
    let outcome = if path.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(path).map(|content| text = content)
    };
    outcome.map_err(|source| Error::Read {
        path: path.display().to_string(),
        source,
    })?;
    Ok(text)
}

impl Render {
    /// Objects of each stack of the file.
    fn objects(&self) -> Result<Vec<(TempoStack, Vec<serde_json::Value>)>, Error> {
        let defaults = self.images.defaults();
        let mut rendered = Vec::new();
        for mut stack in self.file.stacks()? {
            stack
                .metadata
                .namespace
                .get_or_insert_with(|| self.namespace.clone());
            let topology = Topology::settled(&stack);
            let capabilities = if self.bare {
                Capabilities::default()
            } else {
                Capabilities::all()
            };
            let hash = references::hash(&references::of(&stack), &references::Found::new());
            let objects = manifests::all(&Context {
                stack: &stack,
                names: Names::of(&stack),
                topology: &topology,
                references_hash: &hash,
                capabilities,
                defaults: &defaults,
            })?;
            rendered.push((stack, objects));
        }
        Ok(rendered)
    }
}

/// Runs a command.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    match arguments.command {
        Command::Run(options) => operate(*options).await?,
        Command::Crd => say(crd::yaml())?,
        Command::Check(file) => return check(&file),
        Command::Render(options) => {
            for (_, objects) in options.objects()? {
                for object in objects {
                    say(format_args!("---\n{}", serde_yaml::to_string(&object)?))?;
                }
            }
        }
        Command::Explain(options) => return explain::run(&options),
        Command::Diff(options) => return diff::run(&options).await,
        Command::Status(options) => return show::run(&options).await,
        Command::Convert(file) => return convert::run(&file),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &File) -> Result<ExitCode, Error> {
    let options = Render {
        file: File {
            file: file.file.clone(),
        },
        namespace: "default".to_owned(),
        bare: false,
        images: Images::default(),
    };
    match options.objects() {
        Ok(rendered) => {
            for (stack, objects) in rendered {
                let name = stack.metadata.name.as_deref().unwrap_or_default();
                say(format_args!(
                    "{}: TempoStack {name} is valid; it makes {} objects\n",
                    file.name(),
                    objects.len()
                ))?;
                let named = references::of(&stack);
                if !named.is_empty() {
                    say("it needs, in its namespace:\n")?;
                }
                for reference in named {
                    say(format_args!(
                        "  {} {} with {} (spec.{})\n",
                        reference.kind.name(),
                        reference.name,
                        reference.keys.join(", "),
                        reference.field
                    ))?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ (Error::Check { .. } | Error::Config(_))) => {
            eprintln!("{error}");
            Ok(ExitCode::from(1))
        }
        Err(error) => Err(error),
    }
}

async fn operate(options: Run) -> Result<(), Error> {
    let format = if options.log_format == "json" {
        tempo_runtime::logging::LogFormat::Json
    } else {
        tempo_runtime::logging::LogFormat::Logfmt
    };
    let traces =
        tempo_runtime::own_traces::OwnTraces::from_env("operator", env!("CARGO_PKG_VERSION"))
            .map_err(|error| Error::Other(format!("own traces: {error}")))?;
    let tracer = traces
        .as_ref()
        .map(tempo_runtime::own_traces::OwnTraces::tracer);
    tempo_runtime::logging::init(format, options.log_level, tracer)
        .map_err(|error| Error::Other(error.to_string()))?;
    let registry = tempo_runtime::metrics::registry(env!("CARGO_PKG_VERSION"), "")
        .map_err(controller::Error::from)?;
    let shutdown = CancellationToken::new();
    tempo_runtime::signals::cancel_on_signal(shutdown.clone())
        .map_err(|error| Error::Other(format!("signals: {error}")))?;
    let config = controller::Config {
        watch_namespace: Some(options.watch_namespace).filter(|namespace| !namespace.is_empty()),
        lease: (!options.no_leader_election).then_some(controller::LeaseConfig {
            namespace: options.lease_namespace,
            name: options.lease_name,
        }),
        listen_address: options.listen_address,
        defaults: options.images.defaults(),
        identity: options.identity,
        max_concurrent_stacks: options.max_concurrent_stacks,
    };
    let outcome = controller::run(config, registry, shutdown).await;
    if let Some(traces) = traces {
        traces.shutdown();
    }
    Ok(outcome?)
}
