//! Files that outlive a crash of the process and of the machine.
//!
//! Owns the order of steps in which a small file is written. Must never know what is in it.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Writes a small file so that it is there whole or not at all, also after a power loss: it has
/// either its old contents or the new ones. One writer of a file at a time.
///
/// # Errors
/// When the disk does not take it; then the old contents are there.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => sync_folder(folder),
        _ => sync_folder(Path::new(".")),
    }
}

/// Makes durable which files a folder holds, under which names.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_keeps_its_contents() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        write(&path, b"old").unwrap();
        // Where the new contents would be prepared, there is no place for a file.
        fs::create_dir(folder.path().join("file.unfinished")).unwrap();
        write(&path, b"new").unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::remove_dir(folder.path().join("file.unfinished")).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
