//! All jobs, in memory and on disk.
//!
//! Owns Tempo's work files: 256 of them in a folder, `shard_000.json` and so on, each with the jobs
//! whose id hashes to it, and `batches.pb`, the redactions in progress and failed. A change is on disk
//! before anyone hears of it. All of it is in one object `work.json` of the bucket, too, for a scheduler
//! that lost its disk.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
};

use prost::Message;
use serde::{Deserialize, Serialize};
use tempo_model::hash::fnv1a_32;
use tempo_proto::tempopb;

use crate::{Error, Job, JobKind, JobStatus, conflict::Owner};

const SHARDS: usize = 256;
const LOCK: &str = "backend-scheduler.lock";
const BATCHES: &str = "batches.pb";

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    tempo_durable::write(path, bytes).map_err(|source| Error::Folder {
        path: path.to_owned(),
        source,
    })
}

/// The file that a job belongs to.
fn shard_of(id: &str) -> usize {
    (fnv1a_32(id.as_bytes()) & 0xff) as usize
}

fn shard_file(shard: usize) -> String {
    format!("shard_{shard:03}.json")
}

/// What a work file holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Shard {
    #[serde(default)]
    jobs: BTreeMap<String, Job>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pending_jobs: BTreeMap<String, Job>,
}

/// `work.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct WorkObject {
    #[serde(default)]
    pub(crate) shards: Vec<Shard>,
    /// Who wrote it. Not Tempo's, which ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
    /// What `batches.pb` holds. Not Tempo's, which keeps it on the disk alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "batches")]
    redactions: Vec<tempopb::RedactionBatch>,
}

/// `batches.pb` as base64, within JSON.
mod batches {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use prost::Message;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tempo_proto::tempopb::{RedactionBatch, RedactionBatches};

    pub(super) fn serialize<S: Serializer>(
        batches: &[RedactionBatch],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let message = RedactionBatches {
            batches: batches.to_vec(),
        };
        serializer.serialize_str(&BASE64_STANDARD.encode(message.encode_to_vec()))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        deserializer: D,
    ) -> Result<Vec<RedactionBatch>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
        let message = RedactionBatches::decode(bytes.as_slice()).map_err(D::Error::custom)?;
        Ok(message.batches)
    }
}

/// All jobs.
#[derive(Debug)]
pub(crate) struct Work {
    folder: PathBuf,
    /// Held as long as the jobs are used.
    _lock: File,
    jobs: HashMap<String, Job>,
    batches: Vec<tempopb::RedactionBatch>,
}

impl Work {
    /// Opens the folder, for this process alone. Whether there were jobs in it.
    pub(crate) fn open(folder: &Path) -> Result<(Self, bool), Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Folder { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let lock_path = folder.join(LOCK);
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::FolderInUse {
                    path: folder.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Folder {
                    path: lock_path,
                    source,
                });
            }
        }
        let mut work = Self {
            folder: folder.to_owned(),
            _lock: lock,
            jobs: HashMap::new(),
            batches: Vec::new(),
        };
        let mut any = false;
        for shard in 0..SHARDS {
            let path = folder.join(shard_file(shard));
            match fs::read(&path) {
                Ok(bytes) => {
                    any = true;
                    work.insert_shard(parse(&path.display().to_string(), &bytes)?);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&path)(error)),
            }
        }
        let path = folder.join(BATCHES);
        match fs::read(&path) {
            Ok(bytes) => {
                let batches = tempopb::RedactionBatches::decode(bytes.as_slice());
                work.batches = batches
                    .map_err(|error| Error::Corrupt {
                        place: path.display().to_string(),
                        problem: error.to_string(),
                    })?
                    .batches;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path)(error)),
        }
        Ok((work, any))
    }

    fn insert_shard(&mut self, shard: Shard) {
        let jobs = shard.jobs.into_iter().chain(shard.pending_jobs);
        self.jobs.extend(jobs);
    }

    /// Takes the jobs and redactions of `work.json`.
    pub(crate) fn load(&mut self, object: WorkObject) -> Result<(), Error> {
        let mut batches = object.redactions;
        for own in &self.batches {
            if batches.iter().all(|other| other.batch_id != own.batch_id) {
                batches.push(own.clone());
            }
        }
        self.set_batches(batches)?;
        for shard in object.shards {
            self.insert_shard(shard);
        }
        (0..SHARDS).try_for_each(|shard| self.write_shard(shard))
    }

    /// The jobs and redactions as `work.json` holds them.
    pub(crate) fn object(&self, owner: Owner) -> WorkObject {
        let mut shards = vec![Shard::default(); SHARDS];
        for job in self.jobs.values() {
            shards[shard_of(&job.id)].insert(job.clone());
        }
        WorkObject {
            shards,
            owner: Some(owner),
            redactions: self.batches.clone(),
        }
    }

    fn write_shard(&self, shard: usize) -> Result<(), Error> {
        let mut content = Shard::default();
        for job in self.jobs.values().filter(|job| shard_of(&job.id) == shard) {
            content.insert(job.clone());
        }
        let path = self.folder.join(shard_file(shard));
        let json = serde_json::to_vec(&content).map_err(|error| Error::Corrupt {
            place: path.display().to_string(),
            problem: error.to_string(),
        })?;
        replace(&path, &json)
    }

    /// Puts a job in place, on disk first.
    pub(crate) fn put(&mut self, job: Job) -> Result<(), Error> {
        self.put_all(vec![job])
    }

    /// [`Work::put`] for several. When it fails, some may be on disk, and none counts.
    pub(crate) fn put_all(&mut self, jobs: Vec<Job>) -> Result<(), Error> {
        let mut touched = HashSet::new();
        let mut before = Vec::with_capacity(jobs.len());
        for job in jobs {
            touched.insert(shard_of(&job.id));
            let id = job.id.clone();
            before.push((id.clone(), self.jobs.insert(id, job)));
        }
        let done = touched
            .into_iter()
            .try_for_each(|shard| self.write_shard(shard));
        if done.is_err() {
            for (id, old) in before.into_iter().rev() {
                match old {
                    Some(old) => self.jobs.insert(id, old),
                    None => self.jobs.remove(&id),
                };
            }
        }
        done
    }

    /// Notes a sign of life; not kept.
    pub(crate) fn see(&mut self, id: &str, now: tempo_backend::Timestamp) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.seen = Some(now);
        }
    }

    pub(crate) fn remove(&mut self, ids: &[String]) -> Result<(), Error> {
        let mut touched = HashSet::new();
        for id in ids {
            if self.jobs.remove(id).is_some() {
                touched.insert(shard_of(id));
            }
        }
        touched
            .into_iter()
            .try_for_each(|shard| self.write_shard(shard))
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Job> {
        self.jobs.get(id)
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// The job that a worker has and has not ended.
    pub(crate) fn running_of(&self, worker: &str) -> Option<&Job> {
        self.jobs()
            .find(|job| job.status == JobStatus::Running && job.worker_id == worker)
    }

    /// Pending jobs of a kind, oldest first.
    pub(crate) fn oldest_pending(&self, kind: JobKind) -> Option<&Job> {
        self.jobs()
            .filter(|job| job.status == JobStatus::Pending && job.kind == kind)
            .min_by_key(|job| (job.created_time, &job.id))
    }

    /// The redactions in progress, and those that failed.
    pub(crate) fn batches(&self) -> &[tempopb::RedactionBatch] {
        &self.batches
    }

    /// The redactions that left blocks as they were, and were not asked for again.
    pub(crate) fn failed_batches(&self) -> impl Iterator<Item = &tempopb::RedactionBatch> {
        let failed = |batch: &&tempopb::RedactionBatch| batch.failed_at_unix_nano != 0;
        self.batches.iter().filter(failed)
    }

    /// The redaction of a tenant that is in progress.
    pub(crate) fn batch_of(&self, tenant: &str) -> Option<&tempopb::RedactionBatch> {
        let mut batches = self.batches.iter();
        batches.find(|batch| batch.tenant_id == tenant && batch.failed_at_unix_nano == 0)
    }

    /// Replaces the redactions, on disk first.
    pub(crate) fn set_batches(
        &mut self,
        batches: Vec<tempopb::RedactionBatch>,
    ) -> Result<(), Error> {
        let message = tempopb::RedactionBatches {
            batches: batches.clone(),
        };
        replace(&self.folder.join(BATCHES), &message.encode_to_vec())?;
        self.batches = batches;
        Ok(())
    }
}

impl Shard {
    fn insert(&mut self, job: Job) {
        let jobs = match job.status {
            JobStatus::Pending => &mut self.pending_jobs,
            _ => &mut self.jobs,
        };
        jobs.insert(job.id.clone(), job);
    }
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(place: &str, bytes: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Corrupt {
        place: place.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use tempo_backend::Timestamp;

    use super::*;

    #[test]
    fn jobs_lie_where_tempo_looks_for_them() {
        assert_eq!(shard_of("6f1e1d0c-0000-4000-8000-000000000001"), 176);
        assert_eq!(shard_of("6f1e1d0c-0000-4000-8000-000000000002"), 105);
        assert_eq!(
            serde_json::to_string(&Shard::default()).unwrap(),
            r#"{"jobs":{}}"#
        );
    }

    #[test]
    fn jobs_survive_a_restart_and_the_folder_is_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut work, any) = Work::open(folder.path()).unwrap();
        assert!(!any);
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let mut running = Job::compaction("t", vec!["a".into(), "b".into()], now);
        running.status = JobStatus::Running;
        let pending = Job::retention("t", now);
        work.put(running.clone()).unwrap();
        work.put(pending.clone()).unwrap();
        work.set_batches(vec![tempopb::RedactionBatch {
            batch_id: "b".into(),
            trace_ids: vec![vec![1; 16]],
            ..Default::default()
        }])
        .unwrap();
        assert!(matches!(
            Work::open(folder.path()),
            Err(Error::FolderInUse { .. })
        ));
        drop(work);
        let (mut work, any) = Work::open(folder.path()).unwrap();
        assert!(any);
        assert_eq!(work.get(&running.id), Some(&running));
        assert_eq!(work.get(&pending.id), Some(&pending));
        assert_eq!(work.batches()[0].trace_ids, [[1; 16]]);
        work.remove(&[running.id.clone()]).unwrap();
        drop(work);
        let (work, _) = Work::open(folder.path()).unwrap();
        assert_eq!(work.get(&running.id), None);
        assert_eq!(work.jobs().count(), 1);
    }

    #[test]
    fn a_job_is_written_as_tempo_reads_it() {
        let mut job = Job::compaction("t", vec!["a".into()], Timestamp::from_unix_seconds(0));
        job.id = "i".into();
        job.status = JobStatus::Running;
        job.worker_id = "w".into();
        let json = serde_json::to_value(&job).unwrap();
        assert_eq!(json["type"], 1);
        assert_eq!(json["status"], 3);
        assert_eq!(
            json["job_detail"],
            serde_json::json!({"tenant": "t", "compaction": {"input": ["a"]}})
        );
        assert_eq!(json["start_time"], "0001-01-01T00:00:00Z");
        assert_eq!(serde_json::from_value::<Job>(json).unwrap(), job);
    }

    #[test]
    fn damage_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("shard_007.json"), "{").unwrap();
        let error = Work::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("shard_007.json"), "{error}");
    }
}
