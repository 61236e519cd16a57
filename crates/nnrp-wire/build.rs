//! Makes the messages of the gRPC form, and their descriptor for reflection, from the specification; needs no protoc.
use prost::Message;
use std::{env, error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let spec = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../spec/proto");
    println!("cargo:rerun-if-changed={}", spec.display());
    let descriptors = protox::compile(["inference.proto"], [&spec])?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("inference.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
