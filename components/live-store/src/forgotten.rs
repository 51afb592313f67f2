//! Until when spans were let go: queries over time must not take what is left for all there was.
//!
//! It is kept in a file, since the next start must refuse what this process refused. Must be saved
//! before anything is let go for good, where other processes ask.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use crate::error::Error;

/// Name of the file: decimal nanoseconds since the epoch, always as long, so that it is written in
/// place.
pub(crate) const FILE: &str = "forgotten";

/// Until when spans were let go.
#[derive(Debug)]
pub(crate) struct Forgotten {
    /// Nanoseconds since the epoch.
    until: AtomicU64,
    path: PathBuf,
    was_there: bool,
    /// What is in it; none while there is none.
    saved: Mutex<Option<u64>>,
}

fn contents(until: u64) -> String {
    format!("{until:020}\n")
}

impl Forgotten {
    /// Goes on with what an earlier process let go by `now`, nanoseconds since the epoch. A damaged
    /// file is as good as none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn open(data_path: &Path, now: u64) -> Result<Self, Error> {
        let path = data_path.join(FILE);
        let parse = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse().ok();
        let saved: Option<u64> = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).or_else(|| {
                tracing::error!(path = %path.display(), "damaged, as if it was not there");
                None
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Folder { path, source }),
        };
        // Later only by a clock that was wrong.
        let until = saved.unwrap_or(0).min(now);
        Ok(Self {
            until: AtomicU64::new(until),
            path,
            was_there: saved.is_some(),
            saved: Mutex::new(saved),
        })
    }

    /// Whether an earlier process has told what it let go.
    pub(crate) fn was_told(&self) -> bool {
        self.was_there
    }

    /// Whether spans that began at this time or later (nanoseconds since the epoch) may have been
    /// let go.
    pub(crate) fn reaches(&self, start_unix_nanos: u64) -> bool {
        start_unix_nanos < self.until.load(Ordering::Acquire)
    }

    /// Spans that began before are not all here. The next process finds that out by itself, until
    /// [`Forgotten::save`] lets it go on where this one was.
    pub(crate) fn lacks(&self, until_unix_nanos: u64) {
        self.until.fetch_max(until_unix_nanos, Ordering::AcqRel);
    }

    /// Returns when this process and the next know that spans which began before are not all here.
    ///
    /// # Errors
    /// When the disk does not take it; they must stay then.
    pub(crate) fn let_go(&self, until_unix_nanos: u64) -> io::Result<()> {
        let mut saved = self.saved.lock();
        let until = until_unix_nanos.max(self.until.load(Ordering::Acquire));
        match *saved {
            None => tempo_durable::write(&self.path, contents(until).as_bytes())?,
            Some(saved) if saved >= until => {}
            Some(_) => {
                let opened = fs::File::options().write(true).open(&self.path)?;
                opened.write_all_at(contents(until).as_bytes(), 0)?;
                opened.sync_data()?;
            }
        }
        *saved = Some(until.max(saved.unwrap_or(0)));
        drop(saved);
        self.lacks(until_unix_nanos);
        Ok(())
    }

    /// Returns when the next process knows what this one does.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn save(&self) -> io::Result<()> {
        self.let_go(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn what_was_let_go_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = Forgotten::open(folder.path(), NOW).unwrap();
        assert!(!first.was_told());
        assert!(!first.reaches(0));
        drop(first);
        let first = Forgotten::open(folder.path(), NOW).unwrap();
        assert!(!first.was_told(), "nothing was decided");
        first.let_go(0).unwrap();
        assert!(!first.reaches(0));
        first.let_go(300).unwrap();
        first.lacks(500);
        first.save().unwrap();
        first.let_go(400).unwrap();
        // Not saved.
        first.lacks(NOW);
        assert!(first.reaches(NOW - 1) && !first.reaches(NOW));
        for _ in 0..2 {
            let next = Forgotten::open(folder.path(), NOW).unwrap();
            assert!(next.was_told());
            assert!(next.reaches(499) && !next.reaches(500));
        }
    }

    #[test]
    fn nothing_was_let_go_that_is_yet_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let first = Forgotten::open(folder.path(), NOW).unwrap();
        first.let_go(NOW + 500).unwrap();
        let next = Forgotten::open(folder.path(), NOW).unwrap();
        assert!(next.reaches(NOW - 1) && !next.reaches(NOW));
        next.let_go(NOW + 600).unwrap();
        let next = Forgotten::open(folder.path(), NOW + 600).unwrap();
        assert!(next.reaches(NOW + 599));
    }

    #[test]
    fn a_damaged_file_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), b"1\xff").unwrap();
        let damaged = Forgotten::open(folder.path(), NOW).unwrap();
        assert!(!damaged.was_told());
        assert!(!damaged.reaches(0));
        damaged.let_go(7).unwrap();
        let next = Forgotten::open(folder.path(), NOW).unwrap();
        assert!(next.was_told() && next.reaches(6));
    }

    #[test]
    fn what_cannot_be_saved_is_not_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let forgotten = Forgotten::open(folder.path(), NOW).unwrap();
        forgotten.let_go(5).unwrap();
        fs::remove_file(folder.path().join(FILE)).unwrap();
        forgotten.save().unwrap();
        forgotten.let_go(6).unwrap_err();
        assert!(forgotten.reaches(4) && !forgotten.reaches(5), "it stays");
    }
}
