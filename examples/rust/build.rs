//! Generates the client of the service from the contract, without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = std::env::var("MAILING_PROTOS").unwrap_or_else(|_| "../../protos".into());
    let services = ["client_service", "mailing_service", "delivery_service"];
    let files: Vec<_> = services
        .map(|name| Path::new(&protos).join(format!("mailing/v1/{name}.proto")))
        .into();
    println!("cargo:rerun-if-changed={protos}");
    let descriptors = protox::compile(files, [&protos])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
