//! Connections to live-stores: one each, made when first needed, used by all calls.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use prometheus::IntGauge;
use tempo_api::{
    job::{Job, JobError, JobResult},
    wire,
};
use tempo_proto::tempostack::query::v1::{RunRequest, jobs_client::JobsClient};
use tempo_runtime::{causes::with_causes, outgoing, tls::Connector};
use tonic::{Code, transport::Channel};

/// Connections by address.
pub(super) struct Connections {
    channels: Mutex<HashMap<String, Channel>>,
    connect_timeout: Duration,
    /// None: in plain text.
    tls: Option<Connector>,
    /// How many there are.
    count: IntGauge,
}

impl Connections {
    pub(super) fn new(connect_timeout: Duration, tls: Option<Connector>, count: IntGauge) -> Self {
        Self {
            channels: Mutex::default(),
            connect_timeout,
            tls,
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
        let connection = outgoing::connection(address, self.connect_timeout, self.tls.as_ref());
        let channel = connection.map_err(|error| {
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

/// A status with its causes.
pub(crate) fn full_text(status: &tonic::Status) -> String {
    with_causes(status.message(), status)
}
