//! The board of service states, behind `/ready` and `/status/services`.

use std::{fmt, sync::Arc};

use parking_lot::RwLock;

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Known, not yet begun.
    New,
    /// Opening, replaying, catching up.
    Starting,
    /// At work.
    Running,
    /// Finishing what it has.
    Stopping,
    /// Ended in order.
    Terminated,
    /// Ended by an error.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Asked at every `/ready`: `Err` says what is not ready yet.
pub type ReadyCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Which services there are and how they do. Clones share one board.
#[derive(Clone, Default)]
pub struct Board {
    inner: Arc<RwLock<Inner>>,
}

#[derive(Default)]
struct Inner {
    stopping: bool,
    services: Vec<(String, State)>,
    checks: Vec<ReadyCheck>,
}

impl Board {
    /// Sets the state of a service, adding it to the board if it is new.
    pub fn set(&self, service: &str, state: State) {
        let mut inner = self.inner.write();
        match inner.services.iter_mut().find(|(name, _)| name == service) {
            Some(entry) => entry.1 = state,
            None => inner.services.push((service.to_owned(), state)),
        }
    }

    /// Adds a condition for `/ready`, asked after the states.
    pub fn add_check(&self, check: ReadyCheck) {
        self.inner.write().checks.push(check);
    }

    /// From now on the process is not ready, whatever its services say.
    pub fn set_stopping(&self) {
        self.inner.write().stopping = true;
    }

    /// The services and their states, by name.
    pub fn services(&self) -> Vec<(String, State)> {
        let mut services = self.inner.read().services.clone();
        services.sort();
        services
    }

    /// `Ok` when all is running and every check passes; otherwise the body of the 503 answer,
    /// without its final newline.
    pub fn ready(&self) -> Result<(), String> {
        let inner = self.inner.read();
        if inner.stopping {
            return Err("Application is stopping".to_owned());
        }
        let mut counts: Vec<(State, usize)> = Vec::new();
        for (_, state) in &inner.services {
            match counts.iter_mut().find(|(seen, _)| seen == state) {
                Some(entry) => entry.1 += 1,
                None => counts.push((*state, 1)),
            }
        }
        if counts.iter().any(|(state, _)| *state != State::Running) {
            counts.sort();
            let lines: Vec<String> = counts
                .iter()
                .map(|(state, count)| format!("{state}: {count}"))
                .collect();
            return Err(format!(
                "Some services are not Running:\n{}",
                lines.join("\n")
            ));
        }
        inner.checks.iter().try_for_each(|check| check())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_all_run_and_checks_pass() {
        let board = Board::default();
        board.set("live-store", State::Starting);
        board.set("querier", State::Running);
        assert_eq!(
            board.ready(),
            Err("Some services are not Running:\nStarting: 1\nRunning: 1".to_owned())
        );
        board.set("live-store", State::Running);
        assert_eq!(board.ready(), Ok(()));
        board.add_check(Box::new(
            || Err("LiveStore not ready: replaying".to_owned()),
        ));
        assert_eq!(
            board.ready(),
            Err("LiveStore not ready: replaying".to_owned())
        );
        board.set_stopping();
        assert_eq!(board.ready(), Err("Application is stopping".to_owned()));
    }
}
