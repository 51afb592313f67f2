//! Real Kafka brokers, started by `scripts/kafka.sh` and ended when dropped.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::ports::free_ports;

/// Ports that one broker takes.
const PORTS_PER_BROKER: u16 = 10;

/// A cluster of brokers on this machine.
#[derive(Debug)]
pub struct Kafka {
    data: tempfile::TempDir,
    settings: BTreeMap<String, String>,
}

/// What a cluster shall be like.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// How many brokers; 0 counts as 1.
    pub brokers: u16,
    /// Also listeners with TLS and SASL, for the user `tempo` with the password `secret`.
    pub secure: bool,
    /// Further lines of `server.properties`.
    pub settings: Vec<String>,
    /// Listeners of their own, up to 5: for each, the address under which each broker tells clients
    /// to find it, which is to lead there; see [`Kafka::entrance`].
    pub entrances: Vec<Vec<String>>,
}

static SHARED: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());

impl Kafka {
    /// Starts brokers and waits until they answer.
    ///
    /// # Errors
    /// When they do not start; `scripts/setup.sh kafka` installs what they need.
    pub fn start(options: &KafkaOptions) -> io::Result<Self> {
        let brokers = options.brokers.max(1);
        let data = tempfile::tempdir()?;
        let mut command = script();
        command
            .arg("up")
            .args(["--brokers", &brokers.to_string()])
            .args([
                "--port-base",
                &free_ports(brokers * PORTS_PER_BROKER)?.to_string(),
            ])
            .arg("--data")
            .arg(data.path().join("kafka"))
            .env("KAFKA_HEAP_MEGABYTES", "256");
        if options.secure {
            command.arg("--secure");
        }
        for addresses in &options.entrances {
            command.args(["--entrance", &addresses.join(",")]);
        }
        for setting in &options.settings {
            command.args(["--set", setting]);
        }
        let output = command.output()?;
        let mut kafka = Self {
            data,
            settings: BTreeMap::new(),
        };
        if !output.status.success() {
            return Err(io::Error::other(format!(
                "no Kafka for this test ({}); `scripts/setup.sh kafka` installs it: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        let settings = fs::read_to_string(kafka.folder().join("env"))?;
        kafka.settings = settings
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Ok(kafka)
    }

    /// One broker with TLS and SASL for all tests of this process that run at the same time.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    pub fn shared() -> io::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kafka) = shared.upgrade() {
            return Ok(kafka);
        }
        let kafka = Arc::new(Self::start(&KafkaOptions {
            secure: true,
            ..KafkaOptions::default()
        })?);
        *shared = Arc::downgrade(&kafka);
        Ok(kafka)
    }

    /// Bytes that all brokers keep of a topic.
    pub fn log_bytes(&self, topic: &str) -> u64 {
        let brokers = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let logs = brokers.flat_map(|broker| {
            let logs = fs::read_dir(broker.path().join("log.d"));
            logs.into_iter().flatten().flatten()
        });
        // A folder for each partition, `topic-0`.
        let is_of_topic = |log: &fs::DirEntry| {
            let name = log.file_name();
            let partition = name
                .to_string_lossy()
                .rsplit_once('-')
                .map(|(of, _)| of == topic);
            partition.unwrap_or(false)
        };
        let records = logs.filter(is_of_topic).flat_map(|log| {
            let files = fs::read_dir(log.path());
            files.into_iter().flatten().flatten()
        });
        records
            .filter(|file| file.path().extension().is_some_and(|kind| kind == "log"))
            .filter_map(|file| file.metadata().ok())
            .map(|meta| meta.len())
            .sum()
    }

    fn folder(&self) -> PathBuf {
        self.data.path().join("kafka")
    }

    /// Where clients begin: addresses without TLS or login, separated by commas.
    pub fn bootstrap(&self) -> &str {
        self.setting("KAFKA_BOOTSTRAP")
    }

    /// A line of the script's `env` file, such as `KAFKA_BOOTSTRAP_SASL_SSL`; empty without it.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// Where the brokers listen for those who come by an entrance, counted from 0.
    pub fn entrance(&self, number: usize) -> impl Iterator<Item = &str> {
        let addresses = self.setting(&format!("KAFKA_ENTRANCE_{number}"));
        addresses.split(',').filter(|address| !address.is_empty())
    }

    /// `kill -9` of one broker, counted from 1.
    ///
    /// # Errors
    /// When the script fails.
    pub fn kill_broker(&self, broker: u16) -> io::Result<()> {
        self.run("kill", broker)
    }

    /// Starts a killed broker.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_broker(&self, broker: u16) -> io::Result<()> {
        self.run("start", broker)
    }

    fn run(&self, verb: &str, broker: u16) -> io::Result<()> {
        let output = script()
            .arg(verb)
            .args(["--broker", &broker.to_string()])
            .arg("--data")
            .arg(self.folder())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "kafka.sh {verb}: {}",
            String::from_utf8_lossy(&output.stderr)
        )))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = script()
            .arg("down")
            .arg("--data")
            .arg(self.folder())
            .output();
    }
}

fn script() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka.sh");
    Command::new(script)
}
