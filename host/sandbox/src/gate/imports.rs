//! Refuses every import but types.

use std::collections::HashSet;

use leasehold_core::seams::sandbox::LoadError;
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentInstanceTypeId};
use wasmparser::types::Types;

use super::refuse;
use crate::store::words;

/// Items of imported types that are looked at: the count ends there, and so does a component that has more.
const MAX_SEEN: u32 = 100_000;

/// The names, if all of them stand for types only.
pub(super) fn check(types: &Types, names: &[String]) -> Result<Vec<String>, LoadError> {
    let mut needs = Needs { types, entered: HashSet::new(), seen: 0, first: None, count: 0 };
    for name in names {
        if let Some(item) = types.as_ref().component_item_for_import(name) {
            needs.look_at(&mut vec![name], item.ty);
        }
    }
    let Some(first) = needs.first else {
        if needs.seen >= MAX_SEEN {
            return refuse(format!("the types that the module imports have more than {MAX_SEEN} items"));
        }
        return Ok(names.to_vec());
    };
    let others = match needs.count {
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

/// What is imported besides types: the first by its name, the others by their number.
struct Needs<'a> {
    types: &'a Types,
    /// An instance type may stand in many others; it is entered once, or some bytes would make millions of names.
    entered: HashSet<ComponentInstanceTypeId>,
    seen: u32,
    first: Option<String>,
    count: u32,
}

impl<'a> Needs<'a> {
    /// Goes no deeper than `outline::MAX_HOLDERS` lets types be nested.
    fn look_at(&mut self, path: &mut Vec<&'a str>, entity: ComponentEntityType) {
        self.seen = self.seen.saturating_add(1);
        let what = match entity {
            _ if self.seen >= MAX_SEEN => return,
            ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(_), .. } => "resource",
            ComponentEntityType::Type { .. } => return,
            ComponentEntityType::Instance(instance) => {
                if self.entered.insert(instance) {
                    for (inner, item) in &self.types[instance].exports {
                        path.push(inner);
                        self.look_at(path, item.ty);
                        path.pop();
                    }
                }
                return;
            }
            ComponentEntityType::Func(_) => "function",
            ComponentEntityType::Module(_) => "module",
            ComponentEntityType::Value(_) => "value",
            ComponentEntityType::Component(_) => "component",
        };
        self.count = self.count.saturating_add(1);
        self.first.get_or_insert_with(|| format!("{what} `{}`", words(&path.join("#"))));
    }
}
