//! Plays the scenarios on a cluster and prints what came of them.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use tempo_e2e::{
    Failure, Outcome,
    cluster::Cluster,
    context::{Capability, Context, World},
    neighbours::Neighbours,
    nodeless::Readiness,
    operator::{Image, Operator},
    report::{self, Line, Verdict},
    scenarios::{ALL, Scenario},
    traces::Sdk,
};

/// Plays scenarios of TempoStack on a Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "tempo-e2e")]
struct Arguments {
    /// The cluster to play on.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Play only these scenarios, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// List the scenarios, and end.
    #[arg(long)]
    list: bool,
    /// Scenarios that may play at once.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
    /// Where logs of what fails are kept.
    #[arg(long, default_value = "e2e-logs", value_name = "FOLDER")]
    logs: PathBuf,
    /// Take the operator and the CRD that are installed already.
    #[arg(long)]
    no_install: bool,
    /// Leave namespaces of failed scenarios as they are, to look into.
    #[arg(long)]
    keep: bool,
    /// This machine's address as pods see it; Kafka and S3 listen there.
    #[arg(long, env = "E2E_HOST_ADDRESS", value_name = "IP")]
    host_address: Option<String>,
    /// The API server's audit log.
    #[arg(long, env = "E2E_AUDIT_LOG", value_name = "FILE")]
    audit_log: Option<PathBuf>,
    /// The operator's program, as it is in the image.
    #[arg(long, env = "E2E_OPERATOR", value_name = "FILE")]
    operator_binary: Option<PathBuf>,
    /// Registry and path of the images, before `/tempo` and `/tempo-operator`.
    #[arg(long, env = "E2E_REGISTRY", default_value = "ghcr.io/tempostack")]
    registry: String,
    /// Tag of the images.
    #[arg(long, env = "E2E_TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Tag of another image of Tempo, to upgrade to.
    #[arg(long, env = "E2E_NEXT_TAG")]
    next_tag: Option<String>,
    /// Folder of tools: helm, kubectl, versitygw, Python with the SDK.
    #[arg(long, env = "TEMPO_TOOLS_DIR", value_name = "FOLDER")]
    tools: PathBuf,
    /// The repository.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    repository: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in ALL {
            say(&format!("{:18} {}", scenario.name, scenario.about));
        }
        return ExitCode::SUCCESS;
    }
    match play_all(&arguments) {
        Ok(lines) => {
            say(&report::table(&lines));
            let failed = lines
                .iter()
                .any(|line| matches!(line.verdict, Verdict::Failed(_)));
            ExitCode::from(u8::from(failed))
        }
        Err(failure) => {
            eprintln!("e2e: {failure}");
            ExitCode::from(2)
        }
    }
}

#[allow(clippy::print_stdout)]
fn say(text: &str) {
    println!("{text}");
}

/// A program of the tools' folder, or of the path.
fn tool(tools: &Path, place: &str, name: &str) -> PathBuf {
    let own = tools.join(place);
    if own.exists() { own } else { name.into() }
}

fn chosen(only: &[String]) -> Outcome<Vec<&'static Scenario>> {
    for name in only {
        if !ALL.iter().any(|scenario| scenario.name == name) {
            return Err(Failure::new(format!(
                "there is no scenario {name}; --list shows them"
            )));
        }
    }
    Ok(ALL
        .iter()
        .filter(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name))
        .collect())
}

fn world(arguments: &Arguments, logs: &Path, data: &Path) -> Outcome<World> {
    let kubeconfig = arguments
        .kubeconfig
        .clone()
        .or_else(|| env::home_dir().map(|home| home.join(".kube/config")))
        .ok_or_else(|| Failure::new("which cluster? set KUBECONFIG"))?;
    let tools = &arguments.tools;
    let cluster = Cluster::new(
        &tool(tools, "kubernetes/bin/kubectl", "kubectl"),
        &kubeconfig,
    );
    let image = |name: &str| Image {
        repository: format!("{}/{name}", arguments.registry),
        tag: arguments.tag.clone(),
    };
    let repository = &arguments.repository;
    let mut capabilities = World::discover(&cluster)?;
    let mut operator = Operator::new(
        &cluster,
        &tool(tools, "helm", "helm"),
        &repository.join("charts/tempo-operator"),
        image("tempo-operator"),
        image("tempo"),
    );
    if !capabilities.contains(&Capability::Pods) {
        let program = arguments.operator_binary.as_deref().ok_or_else(|| {
            Failure::new(
                "the cluster has no node that could run the operator; say with --operator-binary \
                 which program does",
            )
        })?;
        operator = operator.running_here(program, logs)?;
    }
    if arguments.host_address.is_some() || capabilities.contains(&Capability::NoPods) {
        capabilities.insert(Capability::Store);
    }
    if arguments.host_address.is_some() {
        capabilities.insert(Capability::Neighbours);
    }
    if arguments.audit_log.is_some() {
        capabilities.insert(Capability::AuditLog);
    }
    if arguments.operator_binary.is_some() {
        capabilities.insert(Capability::OperatorBinary);
    }
    if arguments.next_tag.is_some() {
        capabilities.insert(Capability::NextImage);
    }
    Ok(World {
        operator,
        sdk: Sdk::new(
            tool(tools, "python/bin/python", "python3"),
            repository.join("e2e/sdk/send.py"),
        ),
        neighbours: Neighbours::new(
            &repository.join("scripts"),
            tools,
            data,
            arguments.host_address.clone(),
        ),
        repository: repository.clone(),
        operator_binary: arguments.operator_binary.clone(),
        audit_log: arguments.audit_log.clone(),
        next_tag: arguments.next_tag.clone(),
        capabilities,
        cluster,
    })
}

fn play_all(arguments: &Arguments) -> Outcome<Vec<Line>> {
    let scenarios = chosen(&arguments.only)?;
    fs::create_dir_all(&arguments.logs)?;
    let logs = fs::canonicalize(&arguments.logs)?;
    let data = logs.join("neighbours");
    fs::create_dir_all(&data)?;
    let world = world(arguments, &logs, &data)?;
    let has_pods = world.capabilities.contains(&Capability::Pods);
    let _readiness = (!has_pods).then(|| Readiness::of(&world.cluster));
    if !arguments.no_install {
        eprintln!("e2e: installing the operator");
        world
            .operator
            .install_shared()
            .map_err(|failure| failure.during("the operator could not be installed"))?;
    }
    let (alone, together): (Vec<_>, Vec<_>) = scenarios.iter().partition(|scenario| scenario.alone);
    let mut lines = play_together(&together, &world, &logs, arguments);
    for scenario in alone {
        lines.push(play(scenario, &world, &logs, arguments.keep));
    }
    // As they are listed, whoever was done first.
    lines.sort_by_key(|line| {
        ALL.iter()
            .position(|scenario| scenario.name == line.scenario)
    });
    Ok(lines)
}

/// Plays scenarios, some at a time, each in its namespace.
fn play_together(
    scenarios: &[&'static Scenario],
    world: &World,
    logs: &Path,
    arguments: &Arguments,
) -> Vec<Line> {
    let next = AtomicUsize::new(0);
    let lines = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let line = play(scenario, world, logs, arguments.keep);
                    if let Ok(mut lines) = lines.lock() {
                        lines.push(line);
                    }
                }
            });
        }
    });
    lines.into_inner().unwrap_or_default()
}

fn play(scenario: &'static Scenario, world: &World, logs: &Path, keep: bool) -> Line {
    eprintln!("e2e: {}: {}", scenario.name, scenario.about);
    let begin = Instant::now();
    let mut line = Line {
        scenario: scenario.name,
        verdict: Verdict::Passed,
        took: begin.elapsed(),
        told: String::new(),
        logs: None,
    };
    let missing: BTreeSet<&str> = scenario
        .needs
        .iter()
        .filter(|need| !world.capabilities.contains(need))
        .map(|need| need.name())
        .collect();
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.into_iter().collect();
        line.verdict = Verdict::Skipped(format!("needs {}", missing.join(" and ")));
        return line;
    }
    let context = match Context::new(world, scenario.name) {
        Ok(context) => context,
        Err(failure) => {
            line.verdict = Verdict::Failed(failure.during("its namespace could not be made"));
            return line;
        }
    };
    let mut outcome = (scenario.play)(&context);
    line.took = begin.elapsed();
    line.told = context.told.text();
    if outcome.is_err() {
        let folder = logs.join(scenario.name);
        if report::keep_logs(&world.cluster, &context.namespace, &folder).is_ok() {
            line.logs = Some(folder);
        }
    }
    if outcome.is_ok() || !keep {
        // A namespace that does not go is a finding, too: something holds it.
        outcome = outcome.and(context.remove());
    }
    match outcome {
        Ok(()) => eprintln!("e2e: {} passed", scenario.name),
        Err(failure) => {
            eprintln!("e2e: {} FAILED: {failure}", scenario.name);
            line.verdict = Verdict::Failed(failure);
        }
    }
    line
}
