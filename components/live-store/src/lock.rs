//! One process per data directory.

use std::{
    fs::{File, OpenOptions},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;

/// Takes the data directory for as long as the file is open. The system lets go of it when the
/// process ends, however it ends.
pub(crate) fn acquire(data_path: &Path) -> Result<File, Error> {
    let path = data_path.join("lock");
    let unusable = |source: std::io::Error| Error::Folder {
        path: path.clone(),
        source,
    };
    crate::local::create_folder(data_path).map_err(unusable)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unusable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::InUse { path }),
        Err(error) => Err(unusable(error.into())),
    }
}
