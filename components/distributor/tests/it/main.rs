//! The distributor from the outside: regrouping against a decoder that builds objects, the order
//! in which pushes are judged, and the receivers on real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod foreign;
mod grpc;
mod hostile;
mod http;
mod json;
mod push;
mod regroup;
mod samples;
mod server;
mod tls;
