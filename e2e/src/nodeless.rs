//! A cluster without nodes: the API server checks and keeps objects, the controllers make pods, and
//! no pod runs. What stacks do is then for other clusters; what the operator does can be seen, if
//! someone says of pods what a kubelet would.

use std::{
    io::BufReader,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Time before a watch that ended is begun anew.
const PACE: Duration = Duration::from_millis(200);

/// Says of every pod that it is ready, as long as it lives.
#[derive(Debug)]
pub struct Readiness {
    stop: Arc<AtomicBool>,
    watch: Arc<Mutex<Option<Child>>>,
}

impl Readiness {
    /// Of the pods of this cluster.
    pub fn of(cluster: &Cluster) -> Self {
        let readiness = Self {
            stop: Arc::default(),
            watch: Arc::default(),
        };
        let (stop, watch) = (Arc::clone(&readiness.stop), Arc::clone(&readiness.watch));
        let cluster = cluster.clone();
        thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                follow(&cluster, &watch);
                thread::sleep(PACE);
            }
        });
        readiness
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        end(&self.watch);
    }
}

fn end(watch: &Mutex<Option<Child>>) {
    let child = watch.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Follows one watch to its end.
fn follow(cluster: &Cluster, watch: &Mutex<Option<Child>>) {
    let started = cluster
        .command()
        .args(["get", "pods", "-A", "-o", "json"])
        .args(["--watch", "--output-watch-events"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else {
        return;
    };
    let stdout = child.stdout.take();
    watch
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .replace(child);
    if let Some(stdout) = stdout {
        let events =
            serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter::<Value>();
        for event in events.map_while(Result::ok) {
            let pod = &event["object"];
            if event["type"] != "DELETED"
                && pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["phase"] == "Pending"
            {
                // One that is gone meanwhile needs nobody to speak for it.
                let _ = say_ready(cluster, pod);
            }
        }
    }
    end(watch);
}

fn say_ready(cluster: &Cluster, pod: &Value) -> crate::Outcome {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let containers: Vec<Value> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "",
                "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}},
            })
        })
        .collect();
    let status = json!({"status": {
        "phase": "Running",
        "startTime": pod["metadata"]["creationTimestamp"],
        "conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": "True"},
            {"type": "Ready", "status": "True"},
        ],
        "containerStatuses": containers,
    }});
    cluster
        .kubectl(&[
            "-n",
            &text(&pod["metadata"]["namespace"]),
            "patch",
            &format!("pod/{}", text(&pod["metadata"]["name"])),
            "--subresource=status",
            "--type=strategic",
            "-p",
            &status.to_string(),
        ])
        .map(drop)
}
