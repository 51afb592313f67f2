//! The distributor from the outside: regrouping against a decoder that builds objects, the order
//! in which pushes are judged, and the receivers on real sockets.

mod grpc;
mod hostile;
mod http;
mod push;
mod regroup;
mod samples;
mod server;
mod tls;
