//! `make cluster`: Kafka, a bucket and every target as a process of its own, on this machine, until
//! Ctrl-C.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{io, path::PathBuf, process::ExitCode};

use tempo_testkit::cluster::{Cluster, Shape};
use tokio::signal::unix::{SignalKind, signal};

const HELP: &str = "\
Starts a whole installation on this machine: Kafka, a bucket on the local disk, and every target of
tempo as a process of its own. Prints where to send spans and queries; ends with Ctrl-C.

    --binary PATH       the tempo to start
    --data FOLDER       where the processes and the bucket are kept (data/cluster);
                        Kafka's log goes when it ends
    --partitions N      partitions, each with a live-store in every zone (3)
    --zones N           zones of the live-stores (2)
    --brokers N         Kafka brokers (1)
    --distributors N    (1)
    --queriers N        (1)
    --workers N         backend-workers (1)
";

struct Arguments {
    binary: PathBuf,
    data: PathBuf,
    shape: Shape,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        binary: PathBuf::from("target/release/tempo"),
        data: PathBuf::from("data/cluster"),
        shape: Shape::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = || {
            value
                .parse::<u32>()
                .map_err(|_| format!("{word}: {value} is no number"))
        };
        match word.as_str() {
            "--binary" => found.binary = value.into(),
            "--data" => found.data = value.into(),
            "--partitions" => found.shape.partitions = number()?.max(1),
            "--zones" => found.shape.zones = number()?.max(1),
            "--brokers" => found.shape.brokers = u16::try_from(number()?).unwrap_or(1),
            "--distributors" => found.shape.distributors = number()?.max(1),
            "--queriers" => found.shape.queriers = number()?.max(1),
            "--workers" => found.shape.workers = number()?.max(1),
            other => return Err(format!("{other} is not an option")),
        }
    }
    Ok(found)
}

fn run(arguments: &Arguments) -> io::Result<()> {
    println!(
        "starting Kafka and the processes; their logs are below {}",
        arguments.data.display()
    );
    let mut cluster = Cluster::start(&arguments.binary, &arguments.shape, Some(&arguments.data))?;
    let (distributor, frontend) = (
        cluster.node("distributor-0"),
        cluster.node("query-frontend"),
    );
    println!("\n  OTLP/gRPC   {}", distributor.otlp_grpc);
    println!("  OTLP/HTTP   http://{}", distributor.otlp_http);
    println!(
        "  queries     http://{}   (Grafana: a Tempo data source with this URL)",
        frontend.http
    );
    println!("  Kafka       {}", cluster.kafka.bootstrap());
    println!("  partitions  http://{}/partition-ring\n", distributor.http);
    for name in cluster.names() {
        let node = cluster.node(&name);
        println!(
            "  {name:26} http://{}  pid {}",
            node.http,
            node.pid().unwrap_or_default()
        );
    }
    println!("\nCtrl-C ends it.");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let is_from_terminal = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        io::Result::Ok(tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => false,
        })
    })?;
    println!("stopping");
    if is_from_terminal {
        // The terminal has told all of them already; a second signal would cut them short.
        cluster.wait()
    } else {
        cluster.stop()
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--help" || word == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(reason) => {
            eprintln!("tempo-cluster: {reason}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tempo-cluster: {error}");
            ExitCode::FAILURE
        }
    }
}
