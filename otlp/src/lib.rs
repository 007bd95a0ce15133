//! Generated types of OTLP, OpenTelemetry's protocol, as far as it carries logs. `proto/` is from release 1.9.0 of
//! <https://github.com/open-telemetry/opentelemetry-proto>. No logic lives here.

/// Packages of the protocol, nested as they are named.
#[allow(missing_docs, unreachable_pub, clippy::all)] // generated from the `.proto` files, which carry the documentation
#[rustfmt::skip]
mod packages {
    pub mod common { pub mod v1 { tonic::include_proto!("opentelemetry.proto.common.v1"); } }
    pub mod resource { pub mod v1 { tonic::include_proto!("opentelemetry.proto.resource.v1"); } }
    pub mod logs { pub mod v1 { tonic::include_proto!("opentelemetry.proto.logs.v1"); } }
    pub mod collector { pub mod logs { pub mod v1 { tonic::include_proto!("opentelemetry.proto.collector.logs.v1"); } } }
}

pub use packages::{
    collector::logs::v1 as collector, common::v1 as common, logs::v1 as logs, resource::v1 as resource,
};
