//! The service kit: what every process needs around its components.
//!
//! Owns logging, the export of the process's own traces, the metrics page and process metrics,
//! HTTP and gRPC servers with graceful shutdown, gRPC connections to other processes, the board of
//! service states behind `/ready`, and signals. Must never know a component.

pub mod causes;
mod farewell;
pub mod health;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod outgoing;
pub mod own_traces;
pub mod server;
pub mod signals;
pub mod tls;
