//! Policy modules to upload: the hostile ones of `guests/probes`, and the example as it was built.

use std::fs;
use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The example of a third party's module.
pub fn change_freeze() -> Vec<u8> {
    let path = root().join("examples/change-freeze/target/change-freeze.component.wasm");
    fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask module examples/change-freeze`", path.display()))
}

/// A probe of the world `policy-module`, assembled.
pub fn policy_probe(name: &str) -> Vec<u8> {
    let folder = root().join("guests/probes/policy");
    let read = |name: &str| fs::read_to_string(folder.join(format!("{name}.wat"))).expect("a probe");
    let mut core = wat::parse_str(format!("(module {} {})", read("base"), read(name))).expect("a probe");
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit/policy")).expect("the world");
    let world = resolve.select_world(&[package], Some("policy-module")).expect("the world");
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).expect("a component");
    ComponentEncoder::default().module(&core).expect("a component").validate(true).encode().expect("a component")
}

/// A whole component that the load gate must refuse.
pub fn component_probe(name: &str) -> Vec<u8> {
    wat::parse_file(root().join(format!("guests/probes/component/{name}.wat"))).expect("a probe")
}
