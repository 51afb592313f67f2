//! What a live-store knew of the partitions, on its disk: after a moment in which no live-store was
//! up, nobody else can tell which partitions there are.
//!
//! Only for that moment. Wherever a live-store is heard that knows, it is believed instead: this file
//! may be from before partitions were made or deleted.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::state::PartitionRecord;

/// The records of all partitions, and of those deleted lately.
pub(crate) type Known = BTreeMap<i32, PartitionRecord>;

/// The file.
#[derive(Default)]
pub(crate) struct Memory {
    path: Option<PathBuf>,
    /// What it holds.
    known: Known,
}

#[derive(Serialize, Deserialize)]
struct Contents {
    partitions: Known,
}

impl Memory {
    /// Reads the file, if there is one. A damaged one counts as none: it is a memory, not a log.
    pub(crate) fn open(path: Option<PathBuf>) -> Self {
        let known = match &path {
            None => Known::default(),
            Some(path) => read(path).unwrap_or_else(|error| {
                tracing::warn!(file = %path.display(), %error, "partitions of before not known");
                Known::default()
            }),
        };
        Self { path, known }
    }

    pub(crate) fn known(&self) -> &Known {
        &self.known
    }

    pub(crate) fn is_news(&self, known: &Known) -> bool {
        self.path.is_some() && *known != self.known
    }

    /// Keeps what is known now. Blocks.
    pub(crate) fn keep(&mut self, known: Known) {
        self.known = known;
        if let Some(path) = &self.path
            && let Err(error) = write(path, &self.known)
        {
            tracing::warn!(file = %path.display(), %error, "partitions not written down");
            // Not to be tried again until there is other news: gossip must not wait for a disk.
        }
    }
}

fn read(path: &Path) -> io::Result<Known> {
    match fs::read(path) {
        Ok(bytes) => {
            let contents: Contents = serde_json::from_slice(&bytes)?;
            Ok(contents.partitions)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Known::default()),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, known: &Known) -> io::Result<()> {
    let contents = Contents {
        partitions: known.clone(),
    };
    tempo_durable::write(path, &serde_json::to_vec(&contents)?)
}
