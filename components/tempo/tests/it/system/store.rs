//! The object store as a process of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use tempo_testkit::{object_server::ObjectServer, ports};

/// Tells [`the_process`] what to be: address, a space, and the folder.
const ROLE: &str = "TEMPO_TEST_OBJECT_STORE";

/// Killed when dropped; what it holds stays.
pub(super) struct Store {
    pub(super) address: String,
    folder: PathBuf,
    process: Option<Child>,
}

impl Store {
    pub(super) fn start(folder: &Path) -> Self {
        let mut store = Self {
            address: ports::free_address().unwrap(),
            folder: folder.to_owned(),
            process: None,
        };
        store.spawn();
        store
    }

    /// Starts it again where it was.
    pub(super) fn spawn(&mut self) {
        let role = format!("{} {}", self.address, self.folder.display());
        let process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "system::store::the_process", "--ignored"])
            .env(ROLE, role)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(process.unwrap());
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
#[ignore = "no test, but the process of the object store in others"]
fn the_process() {
    let Ok(role) = env::var(ROLE) else {
        return;
    };
    let (address, folder) = role.split_once(' ').unwrap();
    fs::create_dir_all(folder).unwrap();
    ObjectServer::start_at(Path::new(folder), address).unwrap();
    loop {
        thread::park();
    }
}
