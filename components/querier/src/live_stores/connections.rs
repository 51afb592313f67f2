//! Connections to live-stores: one each, made when first needed, used by all calls.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tempo_api::{
    job::{Job, JobError, JobResult},
    wire,
};
use tempo_proto::tempostack::query::v1::{RunRequest, jobs_client::JobsClient};
use tempo_runtime::outgoing;
use tonic::{Code, transport::Channel};

/// Connections by address.
pub(super) struct Connections {
    channels: Mutex<HashMap<String, Channel>>,
    connect_timeout: Duration,
    /// How many there are.
    count: IntGauge,
}

impl Connections {
    pub(super) fn new(connect_timeout: Duration, count: IntGauge) -> Self {
        Self {
            channels: Mutex::default(),
            connect_timeout,
            count,
        }
    }

    /// Forgets the connections to addresses that nobody has any more; calls that run go on.
    pub(super) fn keep_only(&self, is_known: impl Fn(&str) -> bool) {
        let mut channels = self.channels.lock();
        channels.retain(|address, _| is_known(address));
        self.count.set(channels.len() as i64);
    }

    fn channel(&self, address: &str) -> Result<Channel, JobError> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = outgoing::connection(address, self.connect_timeout).map_err(|error| {
            JobError::Unavailable(format!("address {address} of a live-store: {error}"))
        })?;
        channels.insert(address.to_owned(), channel.clone());
        self.count.set(channels.len() as i64);
        Ok(channel)
    }

    /// Runs a job at a live-store. Dropping the future cancels it there.
    pub(super) async fn run(
        &self,
        address: &str,
        tenant: &str,
        job: &Job,
        timeout: Duration,
        max_series_bytes: usize,
    ) -> JobResult {
        let request = RunRequest {
            tenant: tenant.to_owned(),
            job: Some(wire::encode_job(job)),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let answered = JobsClient::new(self.channel(address)?)
            .max_decoding_message_size(wire::MAX_RESULT_BYTES)
            .run(request)
            .await;
        match answered {
            Ok(result) => wire::decode_result(result.into_inner(), max_series_bytes),
            Err(status) => Err(match status.code() {
                // A version without this service.
                Code::Unimplemented | Code::InvalidArgument => {
                    JobError::Failed(format!("live-store {address}: {}", status.message()))
                }
                Code::OutOfRange => JobError::OverBudget(status.message().to_owned()),
                _ => JobError::Unavailable(format!("live-store {address}: {}", full_text(&status))),
            }),
        }
    }
}

/// A status with its causes: "transport error" alone tells nothing.
pub(crate) fn full_text(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let error_text = error.to_string();
        if !text.contains(&error_text) {
            text = format!("{text}: {error_text}");
        }
        cause = error.source();
    }
    text
}
