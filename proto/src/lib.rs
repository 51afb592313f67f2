//! The wire messages and services: OpenTelemetry's trace protocol, those of Jaeger and Zipkin, and
//! Tempo's query API.
//!
//! Owns the `.proto` sources and the code generated from them (`make generate`; a test holds the
//! two together). Must never hold anything hand-written but the module tree below.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]

/// OpenTelemetry's messages (`opentelemetry.proto.*`).
pub mod opentelemetry {
    pub mod proto {
        pub mod common {
            pub mod v1 {
                include!("generated/opentelemetry.proto.common.v1.rs");
            }
        }
        pub mod resource {
            pub mod v1 {
                include!("generated/opentelemetry.proto.resource.v1.rs");
            }
        }
        pub mod trace {
            pub mod v1 {
                include!("generated/opentelemetry.proto.trace.v1.rs");
            }
        }
        pub mod collector {
            pub mod trace {
                pub mod v1 {
                    include!("generated/opentelemetry.proto.collector.trace.v1.rs");
                }
            }
        }
    }
}

/// Tempo's query API (`tempopb`).
pub mod tempopb {
    include!("generated/tempopb.rs");

    /// The tenant index in object storage.
    pub mod backend {
        pub mod v1 {
            include!("generated/tempopb.backend.v1.rs");
        }
    }
}

/// What Jaeger's clients and collectors send (`jaeger.api_v2`).
pub mod jaeger {
    pub mod api_v2 {
        include!("generated/jaeger.api_v2.rs");
    }
}

/// What Zipkin's clients send (`zipkin.proto3`).
pub mod zipkin {
    pub mod proto3 {
        include!("generated/zipkin.proto3.rs");
    }
}

/// What the processes of one installation say to each other (`tempostack.*`).
pub mod tempostack {
    pub mod query {
        pub mod v1 {
            include!("generated/tempostack.query.v1.rs");
        }
    }
}
