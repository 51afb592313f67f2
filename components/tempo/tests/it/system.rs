//! Every target as a process of its own, real Kafka, and one fault after another under load: what
//! was acknowledged is found whole, and counted once.

mod faults;
mod store;
mod traffic;

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tempo_testkit::{
    cluster::{Cluster, Shape},
    disk::SmallDisk,
};

use self::{
    faults::{ABSENCE, Fault, Installation},
    store::Store,
    traffic::{PACE, Seen, Written, ask, count, count_on, fault_of, look_up, search, write},
};
use crate::support::binary;

/// Writers, and readers where everything is asked for.
const WORKERS: usize = 3;

/// How long anything may take in the end that must come true. Says nothing of how long it takes:
/// the machine may have much else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// Time between two faults.
const RESPITE: Duration = Duration::from_secs(2);

/// What happens, and to what.
struct Scenario {
    shape: Shape,
    faults: &'static [Fault],
    /// How long each fault lasts.
    duration: Duration,
    /// Whether spans are searched and counted meanwhile, too, and not only asked for by id.
    counts_meanwhile: bool,
}

/// The ends of all logs.
fn logs(cluster: &Cluster) -> String {
    let log = |name: &String| format!("{name}:\n{}\n", cluster.node(name).log_tail());
    cluster.names().iter().map(log).collect()
}

/// Asks until `question` has an answer.
fn in_the_end<T>(
    what: &str,
    cluster: &Cluster,
    mut question: impl FnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match question() {
            Ok(answer) => return answer,
            Err(reason) if begun.elapsed() > PATIENCE => {
                panic!("never: {what}: {reason}\n{}", logs(cluster));
            }
            Err(_) => thread::sleep(PACE),
        }
    }
}

/// Every trace is found by its id, whole.
fn assert_found_by_id(cluster: &Cluster, traces: &[(&String, usize)]) {
    let frontend = &cluster.node("query-frontend").http;
    thread::scope(|scope| {
        for some in traces.chunks(traces.len().div_ceil(WORKERS).max(1)) {
            scope.spawn(move || {
                for &(id, expected) in some {
                    let whole = || {
                        let spans = ask(frontend, id)?;
                        if spans.len() >= expected {
                            Ok(spans)
                        } else {
                            Err(format!("{} spans", spans.len()))
                        }
                    };
                    let what = format!("{expected} spans of trace {id}");
                    let spans = in_the_end(&what, cluster, whole);
                    assert_eq!(fault_of(id, expected, spans), None);
                }
            });
        }
    });
}

/// Plays a scenario, and checks what is found while it lasts and afterwards.
fn play(scenario: &Scenario) {
    let bucket = tempfile::tempdir().unwrap();
    let store = Store::start(bucket.path());
    let needs_disk = |fault: &Fault| matches!(fault, Fault::FullDisk(_));
    let disk = scenario.faults.iter().any(needs_disk).then(|| {
        let kibibytes = 32 << 10;
        SmallDisk::mount(kibibytes).unwrap()
    });
    let shape = Shape {
        object_store: Some(store.address.clone()),
        is_proxied: true,
        is_hasty: true,
        spill: disk.as_ref().map(|disk| disk.path().to_owned()),
        ..scenario.shape.clone()
    };
    let mut installation = Installation {
        cluster: Cluster::start(&binary(), &shape, None).unwrap(),
        store,
        disk,
    };
    let (distributor, frontend) = (
        installation.cluster.node("distributor-0").otlp_http.clone(),
        installation.cluster.node("query-frontend").http.clone(),
    );
    let (written, stop) = (Written::default(), AtomicBool::new(false));
    let now = Mutex::new("00 the beginning".to_owned());
    let seen = thread::scope(|scope| {
        for seed in 0..WORKERS as u64 {
            let (written, stop, address) = (&written, &stop, &distributor);
            scope.spawn(move || write(address, 1000 + seed, written, stop));
        }
        let counts = scenario.counts_meanwhile;
        let (written, now, stop) = (&written, &now, &stop);
        let frontend = &frontend;
        let mut readers = vec![scope.spawn(move || look_up(frontend, written, now, counts, stop))];
        if counts {
            readers.push(scope.spawn(move || count_on(frontend, written, now, stop)));
        }
        let stop_at_end = StopOnDrop(stop);
        for (number, fault) in (1..).zip(scenario.faults) {
            *now.lock().unwrap() = format!("{number:02} {fault:?}");
            installation.suffer(*fault, scenario.duration);
            *now.lock().unwrap() = format!("{number:02} {fault:?}, over");
            thread::sleep(RESPITE);
        }
        drop(stop_at_end);
        let mut seen = Seen::default();
        for reader in readers {
            seen.add(reader.join().unwrap());
        }
        seen
    });
    let cluster = &mut installation.cluster;
    let acknowledged = written.acknowledged.into_inner().unwrap();
    let spans: usize = acknowledged.values().map(|known| known.spans).sum();
    let sent = written.sent.into_inner();
    println!(
        "{} traces acknowledged, {spans} of {sent} spans\n{}",
        acknowledged.len(),
        seen.table()
    );
    assert!(
        acknowledged.len() > 100,
        "only {} traces",
        acknowledged.len()
    );
    assert!(
        seen.wrong.is_empty(),
        "meanwhile: {}\n{}",
        seen.wrong.join("\n"),
        logs(cluster)
    );

    // By id, whole; by search, all; and counted once each.
    let traces: Vec<_> = acknowledged
        .iter()
        .map(|(id, known)| (id, known.spans))
        .collect();
    assert_found_by_id(cluster, &traces);
    in_the_end("every trace is found by search", cluster, || {
        let found: BTreeSet<String> = search(&frontend, "{ }", 100_000)?.into_iter().collect();
        let missing: Vec<_> = acknowledged
            .keys()
            .filter(|id| !found.contains(*id))
            .collect();
        match missing.as_slice() {
            [] => Ok(()),
            [first, ..] => Err(format!("{} are not, such as {first}", missing.len())),
        }
    });
    let counted = in_the_end("every span is counted", cluster, || {
        match count(&frontend)? {
            counted if counted >= spans as f64 => Ok(counted),
            counted => Err(format!("{counted} of {spans}")),
        }
    });
    assert!(counted <= sent as f64, "{counted} of {sent} spans counted");
    // The same once live-stores have let go of it, and while blocks are compacted.
    let begun = Instant::now();
    while begun.elapsed() < ABSENCE {
        thread::sleep(Duration::from_secs(1));
        let again = in_the_end("an answer", cluster, || count(&frontend));
        assert_eq!(again, counted, "the count has changed");
    }
    cluster.stop().unwrap();
}

/// Writers and readers end also when a check fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn in_a_small_cluster_no_acknowledged_span_is_lost_or_doubled() {
    play(&Scenario {
        shape: Shape {
            partitions: 2,
            ..Shape::default()
        },
        faults: &[
            Fault::Kill("live-store-zone-a-0"),
            Fault::Cut("querier", "live-store-zone-b-1"),
            Fault::Kill("block-builder-1"),
            Fault::Everything,
        ],
        duration: Duration::from_secs(3),
        counts_meanwhile: false,
    });
}

#[test]
#[ignore = "takes twenty minutes and most of a machine; `make test-system` runs it"]
fn whatever_dies_no_acknowledged_span_is_lost_or_doubled() {
    play(&Scenario {
        shape: Shape {
            brokers: 3,
            linked_to_kafka: &["distributor-0", "live-store-zone-b-0", "block-builder-1"],
            ..Shape::default()
        },
        faults: &[
            Fault::Kill("live-store-zone-a-0"),
            Fault::Kill("block-builder-1"),
            Fault::Kill("querier-0"),
            Fault::Kill("query-frontend"),
            Fault::Kill("backend-scheduler"),
            Fault::Kill("backend-worker-0"),
            Fault::Kill("distributor-0"),
            Fault::Broker(2),
            Fault::Store,
            Fault::Cut("querier", "live-store-zone-a-1"),
            Fault::Silence("querier", "live-store-zone-b-1"),
            Fault::Cut("querier-0", "query-frontend"),
            Fault::Cut("querier-0", "store"),
            Fault::Cut("backend-worker-0", "backend-scheduler"),
            Fault::Silence("backend-worker-0", "store"),
            Fault::Cut("block-builder-2", "store"),
            Fault::Cut("distributor-0", "kafka"),
            Fault::Silence("live-store-zone-b-0", "kafka"),
            Fault::Silence("block-builder-1", "kafka"),
            Fault::Isolation("live-store-zone-a-2"),
            Fault::Isolation("query-frontend"),
            Fault::Isolation("distributor-0"),
            Fault::FullDisk(0),
            Fault::Pause("live-store-zone-b-1"),
            Fault::Pause("block-builder-0"),
            Fault::Pause("querier-0"),
            Fault::Pause("query-frontend"),
            Fault::Pause("distributor-0"),
            Fault::Pause("backend-scheduler"),
            Fault::Pause("backend-worker-0"),
            Fault::Absence("block-builder-2"),
            Fault::Everything,
        ],
        duration: Duration::from_secs(20),
        counts_meanwhile: true,
    });
}
