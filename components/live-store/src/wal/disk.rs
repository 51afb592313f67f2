//! The few file operations of the log, as a seam: tests put a full or lying disk in its place.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// A segment file.
pub(crate) trait LogFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when everything written is on the medium.
    fn sync_data(&self) -> io::Result<()>;
    /// Cuts the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Fills `bytes` from `offset`.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl LogFile for File {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

/// Where segment files are made.
pub(crate) trait Disk: Send + Sync {
    /// Creates a file that must not exist yet.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Returns when the entries of `directory` are on the medium.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Bytes that may still be written under `directory`.
    fn free_bytes(&self, directory: &Path) -> io::Result<u64>;
}

/// The file system.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let stats = rustix::fs::statvfs(directory)?;
        Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
    }
}

/// The file system, for what need not survive the process: nothing is synced.
#[derive(Debug)]
pub(crate) struct ScratchDisk;

struct ScratchFile(Box<dyn LogFile>);

impl LogFile for ScratchFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }
}

impl Disk for ScratchDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(ScratchFile(RealDisk.create(path)?)))
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(directory)
    }
}

#[cfg(test)]
pub(crate) mod faulty {
    //! A disk that fails on demand.

    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    };

    use super::*;

    #[derive(Default)]
    struct Faults {
        /// Bytes that may still be written before `ENOSPC`; checked while `limited`.
        budget: AtomicU64,
        limited: AtomicBool,
        fail_sync: AtomicBool,
        fail_truncate: AtomicBool,
        fail_create: AtomicBool,
        free: AtomicU64,
        syncs: AtomicU64,
    }

    #[derive(Clone)]
    pub(crate) struct FaultyDisk(Arc<Faults>);

    impl Default for FaultyDisk {
        fn default() -> Self {
            let faults = Faults::default();
            faults.free.store(u64::MAX, Ordering::SeqCst);
            Self(Arc::new(faults))
        }
    }

    impl FaultyDisk {
        /// `Some(n)`: after `n` more bytes every write fails half-way with `ENOSPC`.
        pub(crate) fn limit(&self, budget: Option<u64>) {
            self.0.budget.store(budget.unwrap_or(0), Ordering::SeqCst);
            self.0.limited.store(budget.is_some(), Ordering::SeqCst);
        }

        pub(crate) fn fail_sync(&self, fail: bool) {
            self.0.fail_sync.store(fail, Ordering::SeqCst);
        }

        pub(crate) fn fail_truncate(&self, fail: bool) {
            self.0.fail_truncate.store(fail, Ordering::SeqCst);
        }

        pub(crate) fn fail_create(&self, fail: bool) {
            self.0.fail_create.store(fail, Ordering::SeqCst);
        }

        pub(crate) fn set_free_bytes(&self, bytes: u64) {
            self.0.free.store(bytes, Ordering::SeqCst);
        }

        pub(crate) fn syncs(&self) -> u64 {
            self.0.syncs.load(Ordering::SeqCst)
        }
    }

    struct FaultyFile(Box<dyn LogFile>, FaultyDisk);

    fn no_space() -> io::Error {
        io::Error::from(rustix::io::Errno::NOSPC)
    }

    impl LogFile for FaultyFile {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let faults = &self.1.0;
            if faults.limited.load(Ordering::SeqCst) {
                let budget = faults.budget.load(Ordering::SeqCst);
                let fits = bytes.len().min(budget as usize);
                faults.budget.store(budget - fits as u64, Ordering::SeqCst);
                self.0.write_all_at(&bytes[..fits], offset)?;
                return if fits < bytes.len() {
                    Err(no_space())
                } else {
                    Ok(())
                };
            }
            self.0.write_all_at(bytes, offset)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.1.0.syncs.fetch_add(1, Ordering::SeqCst);
            if self.1.0.fail_sync.load(Ordering::SeqCst) {
                return Err(io::Error::from(rustix::io::Errno::IO));
            }
            self.0.sync_data()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            if self.1.0.fail_truncate.load(Ordering::SeqCst) {
                return Err(io::Error::from(rustix::io::Errno::IO));
            }
            self.0.set_len(len)
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_exact_at(bytes, offset)
        }
    }

    impl Disk for FaultyDisk {
        fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
            if self.0.fail_create.load(Ordering::SeqCst) {
                return Err(no_space());
            }
            Ok(Box::new(FaultyFile(RealDisk.create(path)?, self.clone())))
        }

        fn sync_directory(&self, directory: &Path) -> io::Result<()> {
            RealDisk.sync_directory(directory)
        }

        fn free_bytes(&self, _: &Path) -> io::Result<u64> {
            Ok(self.0.free.load(Ordering::SeqCst))
        }
    }
}
