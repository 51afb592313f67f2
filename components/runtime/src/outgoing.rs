//! Connections to gRPC servers of other processes.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};

use crate::tls::Connector;

/// How often a connection is checked that is used, or idle.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// After so long without an answer to that check it is given up.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to `address`, host and port, over TLS or in plain text, that is made when first needed, and again when it
/// broke. When the other machine is gone without a word, calls fail within 20 seconds.
///
/// # Errors
/// When the address cannot be one.
pub fn connection(
    address: &str,
    connect_timeout: Duration,
    tls: Option<&Connector>,
) -> Result<Channel, Error> {
    // With TLS, too: tonic would want to speak it itself.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(match tls {
        None => endpoint.connect_lazy(),
        Some(connector) => endpoint.connect_with_connector_lazy(connector.clone()),
    })
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::TcpListener;
    use tonic::{body::Body, client::GrpcService};

    use super::*;

    /// The clock goes on by itself when there is nothing to do but to wait.
    #[tokio::test(start_paused = true)]
    async fn a_call_to_a_server_that_fell_silent_fails() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let silent = tokio::spawn(async move { listener.accept().await.unwrap() });
        let mut channel = connection(&address, Duration::from_secs(5), None).unwrap();
        let call = async {
            poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context)).await?;
            GrpcService::call(&mut channel, http::Request::new(Body::empty())).await
        };
        let hour = Duration::from_secs(3600);
        let answer = tokio::time::timeout(hour, call).await;
        assert!(answer.expect("it waited for ever").is_err());
        silent.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_one_is_refused() {
        assert!(connection("a b", Duration::from_secs(5), None).is_err());
    }
}
