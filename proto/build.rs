//! Compiles the `.proto` files with protox, so that no system `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let public = protox::compile(["fiberlb/v1/resources.proto", "fiberlb/v1/services.proto"], ["proto"])?;
    let agent = protox::compile(["fiberlb/agent/v1/agent.proto", "fiberlb/agent/v1/peer.proto"], ["proto"])?;

    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("fiberlb.bin"), public.encode_to_vec())?;
    std::fs::write(out.join("agent.bin"), agent.encode_to_vec())?;
    // In this order: what the agents' API takes from the public one leaves an empty file of that behind.
    tonic_prost_build::configure().extern_path(".fiberlb.v1", "crate::v1").compile_fds(agent)?;
    tonic_prost_build::configure().compile_fds(public)?;
    Ok(())
}
