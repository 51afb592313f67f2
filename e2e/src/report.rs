//! What came of a run: a table for people, and the logs of what failed.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{Failure, Outcome, cluster::Cluster, operator};

/// How a scenario ended.
#[derive(Debug)]
pub enum Verdict {
    /// As it must.
    Passed,
    /// Something was not as it must be.
    Failed(Failure),
    /// It needs what this cluster does not have.
    Skipped(String),
}

/// One line of the table.
#[derive(Debug)]
pub struct Line {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
    /// What else there is to tell.
    pub told: String,
    /// Where its logs are, if it failed.
    pub logs: Option<PathBuf>,
}

/// The table.
pub fn table(lines: &[Line]) -> String {
    let width = lines
        .iter()
        .map(|line| line.scenario.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for line in lines {
        let (word, why) = match &line.verdict {
            Verdict::Passed => ("passed", line.told.clone()),
            Verdict::Failed(failure) => ("FAILED", failure.to_string()),
            Verdict::Skipped(why) => ("skipped", why.clone()),
        };
        let _ = writeln!(
            text,
            "{:width$}  {word:7}  {:>6.1} s  {why}",
            line.scenario,
            line.took.as_secs_f64()
        );
        if let Some(logs) = &line.logs {
            let _ = writeln!(text, "{:width$}           logs: {}", "", logs.display());
        }
    }
    let count =
        |wanted: fn(&Verdict) -> bool| lines.iter().filter(|line| wanted(&line.verdict)).count();
    let _ = writeln!(
        text,
        "{} passed, {} failed, {} skipped",
        count(|verdict| matches!(verdict, Verdict::Passed)),
        count(|verdict| matches!(verdict, Verdict::Failed(_))),
        count(|verdict| matches!(verdict, Verdict::Skipped(_))),
    );
    text
}

/// Writes all that tells why a scenario failed into `folder`: its objects, events and logs, and the
/// operator's log. What cannot be had is left out.
///
/// # Errors
/// When the folder cannot be written.
pub fn keep_logs(cluster: &Cluster, namespace: &str, folder: &Path) -> Outcome {
    const OBJECTS: &str = "tempostacks.tempostack.io,pods,statefulsets,deployments,services,\
                           configmaps,persistentvolumeclaims,poddisruptionbudgets,networkpolicies";
    fs::create_dir_all(folder)?;
    let keep = |name: &str, arguments: &[&str]| {
        if let Ok(said) = cluster.attempt(arguments, "") {
            fs::write(folder.join(name), said.stdout + &said.stderr)?;
        }
        Ok::<(), Failure>(())
    };
    keep(
        "objects.yaml",
        &["-n", namespace, "get", OBJECTS, "-o", "yaml"],
    )?;
    keep("pods.txt", &["-n", namespace, "describe", "pods"])?;
    keep(
        "events.txt",
        &["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"],
    )?;
    keep(
        "operator.log",
        &[
            "-n",
            operator::NAMESPACE,
            "logs",
            "-l",
            operator::PODS,
            "--prefix",
            "--tail=2000",
        ],
    )?;
    for pod in cluster.list(namespace, "pods", "")?.keys() {
        let logs = |previous: &'static str| {
            ["-n", namespace, "logs", pod, "--all-containers", previous]
                .into_iter()
                .filter(|argument| !argument.is_empty())
                .collect::<Vec<_>>()
        };
        keep(&format!("{pod}.log"), &logs(""))?;
        keep(&format!("{pod}.previous.log"), &logs("--previous"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_why() {
        let line = |scenario, verdict| Line {
            scenario,
            verdict,
            took: Duration::from_millis(1500),
            told: "3 traces".to_owned(),
            logs: None,
        };
        let text = table(&[
            line("minimal", Verdict::Passed),
            line("drift", Verdict::Failed(Failure::new("no Service"))),
            line(
                "netpol",
                Verdict::Skipped("needs enforced NetworkPolicies".to_owned()),
            ),
        ]);
        assert_eq!(
            text,
            "minimal  passed      1.5 s  3 traces\n\
             drift    FAILED      1.5 s  no Service\n\
             netpol   skipped     1.5 s  needs enforced NetworkPolicies\n\
             1 passed, 1 failed, 1 skipped\n"
        );
    }
}
