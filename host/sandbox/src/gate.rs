//! The load gate: what is looked at before anything of a third party's component is compiled.
//!
//! Start with [`inspect`]. Everything here is bounded by the component's size, which is checked first.
//!
//! Invariants: a component that passes imports no function, resource, module or value; it exports a policy interface of
//! a version that this server calls; it stays within [`ModuleLimits`]. A refusal says what to change.

use std::collections::BTreeSet;

use leasehold_core::seams::sandbox::LoadError;
use sha2::{Digest as _, Sha256};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::types::Types;
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use crate::config::ModuleLimits;
use crate::engine::{MEMORIES_PER_COMPONENT, TABLES_PER_COMPONENT};

/// The interface that a module exports; a later 0.1.y answers for it, too.
const INTERFACE: &str = "leasehold:policy/policy";
const VERSION: (u32, u32) = (0, 1);

/// Nested components, their modules and what stands in them: far above anything that a toolchain makes.
const MAX_ITEMS: u32 = 50_000;
const MAX_LOCALS: u32 = 20_000;
const MAX_TOP_LEVEL: usize = 64;

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

/// The parts of WebAssembly that guests may use: at most what `engine::settings` leaves on.
fn features() -> WasmFeatures {
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
    let outline = outline(bytes, limits)?;
    let types = Validator::new_with_features(features()).validate_all(bytes).map_err(|error| damaged(bytes, &error))?;
    let imports = imports(&types, &outline.imports)?;
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

struct Outline {
    functions: u32,
    imports: Vec<String>,
    exports: Vec<String>,
}

/// Counts, and reads the outermost imports and exports, without believing anything else yet.
fn outline(bytes: &[u8], limits: &ModuleLimits) -> Result<Outline, LoadError> {
    let mut outline = Outline { functions: 0, imports: Vec::new(), exports: Vec::new() };
    let (mut items, mut memories, mut tables, mut depth) = (0u32, 0u32, 0u32, 0u32);
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| damaged(bytes, &error))?;
        let count = match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                1
            }
            Payload::End(_) => {
                depth = depth.saturating_sub(1);
                0
            }
            Payload::FunctionSection(section) => {
                outline.functions = outline.functions.saturating_add(section.count());
                0
            }
            Payload::CodeSectionEntry(body) => {
                let range = body.range();
                let size = range.end.saturating_sub(range.start);
                if size > limits.function_size as u64 {
                    return refuse(format!(
                        "a function of the module is {size} bytes long, {} are allowed: split it",
                        limits.function_size
                    ));
                }
                check_locals(bytes, body)?;
                0
            }
            Payload::MemorySection(section) => {
                memories = memories.saturating_add(section.count());
                section.count()
            }
            Payload::TableSection(section) => {
                tables = tables.saturating_add(section.count());
                section.count()
            }
            Payload::ComponentImportSection(section) => {
                if depth == 0 {
                    for import in section.clone() {
                        let import = import.map_err(|error| damaged(bytes, &error))?;
                        outline.imports.push(import.name.name.to_owned());
                    }
                }
                section.count()
            }
            Payload::ComponentExportSection(section) => {
                if depth == 0 {
                    for export in section.clone() {
                        let export = export.map_err(|error| damaged(bytes, &error))?;
                        outline.exports.push(export.name.name.to_owned());
                    }
                }
                section.count()
            }
            Payload::TypeSection(section) => section.count(),
            Payload::ImportSection(section) => section.count(),
            Payload::ExportSection(section) => section.count(),
            Payload::GlobalSection(section) => section.count(),
            Payload::ElementSection(section) => section.count(),
            Payload::DataSection(section) => section.count(),
            Payload::CoreTypeSection(section) => section.count(),
            Payload::InstanceSection(section) => section.count(),
            Payload::ComponentInstanceSection(section) => section.count(),
            Payload::ComponentAliasSection(section) => section.count(),
            Payload::ComponentTypeSection(section) => section.count(),
            Payload::ComponentCanonicalSection(section) => section.count(),
            _ => 0,
        };
        items = items.saturating_add(count);
        let counts = [
            ("functions", outline.functions, limits.functions),
            ("memories", memories, MEMORIES_PER_COMPONENT),
            ("tables", tables, TABLES_PER_COMPONENT),
            ("types, imports, exports and other items", items, MAX_ITEMS),
        ];
        for (what, has, allowed) in counts {
            if has > allowed {
                return refuse(format!("the module has {has} {what}, {allowed} are allowed"));
            }
        }
    }
    if outline.imports.len() > MAX_TOP_LEVEL || outline.exports.len() > MAX_TOP_LEVEL {
        return refuse(format!("the component has more than {MAX_TOP_LEVEL} imports or exports"));
    }
    Ok(outline)
}

fn check_locals(bytes: &[u8], body: &wasmparser::FunctionBody<'_>) -> Result<(), LoadError> {
    let locals = body.get_locals_reader().map_err(|error| damaged(bytes, &error))?;
    let mut count = 0u32;
    for group in locals {
        let (many, _) = group.map_err(|error| damaged(bytes, &error))?;
        count = count.saturating_add(many);
        if count > MAX_LOCALS {
            return refuse(format!("a function of the module has more than {MAX_LOCALS} local variables"));
        }
    }
    Ok(())
}

fn damaged(bytes: &[u8], error: &wasmparser::BinaryReaderError) -> LoadError {
    let text = error.message();
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

/// Refuses every import but types.
fn imports(types: &Types, names: &[String]) -> Result<Vec<String>, LoadError> {
    let mut needed = BTreeSet::new();
    for name in names {
        if let Some(item) = types.as_ref().component_item_for_import(name) {
            collect(types, name, item.ty, &mut needed);
        }
    }
    let Some(first) = needed.first() else { return Ok(names.to_vec()) };
    let others = match needed.len() {
        1 => String::new(),
        more => format!(" and {} more", more - 1),
    };
    let advice = if first.contains("`wasi:") {
        "the sandbox has no WASI: build for `wasm32-unknown-unknown`, or stub WASI out (`componentize-py --stub-wasi`, \
         `componentize-qjs --stub-wasi`, `wasi-virt`)"
    } else {
        "nothing may be imported: a policy module gets all it may know as arguments, so remove the import"
    };
    refuse(format!("the module imports {first}{others}; {advice}"))
}

fn collect(types: &Types, name: &str, entity: ComponentEntityType, needed: &mut BTreeSet<String>) {
    let what = match entity {
        ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(_), .. } => "resource",
        ComponentEntityType::Type { .. } => return,
        ComponentEntityType::Instance(instance) => {
            for (inner, item) in &types[instance].exports {
                collect(types, &format!("{name}#{inner}"), item.ty, needed);
            }
            return;
        }
        ComponentEntityType::Func(_) => "function",
        ComponentEntityType::Module(_) => "module",
        ComponentEntityType::Value(_) => "value",
        ComponentEntityType::Component(_) => "component",
    };
    needed.insert(format!("{what} `{name}`"));
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
