//! What a stack needs around it: Apache Kafka and an S3 store, on this machine, at an address that
//! pods reach. Started when the first scenario asks for them, ended with the run.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{Failure, Outcome, command, ensure};

const KAFKA_LIMIT: Duration = Duration::from_secs(180);
const S3_LIMIT: Duration = Duration::from_secs(20);
const KAFKA_PORT_BASE: u16 = 26_500;
const S3_PORT: u16 = 26_490;

/// Who may use the S3 store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Access key id.
    pub access: &'static str,
    /// Secret access key.
    pub secret: &'static str,
}

/// The account that stacks use.
pub const FIRST: Account = Account {
    access: "e2e-first",
    secret: "e2e-first-secret",
};
/// The account that credentials are changed to; it sees the same buckets.
pub const SECOND: Account = Account {
    access: "e2e-second",
    secret: "e2e-second-secret",
};

/// Kafka and S3.
#[derive(Debug)]
pub struct Neighbours {
    scripts: PathBuf,
    versitygw: PathBuf,
    data: PathBuf,
    host: Option<String>,
    s3: Mutex<Option<Child>>,
    kafka: Mutex<Option<String>>,
}

impl Neighbours {
    /// Programs of `scripts` and `tools`, data below `data`. `host` is this machine's address as
    /// pods see it; without one there are no neighbours.
    pub fn new(scripts: &Path, tools: &Path, data: &Path, host: Option<String>) -> Self {
        Self {
            scripts: scripts.to_owned(),
            versitygw: tools.join("versitygw"),
            data: data.to_owned(),
            host,
            s3: Mutex::new(None),
            kafka: Mutex::new(None),
        }
    }

    fn host(&self) -> Outcome<&str> {
        self.host.as_deref().ok_or_else(|| {
            Failure::new("no address of this machine is known that pods reach: give --host-address")
        })
    }

    /// Starts one Kafka broker unless it runs; its bootstrap address. It also has listeners with
    /// SASL, user `tempo`, password `secret`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn kafka(&self) -> Outcome<String> {
        let mut running = self
            .kafka
            .lock()
            .map_err(|_| Failure::new("Kafka's starter has panicked"))?;
        if let Some(address) = running.as_ref() {
            return Ok(address.clone());
        }
        let said = command::run(
            Command::new(self.scripts.join("kafka.sh"))
                .args(["up", "--secure", "--host", self.host()?, "--data"])
                .arg(self.data.join("kafka"))
                .args(["--port-base", &KAFKA_PORT_BASE.to_string()]),
            "",
            KAFKA_LIMIT,
        )?;
        ensure(said.success, || {
            format!("Kafka could not be started: {}", said.stderr)
        })?;
        Ok(running.insert(said.stdout.trim().to_owned()).clone())
    }

    /// The partitions of a topic, each a line as Kafka's own tool describes it.
    ///
    /// # Errors
    /// When there is no such topic.
    pub fn topic(&self, name: &str) -> Outcome<Vec<String>> {
        let server = self.kafka()?;
        let said = command::run(
            Command::new(self.scripts.join("kafka.sh")).args([
                "topics",
                "--bootstrap-server",
                &server,
                "--describe",
                "--topic",
                name,
            ]),
            "",
            KAFKA_LIMIT,
        )?;
        ensure(said.success, || {
            format!("topic {name}: {}{}", said.stdout, said.stderr)
        })?;
        Ok(said
            .stdout
            .lines()
            .filter(|line| line.contains("Partition: "))
            .map(str::to_owned)
            .collect())
    }

    /// Starts the S3 store unless it runs; its endpoint.
    ///
    /// # Errors
    /// When it does not start.
    pub fn s3(&self) -> Outcome<String> {
        let address = format!("{}:{S3_PORT}", self.host()?);
        let mut running = self
            .s3
            .lock()
            .map_err(|_| Failure::new("the S3 store's starter has panicked"))?;
        if running.is_none() {
            let folder = self.data.join("s3");
            fs::create_dir_all(&folder)?;
            let accounts = self.data.join("s3-accounts");
            fs::create_dir_all(&accounts)?;
            let second = json!({"accessAccounts": {SECOND.access: {
                "access": SECOND.access, "secret": SECOND.secret, "role": "admin",
                "userID": 0, "groupID": 0, "projectID": 0,
            }}});
            fs::write(accounts.join("users.json"), second.to_string())?;
            let log = File::create(self.data.join("s3.log"))?;
            *running = Some(
                Command::new(&self.versitygw)
                    .args(["--access", FIRST.access, "--secret", FIRST.secret])
                    .arg("--iam-dir")
                    .arg(&accounts)
                    .args(["--port", &address, "posix"])
                    .arg(&folder)
                    .stdin(Stdio::null())
                    .stdout(log.try_clone()?)
                    .stderr(log)
                    .spawn()
                    .map_err(|error| {
                        Failure::from(error).during("versitygw (scripts/emulators.sh installs it)")
                    })?,
            );
            let deadline = Instant::now() + S3_LIMIT;
            while TcpStream::connect(&address).is_err() {
                ensure(Instant::now() < deadline, || {
                    format!("the S3 store does not listen at {address}")
                })?;
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(address)
    }

    /// Makes an empty bucket.
    ///
    /// # Errors
    /// When the store does not run.
    pub fn make_bucket(&self, name: &str) -> Outcome {
        // The store keeps a bucket as a folder, and takes a new folder for a bucket.
        fs::create_dir_all(self.data.join("s3").join(name))?;
        Ok(())
    }

    /// Keys of all objects in a bucket.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn objects(&self, bucket: &str) -> Outcome<Vec<String>> {
        let root = self.data.join("s3").join(bucket);
        let mut folders = vec![root.clone()];
        let mut keys = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(key) = path.strip_prefix(&root) {
                    keys.push(key.display().to_string());
                }
            }
        }
        Ok(keys)
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        if let Ok(mut running) = self.s3.lock()
            && let Some(child) = running.as_mut()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
        let kafka = self.data.join("kafka");
        if kafka.exists() {
            let _ = Command::new(self.scripts.join("kafka.sh"))
                .args(["down", "--data"])
                .arg(kafka)
                .status();
        }
    }
}
