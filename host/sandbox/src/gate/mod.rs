//! The load gate: what is looked at before anything of a third party's component is compiled.
//!
//! Start with [`inspect`]. Work and memory are bounded by the component's size, which is checked first: what is shared in it is
//! looked at once, and what multiplies (instances, nesting) is counted before anything is built from it.
//!
//! Invariants: a component that passes imports no function, resource, module or value; it exports a policy interface of
//! a version that this server calls; it stays within [`ModuleLimits`]. A refusal says what to change.

mod imports;
mod instances;
mod outline;

use leasehold_core::seams::sandbox::LoadError;
use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, Validator, WasmFeatures};

use crate::config::ModuleLimits;

/// The interface that a module exports; a later 0.1.y answers for it, too.
const INTERFACE: &str = "leasehold:policy/policy";
const VERSION: (u32, u32) = (0, 1);

/// What is known of a component that passed.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) digest: String,
    pub(crate) size: usize,
    /// `leasehold:policy@0.1.0`
    pub(crate) world: String,
    pub(crate) functions: u32,
    pub(crate) exports: Vec<String>,
    pub(crate) imports: Vec<String>,
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The parts of WebAssembly that guests may use: what `engine::settings` leaves on, and a test compares the two.
pub(crate) fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::SIMD
        | WasmFeatures::FLOATS
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::GC_TYPES
        | WasmFeatures::COMPONENT_MODEL
}

/// Lets a component pass or says why not.
pub(crate) fn inspect(bytes: &[u8], limits: &ModuleLimits) -> Result<Facts, LoadError> {
    if bytes.len() > limits.size {
        return refuse(format!("the module is {} bytes long, {} are allowed", bytes.len(), limits.size));
    }
    is_component(bytes)?;
    let outline = outline::read(bytes, limits)?;
    let types = Validator::new_with_features(features()).validate_all(bytes).map_err(|error| damaged(bytes, &error))?;
    let imports = imports::check(&types, &outline.imports)?;
    let world = world(&outline.exports)?;
    Ok(Facts {
        digest: digest(bytes),
        size: bytes.len(),
        world,
        functions: outline.functions,
        exports: outline.exports,
        imports,
    })
}

fn refuse<T>(why: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError(why.into()))
}

fn is_component(bytes: &[u8]) -> Result<(), LoadError> {
    const HEADER: &str = "a component starts with the bytes `00 61 73 6d 0d 00 01 00`";
    if Parser::is_component(bytes) {
        return Ok(());
    }
    if Parser::is_core_wasm(bytes) {
        return refuse(
            "this is a core module, not a component: wrap it with `wasm-tools component new`, or build it with \
             `cargo xtask module`",
        );
    }
    if bytes.starts_with(b"\x7fELF") {
        return refuse("this is machine code (a precompiled component?): push the component itself");
    }
    if bytes.trim_ascii_start().starts_with(b"(") {
        return refuse("this is WebAssembly text: assemble it with `wasm-tools parse` first");
    }
    if bytes.len() < 8 {
        return refuse(format!("this is no WebAssembly component but {} bytes: {HEADER}", bytes.len()));
    }
    refuse(format!("this is no WebAssembly component: {HEADER}"))
}

fn damaged(bytes: &[u8], error: &wasmparser::BinaryReaderError) -> LoadError {
    let text = error.message();
    if text.contains("version number") || text.contains("not a valid semver") {
        let (at, text) = (error.offset(), crate::store::words(text));
        return LoadError(format!("the version in a name is none, like `0.1.0`, at byte {at}: {text}"));
    }
    if text.contains("unexpected end") || text.contains("out of bounds") && error.offset() >= bytes.len() as u64 {
        return LoadError(format!(
            "the file ends too early, at byte {}: it was cut off or damaged on its way",
            bytes.len()
        ));
    }
    let at = error.offset();
    if text.contains("must be enabled") || text.contains("support is not enabled") || text.contains("is not enabled") {
        return LoadError(format!(
            "the module uses a part of WebAssembly that the sandbox does not offer, at byte {at}: {text}"
        ));
    }
    LoadError(format!("this is no valid component, at byte {at}: {text}"))
}

/// The package and version whose world the exports answer.
fn world(exports: &[String]) -> Result<String, LoadError> {
    let versions = exports.iter().filter_map(|name| name.strip_prefix(INTERFACE)?.strip_prefix('@'));
    let Some(version) = versions.into_iter().next() else {
        let wanted = format!("`{INTERFACE}@{}.{}.0`", VERSION.0, VERSION.1);
        if exports.iter().any(|name| name.starts_with("leasehold:acl/") || name.starts_with("leasehold:statements/")) {
            return refuse(format!(
                "this component is one of those that ship with the server; a policy module exports {wanted}"
            ));
        }
        let has = match exports {
            [] => "nothing".to_owned(),
            names => names
                .iter()
                .take(8)
                .map(|name| format!("`{}`", crate::store::words(name)))
                .collect::<Vec<_>>()
                .join(", "),
        };
        return refuse(format!(
            "the component exports {has}, but a policy module exports {wanted}: build it for the world \
             `policy-module` of `wit/policy/policy.wit`"
        ));
    };
    let mut parts = version.split('.').map(str::parse::<u32>);
    if parts.next() != Some(Ok(VERSION.0)) || parts.next() != Some(Ok(VERSION.1)) {
        return refuse(format!(
            "the module was built for `{INTERFACE}@{version}`, this server speaks {}.{}: build it again with the \
             `wit/policy` of this server",
            VERSION.0, VERSION.1
        ));
    }
    Ok(format!("leasehold:policy@{version}"))
}
