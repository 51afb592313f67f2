//! The way from this machine to a Service: its own address where that can be reached, as on a local
//! node; elsewhere a port forwarded by the API server.

use std::{
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, Outcome, cluster::Cluster, command::Watchdog, traces::until};

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Time for a node to learn the way to a Service.
const ROUTE_LIMIT: Duration = Duration::from_secs(60);
const FORWARD_LIMIT: Duration = Duration::from_secs(30);

/// An open way to one port of one Service. Dropping it closes it.
#[derive(Debug)]
pub struct Access {
    /// `host:port` to connect to.
    pub address: String,
    forward: Option<Child>,
}

impl Access {
    /// Opens the way to `port` of `service`.
    ///
    /// # Errors
    /// When the Service does not exist, or nothing behind it answers.
    pub fn open(cluster: &Cluster, namespace: &str, service: &str, port: u16) -> Outcome<Self> {
        if let Some(address) = address_of(cluster, namespace, service, port)?
            && reaches_services(cluster)?
        {
            // The node may still have to learn of it. A forwarded port would lead to one pod for
            // good, whatever becomes of the Service.
            until(Instant::now() + ROUTE_LIMIT, || {
                TcpStream::connect_timeout(&address, CONNECT_LIMIT)
                    .map_err(|error| Failure::from(error).during(&format!("{service} {address}")))
            })?;
            return Ok(Self {
                address: address.to_string(),
                forward: None,
            });
        }
        Self::forward(cluster, namespace, &format!("service/{service}"), port)
    }

    /// Forwards a port of a pod, which has no address of its own that lasts.
    ///
    /// # Errors
    /// When `kubectl port-forward` does not get there.
    pub fn forward(cluster: &Cluster, namespace: &str, object: &str, port: u16) -> Outcome<Self> {
        let mut child = cluster
            .command()
            .args(["-n", namespace, "port-forward", object, &format!(":{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let guard = Watchdog::over(&child, FORWARD_LIMIT);
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            let mut stdout = BufReader::new(stdout);
            let _ = stdout.read_line(&mut line);
            // It goes on to tell of each connection, and would end if nobody listened.
            thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        }
        let _ = guard.disarm();
        // "Forwarding from 127.0.0.1:40001 -> 3200"
        let Some(address) = line
            .strip_prefix("Forwarding from ")
            .and_then(|rest| rest.split(' ').next())
        else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::new(format!(
                "port {port} of {object} in {namespace} can't be reached"
            )));
        };
        Ok(Self {
            address: address.to_owned(),
            forward: Some(child),
        })
    }
}

/// The address of a Service of its own, if it has one.
fn address_of(
    cluster: &Cluster,
    namespace: &str,
    service: &str,
    port: u16,
) -> Outcome<Option<SocketAddr>> {
    let object = cluster.must_get(namespace, &format!("service/{service}"))?;
    let ip = object["spec"]["clusterIP"].as_str().unwrap_or_default();
    Ok(ip.parse().ok().map(|ip| SocketAddr::new(ip, port)))
}

/// Whether this machine is one from which Services can be reached, as a node is: that of the API
/// server is always there.
fn reaches_services(cluster: &Cluster) -> Outcome<bool> {
    Ok(address_of(cluster, "default", "kubernetes", 443)?
        .is_some_and(|address| TcpStream::connect_timeout(&address, CONNECT_LIMIT).is_ok()))
}

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(child) = self.forward.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
