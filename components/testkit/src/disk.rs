//! A small disk that a test can fill.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// A file system of its own, in memory; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// Mounts one of so many KiB.
    ///
    /// # Errors
    /// When this is not permitted: it needs root.
    pub fn mount(kibibytes: u32) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kibibytes}k"), "tmpfs"])
            .arg(folder.path())
            .status()?;
        if mounted.success() {
            return Ok(Self(folder));
        }
        Err(io::Error::other(
            "mounting a tmpfs needs root; run the tests as root",
        ))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room for anybody, until [`SmallDisk::relieve`].
    ///
    /// # Errors
    /// For anything but a full disk.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = File::create(self.ballast())?;
        let mut piece = 64 << 10;
        let zeros = vec![0; piece];
        loop {
            match ballast.write_all(&zeros[..piece]) {
                Ok(()) => {}
                // What is left may be smaller than a piece.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => match piece {
                    1 => return Ok(()),
                    _ => piece /= 2,
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When it was not full.
    pub fn relieve(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
