//! A directory of this machine.
//!
//! Files are written beside their place (`name#1`), synced, and renamed; then the directory is
//! synced. What a crash leaves of such a file is removed at the next start.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use object_store::local::LocalFileSystem;

use crate::{
    Backend, BackendConfig, Error, LocalConfig,
    backend::{Inner, StoreKind, WriteSettings},
    keys::Prefix,
};

/// Bytes that are gathered before they go to the file.
const PART_BYTES: usize = 1024 * 1024;

/// An unfinished file that nobody has written to for this long belongs to no process any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

pub(super) async fn open(config: &BackendConfig, local: &LocalConfig) -> Result<Backend, Error> {
    let unusable = |error: &dyn std::fmt::Display| {
        Error::config(
            format!("{}.local.path", config.section),
            format!(
                "directory '{}' cannot be used: {error}; it must be writable by this process",
                local.path.display()
            ),
        )
    };
    create_private_directory(&local.path).map_err(|error| unusable(&error))?;
    let root = local
        .path
        .canonicalize()
        .map_err(|error| unusable(&error))?;
    std::fs::read_dir(&root).map_err(|error| unusable(&error))?;
    let swept = root.clone();
    tokio::task::spawn_blocking(move || sweep(&swept, SystemTime::now()))
        .await
        .map_err(|error| unusable(&error))?
        .map_err(|error| unusable(&error))?;
    let store = LocalFileSystem::new_with_prefix(&root)
        .map_err(|error| unusable(&error))?
        .with_automatic_cleanup(true)
        .with_fsync(true);
    Ok(Backend {
        inner: Arc::new(Inner {
            store: Arc::new(store),
            prefix: Prefix::default(),
            kind: StoreKind::Local,
            reads: config.reads.clone(),
            writes: WriteSettings {
                part_bytes: PART_BYTES,
                parts_in_flight: 1,
                max_parts: usize::MAX,
                ..WriteSettings::default()
            },
            list_blocks_concurrency: 1,
            local_root: Some(root),
            runtime: tokio::runtime::Handle::current(),
        }),
    })
}

/// Creates a directory, and those above it, for this user alone. It is there to stay when this
/// returns: what is written into a directory is lost with it.
fn create_private_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    for created in missing {
        let parent = match created.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Removes unfinished files of blocks: `<tenant>/<block>/<name>#<digits>`.
fn sweep(root: &Path, now: SystemTime) -> io::Result<()> {
    for tenant in directories(root)? {
        for block in directories(&tenant)? {
            for entry in std::fs::read_dir(&block)? {
                let entry = entry?;
                let name = entry.file_name();
                if !is_unfinished(&name.to_string_lossy()) {
                    continue;
                }
                let written = entry.metadata()?.modified()?;
                if now.duration_since(written).unwrap_or_default() > ABANDONED_AFTER {
                    std::fs::remove_file(entry.path())?;
                    tracing::info!(path = %entry.path().display(), "unfinished file removed");
                }
            }
        }
    }
    Ok(())
}

fn directories(parent: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, digits)| {
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_made_with_those_above_and_for_its_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/c");
        for _ in 0..2 {
            create_private_directory(&path).unwrap();
            for made in [&path, path.parent().unwrap()] {
                let mode = made.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o700);
            }
        }
        std::fs::write(path.join("file"), "x").unwrap();
        assert!(create_private_directory(&path.join("file")).is_err());
    }

    #[test]
    fn only_abandoned_unfinished_files_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let block = directory.path().join("t/b");
        std::fs::create_dir_all(&block).unwrap();
        for name in ["data.parquet#1", "data.parquet", "x#y"] {
            std::fs::write(block.join(name), "x").unwrap();
        }
        sweep(directory.path(), SystemTime::now()).unwrap();
        assert!(block.join("data.parquet#1").exists());
        let later = SystemTime::now() + ABANDONED_AFTER + Duration::from_secs(5);
        sweep(directory.path(), later).unwrap();
        assert!(!block.join("data.parquet#1").exists());
        assert!(block.join("data.parquet").exists());
        assert!(block.join("x#y").exists());
    }
}
