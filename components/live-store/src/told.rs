//! What was told of how far blocks go, kept for the next start.
//!
//! Must never take what was told back: others have gone by it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, Ordering},
};

pub(crate) const UNKNOWN: i64 = i64::MIN;

/// Name of the file.
pub(crate) const FILE: &str = "built";

/// Until when, in milliseconds since the epoch, spans are in blocks that everybody sees: what was told
/// once stays true, whatever is in the file of it.
pub(crate) struct ToldFile {
    path: PathBuf,
    told_millis: AtomicI64,
}

impl ToldFile {
    pub(crate) fn open(data_path: &Path) -> Self {
        let path = data_path.join(FILE);
        let told = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().ok(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "not known how far blocks go, until it shows");
                }
                None
            }
        };
        Self {
            path,
            told_millis: AtomicI64::new(told.unwrap_or(UNKNOWN)),
        }
    }

    pub(crate) fn told(&self) -> Option<i64> {
        known(&self.told_millis)
    }

    /// Not synced: what is lost with the machine was only newer.
    pub(crate) fn tell(&self, until_millis: i64) {
        if self.told_millis.swap(until_millis, Ordering::AcqRel) == until_millis {
            return;
        }
        let unfinished = self.path.with_extension("unfinished");
        let written = fs::write(&unfinished, format!("{until_millis}\n"))
            .and_then(|()| fs::rename(&unfinished, &self.path));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "how far blocks go is not kept for the next start");
        }
    }
}

pub(crate) fn known(value: &AtomicI64) -> Option<i64> {
    Some(value.load(Ordering::Acquire)).filter(|value| *value != UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    #[test]
    fn what_was_told_is_told_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ToldFile::open(folder.path()).told(), None);
        for told in [NOW, NOW - 5, NOW + 7] {
            ToldFile::open(folder.path()).tell(told);
            assert_eq!(ToldFile::open(folder.path()).told(), Some(told));
        }
        fs::write(folder.path().join(FILE), "17000000x").unwrap();
        assert_eq!(ToldFile::open(folder.path()).told(), None);
    }
}
