//! Whose spans the data directory holds: the own log's, or a partition's of Kafka.
//!
//! What the own log holds is nowhere else, so a process that reads Kafka must not take it over; what
//! was read from Kafka can be read again. A file says which it is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{error::Error, forgotten, kafka::KafkaFeed, local::create_folder, told};

const MARK: &str = "feed";
const OWN_LOG: &str = "own log";
/// Folder of the own log.
const SEGMENTS: &str = "segments";
/// Folder of what is live of Kafka; emptied at start.
const SCRATCH: &str = "scratch";
const BLOCKS: &str = "blocks";

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::Folder {
        path: path.to_owned(),
        source,
    }
}

/// Takes the data directory for a feed.
///
/// # Errors
/// When it holds spans of another feed that would be lost or doubled.
pub(crate) fn claim(data_path: &Path, kafka: Option<&KafkaFeed>) -> Result<(), Error> {
    let wanted = kafka.map_or_else(|| OWN_LOG.to_owned(), KafkaFeed::mark);
    let mark = data_path.join(MARK);
    let marked = match fs::read_to_string(&mark) {
        // Empty after a power loss, where a former version did not sync it.
        Ok(found) => Some(found.trim().to_owned()).filter(|found| !found.is_empty()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(unusable(&mark)(error)),
    };
    let is_marked = marked.is_some();
    let found = marked.unwrap_or_else(|| OWN_LOG.to_owned());
    if found != wanted && holds_spans(data_path)? {
        let refused = |remedy| Error::OtherFeed {
            path: data_path.to_owned(),
            found: found.clone(),
            wanted: wanted.clone(),
            remedy,
        };
        if found == OWN_LOG {
            return Err(refused(
                "start -target=all on it, POST /flush, and then give this process an empty live_store.wal.path",
            ));
        }
        if kafka.is_none() {
            return Err(refused(
                "its spans are in Kafka and in the object store; remove the folder or set another live_store.wal.path",
            ));
        }
        // Of another partition or topic: its blocks are of no use here.
        tracing::warn!(%found, %wanted, "data directory held another partition, emptied");
        let blocks = data_path.join(BLOCKS);
        fs::remove_dir_all(&blocks).map_err(unusable(&blocks))?;
    }
    if found != wanted || !is_marked {
        for of_another in [forgotten::FILE, told::FILE] {
            let path = data_path.join(of_another);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unusable(&path)(error));
                }
                _ => {}
            }
        }
        tempo_durable::write(&mark, format!("{wanted}\n").as_bytes()).map_err(unusable(&mark))?;
    }
    Ok(())
}

/// Whether there is anything besides empty folders.
fn holds_spans(data_path: &Path) -> Result<bool, Error> {
    for folder in [SEGMENTS, BLOCKS] {
        let path = data_path.join(folder);
        match fs::read_dir(&path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(&path)(error)),
        }
    }
    Ok(false)
}

/// The folder of segments; emptied where they are read again anyway.
pub(crate) fn segments(data_path: &Path, kafka: Option<&KafkaFeed>) -> Result<PathBuf, Error> {
    if kafka.is_none() {
        return Ok(data_path.join(SEGMENTS));
    }
    let scratch = data_path.join(SCRATCH);
    match fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(unusable(&scratch)(error));
        }
        _ => {}
    }
    create_folder(&scratch).map_err(unusable(&scratch))?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka(partition: i32) -> KafkaFeed {
        KafkaFeed {
            log: tempo_ingest::KafkaConfig {
                topic: "traces".to_owned(),
                ..tempo_ingest::KafkaConfig::default()
            },
            partition,
            group: "live-store".to_owned(),
            builders_group: "block-builder".to_owned(),
            boundary: crate::BoundarySettings {
                blocks_visible_after: std::time::Duration::ZERO,
                max_span_delay: std::time::Duration::ZERO,
            },
            commit_interval: std::time::Duration::from_secs(5),
            readiness_target_lag: std::time::Duration::ZERO,
            readiness_max_wait: std::time::Duration::ZERO,
            fail_on_high_lag: true,
        }
    }

    fn with_block(data_path: &Path) {
        fs::create_dir_all(data_path.join(BLOCKS).join("tenant")).unwrap();
    }

    #[test]
    fn an_empty_directory_is_anybodys() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), None).unwrap();
        claim(folder.path(), Some(&kafka(1))).unwrap();
        claim(folder.path(), None).unwrap();
    }

    #[test]
    fn what_only_the_own_log_holds_is_not_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        with_block(folder.path());
        // From before there was a mark.
        let refused = claim(folder.path(), Some(&kafka(1))).unwrap_err();
        assert!(refused.to_string().contains("POST /flush"), "{refused}");
        claim(folder.path(), None).unwrap();
        claim(folder.path(), Some(&kafka(1))).unwrap_err();
    }

    #[test]
    fn an_empty_mark_is_none() {
        let folder = tempfile::tempdir().unwrap();
        with_block(folder.path());
        fs::write(folder.path().join(MARK), b"").unwrap();
        claim(folder.path(), Some(&kafka(1))).unwrap_err();
        claim(folder.path(), None).unwrap();
        let mark = fs::read_to_string(folder.path().join(MARK)).unwrap();
        assert_eq!(mark.trim(), OWN_LOG);
    }

    #[test]
    fn what_came_from_kafka_is_not_flushed_once_more() {
        let folder = tempfile::tempdir().unwrap();
        claim(folder.path(), Some(&kafka(1))).unwrap();
        with_block(folder.path());
        let known = [forgotten::FILE, told::FILE].map(|name| folder.path().join(name));
        known.iter().for_each(|file| fs::write(file, "1").unwrap());
        let refused = claim(folder.path(), None).unwrap_err();
        assert!(
            refused.to_string().contains("remove the folder"),
            "{refused}"
        );
        claim(folder.path(), Some(&kafka(1))).unwrap();
        assert!(folder.path().join(BLOCKS).exists());
        assert!(known.iter().all(|file| file.exists()));
        claim(folder.path(), Some(&kafka(2))).unwrap();
        assert!(!folder.path().join(BLOCKS).exists());
        assert!(!known.iter().any(|file| file.exists()));
    }
}
