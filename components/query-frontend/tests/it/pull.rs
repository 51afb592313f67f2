//! Queriers of other processes, over real connections: how they get jobs, and what becomes of jobs
//! whose querier goes.

use std::net::SocketAddr;

use tempo_api::{
    job::{JobError, JobOutput, JobResult, TraceParts},
    wire,
};
use tempo_proto::tempostack::query::v1::{
    FromQuerier, Hello, JobResult as Answer, Leaving, TenantJob, ToQuerier,
    from_querier::Message as From, queue_client::QueueClient, to_querier::Message as To,
};
use tempo_query_frontend::Config;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Status, Streaming, transport::Server};

use crate::support::Stack;

const TRACE: &str = "/api/v2/traces/1234";

async fn serve(stack: &Stack) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(stack.handle.pull_service())
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    address
}

/// A place at a querier that a test plays.
struct Place {
    outgoing: mpsc::Sender<FromQuerier>,
    incoming: Streaming<ToQuerier>,
}

impl Place {
    async fn silent(address: SocketAddr) -> Self {
        let (outgoing, to_send) = mpsc::channel(4);
        let mut client = QueueClient::connect(format!("http://{address}"))
            .await
            .unwrap();
        let incoming = client.pull(ReceiverStream::new(to_send)).await.unwrap();
        Self {
            outgoing,
            incoming: incoming.into_inner(),
        }
    }

    async fn new(address: SocketAddr) -> Self {
        let place = Self::silent(address).await;
        place.say(From::Hello(Hello::default())).await;
        place
    }

    async fn say(&self, message: From) {
        let message = FromQuerier {
            message: Some(message),
        };
        self.outgoing.send(message).await.unwrap();
    }

    async fn hear(&mut self) -> Result<Option<To>, Status> {
        let message = self.incoming.message().await?;
        Ok(message.and_then(|message| message.message))
    }

    async fn job(&mut self) -> TenantJob {
        match self.hear().await.unwrap() {
            Some(To::Job(job)) => job,
            other => panic!("a job is due: {other:?}"),
        }
    }

    async fn answer(&self, result: JobResult) {
        self.say(From::Result(wire::encode_result(result))).await;
    }

    async fn answer_nothing_found(&self) {
        self.answer(Ok(JobOutput::Trace(TraceParts::default())))
            .await;
    }
}

/// A stack with one kind of job, which is tried once: a query that fails shows it.
fn stack() -> Stack {
    Stack::new(Config {
        max_attempts: 1,
        ..Config::default()
    })
}

#[tokio::test]
async fn a_job_is_given_to_another_querier_when_the_first_is_gone() {
    let stack = stack();
    let address = serve(&stack).await;
    let mut first = Place::new(address).await;
    let second = async {
        let job = first.job().await;
        drop(first);
        let mut second = Place::new(address).await;
        // A trace lookup has a job for recent data, and one for blocks.
        for _ in 0..2 {
            assert_eq!(second.job().await.tenant, job.tenant);
            second.answer_nothing_found().await;
        }
        second
    };
    let (reply, _second) = tokio::join!(stack.get(TRACE), second);
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_querier_that_leaves_answers_what_it_has_and_gets_no_more() {
    let stack = stack();
    let address = serve(&stack).await;
    let mut leaving = Place::new(address).await;
    let end = async {
        let _ = leaving.job().await;
        leaving.say(From::Leaving(Leaving {})).await;
        leaving.answer_nothing_found().await;
        // Nothing more comes, although there is another job.
        assert_eq!(leaving.hear().await.unwrap(), None);
        let mut other = Place::new(address).await;
        let _ = other.job().await;
        other.answer_nothing_found().await;
        other
    };
    let (reply, _other) = tokio::join!(stack.get(TRACE), end);
    assert_eq!(reply.status, 200);
    let mut idle = Place::new(address).await;
    idle.say(From::Leaving(Leaving {})).await;
    assert_eq!(idle.hear().await.unwrap(), None);
}

#[tokio::test]
async fn a_querier_is_told_when_nobody_waits_any_more() {
    let stack = stack();
    let address = serve(&stack).await;
    let mut place = Place::new(address).await;
    {
        let asking = stack.get(TRACE);
        tokio::pin!(asking);
        tokio::select! {
            _ = &mut asking => panic!("nobody has answered"),
            job = place.job() => assert!(job.job.is_some()),
        }
    }
    assert_eq!(
        place.hear().await.unwrap(),
        Some(To::Cancel(Default::default()))
    );
    place.answer(Err(JobError::Cancelled)).await;
    // It is of use again.
    let next = async {
        for _ in 0..2 {
            let _ = place.job().await;
            place.answer_nothing_found().await;
        }
    };
    let (reply, ()) = tokio::join!(stack.get(TRACE), next);
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn what_a_querier_must_not_say_is_refused() {
    let stack = stack();
    let address = serve(&stack).await;
    let mut rude = Place::silent(address).await;
    rude.say(From::Leaving(Leaving {})).await;
    let status = rude.hear().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("hello"), "{status}");

    // A result that this version does not know fails its query, and no other.
    let mut newer = Place::new(address).await;
    let answers = async {
        let _ = newer.job().await;
        newer.say(From::Result(Answer::default())).await;
        newer
    };
    let (reply, mut newer) = tokio::join!(stack.get(TRACE), answers);
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("upgrade"), "{}", reply.text());
    let next = async {
        loop {
            match newer.hear().await.unwrap() {
                Some(To::Job(_)) => newer.answer_nothing_found().await,
                Some(To::Cancel(_)) => {}
                None => panic!("it is still wanted"),
            }
        }
    };
    tokio::select! {
        reply = stack.get(TRACE) => assert_eq!(reply.status, 200),
        () = next => {}
    }
}
