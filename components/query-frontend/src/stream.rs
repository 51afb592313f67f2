//! The streaming gRPC side of the query API.

mod packets;

use std::{future::Future, sync::Arc, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempo_api::{
    combine::{TagNamesCombiner, TagValuesCombiner},
    convert,
    job::JobError,
    params::QueryParams,
};
use tempo_proto::tempopb::{
    QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse,
    SearchRequest, SearchResponse, SearchTagValuesRequest, SearchTagValuesResponse,
    SearchTagValuesV2Response, SearchTagsRequest, SearchTagsResponse, SearchTagsV2Response,
    streaming_querier_server::StreamingQuerier,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::{
    accounting::Accounting, error::QueryError, frontend::Frontend, metrics::Op, range::Range,
    run::Query, tags::Version, tenants::Tenants,
};
use packets::{Packet, packets};

/// Shortest time between two partial answers.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Packets that wait for a slow client before the query waits too.
const MAX_WAITING_PACKETS: usize = 8;
/// The metadata key of the tenant.
const TENANT_KEY: &str = "x-scope-orgid";

/// `tempopb.StreamingQuerier`: every call answers with what is new as it is found, and at the end
/// with everything.
#[derive(Clone)]
pub struct StreamingService {
    frontend: Arc<Frontend>,
}

type Stream<T> = ReceiverStream<Result<T, Status>>;
type Streamed<T> = Result<Response<Stream<T>>, Status>;

impl StreamingService {
    pub(crate) fn new(frontend: Arc<Frontend>) -> Self {
        Self { frontend }
    }

    fn tenants<T>(&self, request: &Request<T>) -> Result<Tenants, Status> {
        let tenant = request
            .metadata()
            .get(TENANT_KEY)
            .map(|value| value.as_bytes());
        Tenants::of_header(tenant, &self.frontend.config).map_err(|error| status(&error))
    }

    /// Runs a query that writes its answers to a sender. It ends with the query, or when the
    /// client is gone.
    fn spawn<T, Answer>(&self, answer: impl FnOnce(Arc<Frontend>, Sender<T>) -> Answer) -> Stream<T>
    where
        T: Packet + Send + 'static,
        Answer: Future<Output = Result<(), QueryError>> + Send + 'static,
    {
        let (packets, receiver) = mpsc::channel(MAX_WAITING_PACKETS);
        let sender = Sender {
            packets: packets.clone(),
            max_packet_bytes: self.frontend.config.max_grpc_streaming_packet_bytes,
            last_sent: Instant::now(),
        };
        let answer = answer(Arc::clone(&self.frontend), sender);
        let timeout = self.frontend.config.api_timeout;
        tokio::spawn(async move {
            let answer = async {
                match timeout {
                    Some(timeout) => tokio::time::timeout(timeout, answer)
                        .await
                        .unwrap_or(Err(QueryError::Job(JobError::TimedOut))),
                    None => answer.await,
                }
            };
            tokio::select! {
                // Dropping the query cancels its jobs.
                () = packets.closed() => {}
                result = answer => if let Err(error) = result {
                    let _ = packets.send(Err(status(&error))).await;
                },
            }
        });
        ReceiverStream::new(receiver)
    }
}

/// Sends answers to one client.
struct Sender<T> {
    packets: mpsc::Sender<Result<T, Status>>,
    max_packet_bytes: usize,
    last_sent: Instant,
}

impl<T: Packet> Sender<T> {
    /// Sends what `changes` makes, unless the last answer is too recent.
    async fn progress(&mut self, changes: impl FnOnce() -> T) -> Result<(), JobError> {
        if self.last_sent.elapsed() < PROGRESS_INTERVAL {
            return Ok(());
        }
        self.send(changes()).await?;
        self.last_sent = Instant::now();
        Ok(())
    }

    /// Sends an answer, cut into packets.
    async fn send(&self, answer: T) -> Result<(), JobError> {
        for packet in packets(answer, self.max_packet_bytes) {
            self.packets
                .send(Ok(packet))
                .await
                .map_err(|_| JobError::Cancelled)?;
        }
        Ok(())
    }
}

fn status(error: &QueryError) -> Status {
    let code = match error {
        // Tempo's tenant check makes an error without a code.
        QueryError::NoTenant => Code::Unknown,
        _ => match error.status().as_u16() {
            400 => Code::InvalidArgument,
            404 => Code::NotFound,
            429 => Code::ResourceExhausted,
            499 | 504 => Code::Cancelled,
            500..=599 => Code::Internal,
            _ => Code::Unknown,
        },
    };
    Status::new(code, error.to_string())
}

/// The same request over HTTP: its range as parameters, and its URL for the deny list.
struct AsHttp {
    range: QueryParams,
    url: String,
}

impl AsHttp {
    fn new(path: &str, query: &str, start: u32, end: u32) -> Self {
        let mut parameters = Vec::new();
        for (name, value) in [("end", end), ("start", start)] {
            if value != 0 {
                parameters.push(format!("{name}={value}"));
            }
        }
        let range = QueryParams::parse(&parameters.join("&"));
        if !query.is_empty() {
            let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
            parameters.insert(0, format!("q={query}"));
        }
        Self {
            range,
            url: format!("{path}?{}", parameters.join("&")),
        }
    }
}

fn inspected_bytes<M>(metrics: Option<&M>, bytes: impl FnOnce(&M) -> u64) -> u64 {
    metrics.map_or(0, bytes)
}

impl StreamingService {
    fn stream_tag_names<T>(
        &self,
        request: Request<SearchTagsRequest>,
        version: Version,
        convert: fn(SearchTagsV2Response) -> T,
    ) -> Streamed<T>
    where
        T: Packet + Send + 'static,
    {
        let tenants = self.tenants(&request)?;
        let request = request.into_inner();
        let stream = self.spawn(move |frontend, mut sender: Sender<T>| async move {
            let accounting = frontend.account(&tenants, Op::Metadata);
            let path = match version {
                Version::V1 => "/api/search/tags",
                Version::V2 => "/api/v2/search/tags",
            };
            let path = frontend.api_path(path);
            let http = AsHttp::new(&path, &request.query, request.start, request.end);
            let result = async {
                let mut query =
                    frontend.tag_names(&tenants, request, &http.range, &http.url, version)?;
                while query.step().await? {
                    sender
                        .progress(|| convert(query.combiner.take_changes()))
                        .await?;
                }
                Ok(query.combiner.finish())
            }
            .await;
            accounting.end(result.as_ref().map(|response| {
                inspected_bytes(response.metrics.as_ref(), |metrics| metrics.inspected_bytes)
            }));
            sender.send(convert(result?)).await?;
            Ok(())
        });
        Ok(Response::new(stream))
    }

    fn stream_tag_values<T>(
        &self,
        request: Request<SearchTagValuesRequest>,
        version: Version,
        convert: fn(SearchTagValuesV2Response) -> T,
    ) -> Streamed<T>
    where
        T: Packet + Send + 'static,
    {
        let tenants = self.tenants(&request)?;
        let request = request.into_inner();
        let stream = self.spawn(move |frontend, mut sender: Sender<T>| async move {
            let accounting = frontend.account(&tenants, Op::Metadata);
            let search = match version {
                Version::V1 => "/api/search",
                Version::V2 => "/api/v2/search",
            };
            let path = frontend.api_path(&format!("{search}/tag/{}/values", request.tag_name));
            let http = AsHttp::new(&path, &request.query, request.start, request.end);
            let result = async {
                let mut query =
                    frontend.tag_values(&tenants, request, &http.range, &http.url, version)?;
                while query.step().await? {
                    sender
                        .progress(|| convert(query.combiner.take_changes()))
                        .await?;
                }
                Ok(query.combiner.finish())
            }
            .await;
            accounting.end(result.as_ref().map(|response| {
                inspected_bytes(response.metrics.as_ref(), |metrics| metrics.inspected_bytes)
            }));
            sender.send(convert(result?)).await?;
            Ok(())
        });
        Ok(Response::new(stream))
    }
}

impl StreamingService {
    /// Runs the query over time that `start` begins.
    fn stream_range<T>(
        &self,
        start: impl FnOnce(&Frontend) -> (Accounting, Result<Query<Range>, QueryError>) + Send + 'static,
        convert: fn(QueryRangeResponse) -> T,
    ) -> Stream<T>
    where
        T: Packet + Send + 'static,
    {
        self.spawn(move |frontend, mut sender: Sender<T>| async move {
            let (accounting, query) = start(&frontend);
            let result = async {
                let mut query = query?;
                while query.step().await? {
                    sender
                        .progress(|| convert(query.combiner.take_changes()))
                        .await?;
                }
                Ok::<_, QueryError>(query.combiner.finish())
            }
            .await;
            accounting.end(result.as_ref().map(|response| {
                inspected_bytes(response.metrics.as_ref(), |metrics| metrics.inspected_bytes)
            }));
            sender.send(convert(result?)).await?;
            Ok(())
        })
    }
}

#[tonic::async_trait]
impl StreamingQuerier for StreamingService {
    type SearchStream = Stream<SearchResponse>;
    type SearchTagsStream = Stream<SearchTagsResponse>;
    type SearchTagsV2Stream = Stream<SearchTagsV2Response>;
    type SearchTagValuesStream = Stream<SearchTagValuesResponse>;
    type SearchTagValuesV2Stream = Stream<SearchTagValuesV2Response>;
    type MetricsQueryRangeStream = Stream<QueryRangeResponse>;
    type MetricsQueryInstantStream = Stream<QueryInstantResponse>;

    async fn search(&self, request: Request<SearchRequest>) -> Streamed<SearchResponse> {
        let tenants = self.tenants(&request)?;
        let request = request.into_inner();
        let stream = self.spawn(
            move |frontend, mut sender: Sender<SearchResponse>| async move {
                let accounting = frontend.account(&tenants, Op::Search);
                let query = &request.query;
                let path = frontend.api_path("/api/search");
                let http = AsHttp::new(&path, query, request.start, request.end);
                let result = async {
                    let mut query = frontend.search(&tenants, request, &http.range, &http.url)?;
                    while query.step().await? {
                        sender
                            .progress(|| query.combiner.found.take_changes())
                            .await?;
                    }
                    Ok(query.combiner.found.finish())
                }
                .await;
                accounting.end(result.as_ref().map(|response| {
                    inspected_bytes(response.metrics.as_ref(), |metrics| metrics.inspected_bytes)
                }));
                sender.send(result?).await?;
                Ok(())
            },
        );
        Ok(Response::new(stream))
    }

    async fn search_tags(
        &self,
        request: Request<SearchTagsRequest>,
    ) -> Streamed<SearchTagsResponse> {
        self.stream_tag_names(request, Version::V1, TagNamesCombiner::flatten)
    }

    async fn search_tags_v2(
        &self,
        request: Request<SearchTagsRequest>,
    ) -> Streamed<SearchTagsV2Response> {
        self.stream_tag_names(request, Version::V2, |response| response)
    }

    async fn search_tag_values(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Streamed<SearchTagValuesResponse> {
        self.stream_tag_values(request, Version::V1, TagValuesCombiner::flatten)
    }

    async fn search_tag_values_v2(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Streamed<SearchTagValuesV2Response> {
        self.stream_tag_values(request, Version::V2, |response| response)
    }

    async fn metrics_query_range(
        &self,
        request: Request<QueryRangeRequest>,
    ) -> Streamed<QueryRangeResponse> {
        let tenants = self.tenants(&request)?;
        let request = Frontend::with_default_step(request.into_inner());
        let parameters = [
            ("start", request.start),
            ("end", request.end),
            ("step", request.step),
        ];
        let stream = self.stream_range(
            move |frontend| {
                let path = frontend.api_path("/api/metrics/query_range");
                let url = metrics_url(&path, &request.query, &parameters);
                let accounting = frontend.account(&tenants, Op::Metrics);
                (accounting, frontend.query_range(&tenants, request, &url))
            },
            |response| response,
        );
        Ok(Response::new(stream))
    }

    async fn metrics_query_instant(
        &self,
        request: Request<QueryInstantRequest>,
    ) -> Streamed<QueryInstantResponse> {
        let tenants = self.tenants(&request)?;
        let request = request.into_inner();
        let parameters = [("start", request.start), ("end", request.end)];
        let stream = self.stream_range(
            move |frontend| {
                let path = frontend.api_path("/api/metrics/query");
                let url = metrics_url(&path, &request.query, &parameters);
                let accounting = frontend.account(&tenants, Op::Metrics);
                (accounting, frontend.query_instant(&tenants, request, &url))
            },
            convert::instant_response,
        );
        Ok(Response::new(stream))
    }
}

/// The URL of the same query over HTTP, for the deny list.
fn metrics_url(path: &str, query: &str, parameters: &[(&str, u64)]) -> String {
    let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
    let mut url = format!("{path}?q={query}");
    for (name, value) in parameters {
        url.push_str(&format!("&{name}={value}"));
    }
    url
}
