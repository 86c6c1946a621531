//! Counts what is in a component, and reads its outermost imports and exports, without believing anything else yet.
//!
//! Invariant: what passes is nested so little that neither the validator nor the walk over the imports can run deep.

use leasehold_core::seams::sandbox::LoadError;
use wasmparser::{
    ComponentExternalKind, ComponentInstance, ComponentType, ComponentTypeDeclaration, InstanceTypeDeclaration, Parser,
    Payload,
};

use super::instances::Instances;
use super::{damaged, refuse};
use crate::config::ModuleLimits;
use crate::engine::{CORE_INSTANCES_PER_COMPONENT, MEMORIES_PER_COMPONENT, TABLES_PER_COMPONENT};

/// Nested components, their modules and what stands in them: far above anything that a toolchain makes.
const MAX_ITEMS: u32 = 50_000;
const MAX_LOCALS: u32 = 20_000;
const MAX_TOP_LEVEL: usize = 64;
/// Types, instances and components that hold instances or components. Interfaces do not nest, so toolchains make one for each
/// component that was composed. Each adds two levels at most to the 102 of a function's types, and the validator panics at 127.
const MAX_HOLDERS: u32 = 10;

pub(super) struct Outline {
    pub(super) functions: u32,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
}

pub(super) fn read(bytes: &[u8], limits: &ModuleLimits) -> Result<Outline, LoadError> {
    let mut outline = Outline { functions: 0, imports: Vec::new(), exports: Vec::new() };
    let (mut items, mut memories, mut tables, mut depth) = (0u32, 0u32, 0u32, 0u32);
    let (mut holders, mut instances) = (0u32, Instances::default());
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| damaged(bytes, &error))?;
        holders = holders.saturating_add(holding(&payload, depth > 0).map_err(|error| damaged(bytes, &error))?);
        instances.see(&payload, bytes)?;
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
            ("types, instances and components that hold instances or components", holders, MAX_HOLDERS),
            ("core instances", instances.made(), CORE_INSTANCES_PER_COMPONENT),
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

/// How many of the things that a section defines hold instances or components.
fn holding(payload: &Payload<'_>, nested: bool) -> Result<u32, wasmparser::BinaryReaderError> {
    let mut holders = 0u32;
    match payload {
        Payload::ComponentTypeSection(section) => {
            for ty in section.clone() {
                holders = holders.saturating_add(type_holders(&ty?));
            }
        }
        Payload::ComponentInstanceSection(section) => {
            for instance in section.clone() {
                if let ComponentInstance::FromExports(items) = instance? {
                    holders = holders.saturating_add(items.iter().any(|item| holds(item.kind)).into());
                }
            }
        }
        Payload::ComponentExportSection(section) if nested => {
            for export in section.clone() {
                if holds(export?.kind) {
                    return Ok(1);
                }
            }
        }
        _ => {}
    }
    Ok(holders)
}

const fn holds(kind: ComponentExternalKind) -> bool {
    matches!(kind, ComponentExternalKind::Instance | ComponentExternalKind::Component)
}

/// The reader that made the type has bounded how deep definitions stand in each other.
fn type_holders(ty: &ComponentType<'_>) -> u32 {
    let (mut inner, mut itself) = (0u32, false);
    match ty {
        ComponentType::Instance(declarations) => {
            for declaration in declarations {
                match declaration {
                    InstanceTypeDeclaration::Type(ty) => inner = inner.saturating_add(type_holders(ty)),
                    InstanceTypeDeclaration::Export { ty, .. } => itself |= holds(ty.kind()),
                    InstanceTypeDeclaration::CoreType(_) | InstanceTypeDeclaration::Alias(_) => {}
                }
            }
        }
        ComponentType::Component(declarations) => {
            for declaration in declarations {
                match declaration {
                    ComponentTypeDeclaration::Type(ty) => inner = inner.saturating_add(type_holders(ty)),
                    ComponentTypeDeclaration::Export { ty, .. } => itself |= holds(ty.kind()),
                    ComponentTypeDeclaration::Import(import) => itself |= holds(import.ty.kind()),
                    ComponentTypeDeclaration::CoreType(_) | ComponentTypeDeclaration::Alias(_) => {}
                }
            }
        }
        ComponentType::Defined(_) | ComponentType::Func(_) | ComponentType::Resource { .. } => {}
    }
    inner.saturating_add(itself.into())
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
