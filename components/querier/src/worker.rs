//! Takes jobs from query-frontends.
//!
//! Every address of the query-frontends gets some streams, and every stream is a place for one job
//! at a time. So all of them together never run more jobs than there may be, and a query-frontend
//! that comes or goes changes how the places are shared.

mod shares;
mod stream;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tempo_runtime::{
    outgoing,
    tls::{ClientTls, Connector},
};
use tokio::{net::lookup_host, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Channel;

use self::{
    shares::{one_family, streams_per_frontend},
    stream::Place,
};
use crate::{Error, Querier};

/// Streams of one connection; servers take 100 by default, some of which others may need.
const STREAMS_PER_CONNECTION: usize = 64;

/// How a querier finds its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// `host:port` of the query-frontends; the name stands for all of its addresses.
    pub frontend_address: String,
    /// How often the name is looked up.
    pub dns_lookup_interval: Duration,
    /// Jobs at once per query-frontend, unless all jobs are shared among them.
    pub parallelism: usize,
    /// Whether the jobs that the querier may run at once are shared among the query-frontends.
    pub match_max_concurrent: bool,
    /// Name of this querier.
    pub querier_id: String,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// TLS towards query-frontends; none: in plain text.
    pub tls: Option<ClientTls>,
    /// First wait after a stream broke.
    pub min_backoff: Duration,
    /// Longest wait.
    pub max_backoff: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            frontend_address: String::new(),
            dns_lookup_interval: Duration::from_secs(10),
            parallelism: 2,
            match_max_concurrent: true,
            querier_id: String::new(),
            connect_timeout: Duration::from_secs(5),
            tls: None,
            min_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
        }
    }
}

/// Takes jobs from query-frontends and runs them.
pub struct Worker {
    config: WorkerConfig,
    querier: Querier,
    tls: Option<Connector>,
}

/// A query-frontend, and the places that it has here.
struct Frontend {
    /// Cancelled one by one when places are taken back.
    places: Vec<CancellationToken>,
    /// Each used by some of the places.
    channels: Vec<Channel>,
}

impl Worker {
    /// Checks the settings.
    ///
    /// # Errors
    /// When no query-frontend is named, nothing could run, or the files of TLS cannot be used.
    pub fn build(config: WorkerConfig, querier: Querier) -> Result<Self, Error> {
        let refuse = |setting, problem: &str| {
            Err(Error::Setting {
                setting,
                problem: problem.to_owned(),
            })
        };
        if config.frontend_address.is_empty() {
            return refuse(
                "querier.frontend_worker.frontend_address",
                "must name the query-frontends, host and port; without them there are no jobs",
            );
        }
        if !config.frontend_address.contains(':') {
            return refuse(
                "querier.frontend_worker.frontend_address",
                "must be host:port, and has no port",
            );
        }
        if !config.match_max_concurrent && config.parallelism == 0 {
            return refuse(
                "querier.frontend_worker.parallelism",
                "must be greater than 0",
            );
        }
        if config.dns_lookup_interval.is_zero() {
            return refuse(
                "querier.frontend_worker.dns_lookup_duration",
                "must be greater than 0",
            );
        }
        let host = config
            .frontend_address
            .rsplit_once(':')
            .map_or(&*config.frontend_address, |(host, _)| host);
        let load = |tls: &ClientTls| match Connector::load(tls.clone()) {
            Ok(connector) => Ok(connector.for_host(host)),
            Err(error) => Err(Error::Setting {
                setting: "querier.frontend_worker.grpc_client_config",
                problem: error.to_string(),
            }),
        };
        Ok(Self {
            tls: config.tls.as_ref().map(load).transpose()?,
            config,
            querier,
        })
    }

    /// Runs until `shutdown`; then takes no more jobs, and ends when those it has are answered.
    pub async fn run(self, shutdown: CancellationToken) {
        let config = Arc::new(self.config);
        let tasks = TaskTracker::new();
        let mut frontends: HashMap<SocketAddr, Frontend> = HashMap::new();
        let mut lookups = tokio::time::interval(config.dns_lookup_interval);
        lookups.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = lookups.tick() => {}
            }
            let addresses = tokio::select! {
                () = shutdown.cancelled() => break,
                found = lookup_host(&config.frontend_address) => found,
            };
            let addresses = match addresses {
                Ok(addresses) => one_family(addresses.collect()),
                Err(error) => {
                    // Those that are known may well be there.
                    tracing::warn!(
                        %error,
                        address = config.frontend_address,
                        "query-frontends not found by name, trying again"
                    );
                    continue;
                }
            };
            frontends.retain(|address, frontend| {
                let stays = addresses.contains(address);
                if !stays {
                    tracing::info!(%address, "query-frontend is gone");
                    frontend.resize(0);
                }
                stays
            });
            let shares = match config.match_max_concurrent {
                true => streams_per_frontend(self.querier.max_concurrent_jobs(), addresses.len()),
                false => vec![config.parallelism; addresses.len()],
            };
            for (address, places) in addresses.into_iter().zip(shares) {
                let frontend = frontends.entry(address).or_insert_with(|| {
                    tracing::info!(%address, "query-frontend found");
                    Frontend {
                        places: Vec::new(),
                        channels: Vec::new(),
                    }
                });
                frontend.resize(places);
                while frontend.places.len() < places {
                    let channel = frontend.channel(address, &config, self.tls.as_ref());
                    let Some(channel) = channel else {
                        break;
                    };
                    let leaving = CancellationToken::new();
                    frontend.places.push(leaving.clone());
                    let place = Place {
                        config: Arc::clone(&config),
                        querier: self.querier.clone(),
                        address,
                        channel,
                    };
                    tasks.spawn(place.run(leaving));
                }
            }
        }
        for frontend in frontends.values_mut() {
            frontend.resize(0);
        }
        tasks.close();
        tasks.wait().await;
    }
}

impl Frontend {
    /// Takes back places above that number.
    fn resize(&mut self, places: usize) {
        while self.places.len() > places {
            if let Some(place) = self.places.pop() {
                place.cancel();
            }
        }
    }

    /// The connection for the next place; `None` if the address cannot be one.
    fn channel(
        &mut self,
        address: SocketAddr,
        config: &WorkerConfig,
        tls: Option<&Connector>,
    ) -> Option<Channel> {
        let number = self.places.len() / STREAMS_PER_CONNECTION;
        if let Some(channel) = self.channels.get(number) {
            return Some(channel.clone());
        }
        let address = address.to_string();
        let channel = outgoing::connection(&address, config.connect_timeout, tls).ok()?;
        self.channels.push(channel.clone());
        Some(channel)
    }
}
