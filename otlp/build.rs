//! Compiles the `.proto` files with protox, so that no system `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let logs = protox::compile(["opentelemetry/proto/collector/logs/v1/logs_service.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(logs)?;
    Ok(())
}
