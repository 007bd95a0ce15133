//! Generated types of FiberLB's gRPC interfaces. No logic lives here.

/// The public API: `fiberlb.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from the `.proto` files, which carry the documentation"
)]
pub mod v1 {
    tonic::include_proto!("fiberlb.v1");
}

/// Between plugin and node agents: `fiberlb.agent.v1`.
pub mod agent {
    /// Version 1.
    #[allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated from the `.proto` files, which carry the documentation"
    )]
    pub mod v1 {
        tonic::include_proto!("fiberlb.agent.v1");
    }
}

/// Encoded `google.protobuf.FileDescriptorSet` of the public API, for server reflection and for dynamic encoding.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fiberlb.bin"));

/// Encoded `google.protobuf.FileDescriptorSet` of what plugin and node agents send each other, for tests.
pub const AGENT_FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.bin"));
