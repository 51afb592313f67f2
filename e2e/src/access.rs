//! The way from this machine to a Service: its own address where that can be reached, as on a local
//! node; elsewhere a port forwarded by the API server.

use std::{
    io::{self, BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use crate::{Failure, Outcome, cluster::Cluster, command::Watchdog};

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
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
        let object = cluster.must_get(namespace, &format!("service/{service}"))?;
        let ip = object["spec"]["clusterIP"].as_str().unwrap_or_default();
        if let Ok(ip) = ip.parse() {
            let address = SocketAddr::new(ip, port);
            if TcpStream::connect_timeout(&address, CONNECT_LIMIT).is_ok() {
                return Ok(Self {
                    address: address.to_string(),
                    forward: None,
                });
            }
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

impl Drop for Access {
    fn drop(&mut self) {
        if let Some(child) = self.forward.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
