//! Jobs, as they are kept: the JSON of Tempo's work files.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use tempo_backend::Timestamp;
use tempo_proto::tempopb;
use uuid::Uuid;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Merges blocks.
    Compaction,
    /// Ends blocks that have lived long enough.
    Retention,
    /// Removes traces from a block.
    Redaction,
}

impl JobKind {
    /// The value of the label `job_type`.
    pub fn label(self) -> &'static str {
        self.proto().as_str_name()
    }

    pub(crate) fn proto(self) -> tempopb::JobType {
        match self {
            Self::Compaction => tempopb::JobType::Compaction,
            Self::Retention => tempopb::JobType::Retention,
            Self::Redaction => tempopb::JobType::Redaction,
        }
    }

    fn from_number(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Compaction),
            2 => Some(Self::Retention),
            3 => Some(Self::Redaction),
            _ => None,
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// Not handed out.
    Pending,
    /// Handed out.
    Running,
    /// Done.
    Succeeded,
    /// Given up.
    Failed,
}

impl JobStatus {
    fn number(self) -> i32 {
        match self {
            Self::Pending => 0,
            Self::Succeeded => 1,
            Self::Failed => 2,
            Self::Running => 3,
        }
    }

    fn from_number(number: i32) -> Option<Self> {
        [Self::Pending, Self::Succeeded, Self::Failed, Self::Running]
            .into_iter()
            .find(|status| status.number() == number)
    }

    /// Whether nothing more comes of the job.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id, a UUID.
    pub id: String,
    /// What it does.
    #[serde(rename = "type", with = "kind")]
    pub kind: JobKind,
    /// To what.
    #[serde(rename = "job_detail")]
    pub detail: Detail,
    /// How far it is.
    #[serde(with = "status")]
    pub status: JobStatus,
    /// When it was made.
    #[serde(default)]
    pub created_time: Timestamp,
    /// When it was handed out.
    #[serde(default)]
    pub start_time: Timestamp,
    /// When it was done.
    #[serde(default)]
    pub end_time: Timestamp,
    /// Who has it.
    #[serde(default)]
    pub worker_id: String,
    /// How often it was handed out again.
    #[serde(default)]
    pub retries: u32,
    /// The last sign of life of its worker; not kept.
    #[serde(skip)]
    pub(crate) seen: Option<Timestamp>,
}

/// What a job is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// The tenant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Of a compaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compaction: Option<Compaction>,
    /// Of a retention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// Of a redaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    /// The batch of a redaction.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub batch_id: String,
}

/// What a compaction merges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// Blocks to be merged, as text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input: Vec<String>,
    /// What became of them, or is about to: known from the moment before it is public.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
}

/// Nothing is to be said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retention {}

/// What a redaction removes. Which traces is known to its batch, and added when it is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Redaction {
    /// The block.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub block_id: String,
    /// 16 bytes each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace_ids: Vec<Base64>,
}

/// Bytes as JSON holds them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

impl Job {
    pub(crate) fn new(kind: JobKind, detail: Detail, now: Timestamp) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            kind,
            detail,
            status: JobStatus::Pending,
            created_time: now,
            start_time: Timestamp::ZERO,
            end_time: Timestamp::ZERO,
            worker_id: String::new(),
            retries: 0,
            seen: None,
        }
    }

    pub(crate) fn compaction(tenant: &str, input: Vec<String>, now: Timestamp) -> Self {
        let detail = Detail {
            tenant: tenant.to_owned(),
            compaction: Some(Compaction {
                input,
                output: Vec::new(),
            }),
            ..Detail::default()
        };
        Self::new(JobKind::Compaction, detail, now)
    }

    pub(crate) fn retention(tenant: &str, now: Timestamp) -> Self {
        let detail = Detail {
            tenant: tenant.to_owned(),
            retention: Some(Retention {}),
            ..Detail::default()
        };
        Self::new(JobKind::Retention, detail, now)
    }

    pub(crate) fn redaction(tenant: &str, batch: &str, block: String, now: Timestamp) -> Self {
        let detail = Detail {
            tenant: tenant.to_owned(),
            redaction: Some(Redaction {
                block_id: block,
                trace_ids: Vec::new(),
            }),
            batch_id: batch.to_owned(),
            ..Detail::default()
        };
        Self::new(JobKind::Redaction, detail, now)
    }

    /// The tenant.
    pub fn tenant(&self) -> &str {
        &self.detail.tenant
    }

    /// The blocks that it works on, as text.
    pub fn blocks(&self) -> impl Iterator<Item = &str> {
        let compaction = self
            .detail
            .compaction
            .iter()
            .flat_map(|detail| &detail.input);
        let redaction = self.detail.redaction.iter().map(|detail| &detail.block_id);
        compaction.chain(redaction).map(String::as_str)
    }

    /// Of a compaction: the blocks that become of it, or are about to.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = Uuid> {
        let outputs = self
            .detail
            .compaction
            .iter()
            .flat_map(|detail| &detail.output);
        outputs.filter_map(|id| Uuid::try_parse(id).ok())
    }

    /// As a worker gets it.
    pub(crate) fn response(
        &self,
        batch: Option<&tempopb::RedactionBatch>,
    ) -> tempopb::NextJobResponse {
        let detail = &self.detail;
        let compaction = detail
            .compaction
            .as_ref()
            .map(|detail| tempopb::CompactionDetail {
                input: detail.input.clone(),
                output: detail.output.clone(),
            });
        let redaction = detail
            .redaction
            .as_ref()
            .map(|detail| tempopb::RedactionDetail {
                block_id: detail.block_id.clone(),
                trace_ids: batch
                    .map(|batch| batch.trace_ids.clone())
                    .unwrap_or_default(),
                query: batch.and_then(|batch| batch.query.clone()),
                mode: batch.map_or(0, |batch| batch.mode),
                start_time_unix_nano: batch.map_or(0, |batch| batch.start_time_unix_nano),
                end_time_unix_nano: batch.map_or(0, |batch| batch.end_time_unix_nano),
            });
        tempopb::NextJobResponse {
            job_id: self.id.clone(),
            r#type: self.kind.proto().into(),
            detail: Some(tempopb::JobDetail {
                tenant: detail.tenant.clone(),
                compaction,
                retention: detail
                    .retention
                    .as_ref()
                    .map(|_| tempopb::RetentionDetail {}),
                redaction,
                batch_id: detail.batch_id.clone(),
            }),
        }
    }
}

mod kind {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        kind: &JobKind,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(kind.proto().into())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<JobKind, D::Error> {
        let number = i32::deserialize(deserializer)?;
        JobKind::from_number(number)
            .ok_or_else(|| D::Error::custom(format!("{number} is not the type of a job")))
    }
}

mod status {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        status: &JobStatus,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i32(status.number())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<JobStatus, D::Error> {
        let number = i32::deserialize(deserializer)?;
        JobStatus::from_number(number)
            .ok_or_else(|| D::Error::custom(format!("{number} is not the status of a job")))
    }
}
