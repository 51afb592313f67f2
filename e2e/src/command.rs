//! Child processes with a time limit.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::{Failure, Outcome};

/// What a program said and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// It ended with 0.
    pub success: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `command` with `input` on its standard input, for `limit` at most.
///
/// # Errors
/// When it cannot be started, or takes longer; then it is killed.
pub fn run(command: &mut Command, input: &str, limit: Duration) -> Outcome<Said> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::new(format!("{shown} can't be started: {error}")))?;
    let mut stdin = child.stdin.take();
    let input = input.to_owned();
    let feed = thread::spawn(move || {
        if let Some(stdin) = stdin.as_mut() {
            // A program that ends without reading has said why.
            let _ = stdin.write_all(input.as_bytes());
        }
    });
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let guard = Watchdog::over(&child, limit);
    let status = child.wait()?;
    let in_time = guard.disarm();
    let _ = feed.join();
    let said = Said {
        success: status.success(),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    };
    if in_time {
        Ok(said)
    } else {
        Err(Failure::new(format!(
            "{shown} has not ended within {} s; it said: {}{}",
            limit.as_secs(),
            said.stdout,
            said.stderr
        )))
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Kills a child when its time is over.
#[derive(Debug)]
pub struct Watchdog {
    disarm: mpsc::Sender<()>,
    fired: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Watchdog {
    /// Watches over `child` for `limit`.
    pub fn over(child: &Child, limit: Duration) -> Self {
        let pid = child.id().to_string();
        let (disarm, disarmed) = mpsc::channel::<()>();
        let fired = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&fired);
        let thread = thread::spawn(move || {
            if disarmed.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        });
        Self {
            disarm,
            fired,
            thread,
        }
    }

    /// Ends the watch; tells whether the child stayed within its time.
    pub fn disarm(self) -> bool {
        let _ = self.disarm.send(());
        let _ = self.thread.join();
        !self.fired.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_says_is_kept_apart() {
        let said = run(
            Command::new("sh").args(["-c", "cat; echo wrong >&2; exit 3"]),
            "right",
            Duration::from_secs(60),
        )
        .unwrap();
        assert_eq!(
            (said.success, said.stdout.as_str(), said.stderr.as_str()),
            (false, "right", "wrong\n")
        );
    }

    #[test]
    fn a_program_that_hangs_is_ended_and_told() {
        let failure = run(
            Command::new("sleep").arg("1000"),
            "",
            Duration::from_millis(50),
        )
        .unwrap_err();
        assert!(failure.to_string().contains("has not ended"), "{failure}");
    }
}
