//! From a core module to a component that imports nothing.

use wasmparser::{
    Parser, Payload, Validator, WasmFeatures,
    component_types::{ComponentAnyTypeId, ComponentEntityType},
    types::Types,
};
use wit_component::ComponentEncoder;

use crate::error::Error;

/// Wraps a core module, which carries its world in a custom section, into a component.
pub(crate) fn encode(name: &str, core: &[u8]) -> Result<Vec<u8>, Error> {
    ComponentEncoder::default()
        .validate(true)
        .module(core)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| Error::Component { name: name.to_owned(), reason: format!("{error:#}") })
}

/// Refuses a component that imports anything but types.
pub(crate) fn check_pure(name: &str, component: &[u8]) -> Result<(), Error> {
    let imports = imports(component).map_err(|reason| Error::Component { name: name.to_owned(), reason })?;
    if imports.is_empty() {
        return Ok(());
    }
    Err(Error::Imports { name: name.to_owned(), imports: imports.join(", ") })
}

/// What a component needs from its host, types left out: a world whose exports share types imports an instance of those.
pub(crate) fn imports(component: &[u8]) -> Result<Vec<String>, String> {
    if !Parser::is_component(component) {
        return Err("it is no component".to_owned());
    }
    let types =
        Validator::new_with_features(WasmFeatures::all()).validate_all(component).map_err(|error| error.to_string())?;
    let mut needed = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(|error| error.to_string())?;
        let Payload::ComponentImportSection(section) = payload else { continue };
        for import in section {
            let name = import.map_err(|error| error.to_string())?.name.name;
            // Imports of nested components are met here, too; what feeds them comes from within.
            if let Some(item) = types.as_ref().component_item_for_import(name) {
                collect(&types, name, item.ty, &mut needed);
            }
        }
    }
    needed.sort();
    needed.dedup();
    Ok(needed)
}

fn collect(types: &Types, name: &str, entity: ComponentEntityType, needed: &mut Vec<String>) {
    match entity {
        ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(_), .. } => {
            needed.push(format!("resource `{name}`"))
        }
        ComponentEntityType::Type { .. } => {}
        ComponentEntityType::Instance(instance) => {
            for (inner, item) in &types[instance].exports {
                collect(types, &format!("{name}#{inner}"), item.ty, needed);
            }
        }
        ComponentEntityType::Func(_) => needed.push(format!("function `{name}`")),
        ComponentEntityType::Module(_) => needed.push(format!("module `{name}`")),
        ComponentEntityType::Value(_) => needed.push(format!("value `{name}`")),
        ComponentEntityType::Component(_) => needed.push(format!("component `{name}`")),
    }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{ComponentBuilder, ComponentTypeRef, InstanceType, PrimitiveValType, TypeBounds};

    use super::*;

    #[test]
    fn a_component_that_imports_a_function_is_refused() {
        let mut builder = ComponentBuilder::default();
        let (clock, mut function) = builder.type_function(None);
        function.params::<[(&str, PrimitiveValType); 0], _>([]).result(Some(PrimitiveValType::U64.into()));
        builder.import("now", ComponentTypeRef::Func(clock));

        let refused = check_pure("probe", &builder.finish()).unwrap_err().to_string();

        assert!(refused.contains("function `now`"), "{refused}");
    }

    #[test]
    fn an_imported_instance_is_judged_by_what_it_holds() {
        let with = |extend: &dyn Fn(&mut InstanceType)| {
            let mut instance = InstanceType::new();
            extend(&mut instance);
            let mut builder = ComponentBuilder::default();
            let ty = builder.type_instance(None, &instance);
            builder.import("leasehold:policy/types@0.1.0", ComponentTypeRef::Instance(ty));
            imports(&builder.finish()).unwrap()
        };

        let types_only = with(&|instance| {
            instance.ty().defined_type().list(PrimitiveValType::String);
            instance.export("names", ComponentTypeRef::Type(TypeBounds::Eq(0)));
        });
        let function = with(&|instance| {
            let no_parameters: [(&str, PrimitiveValType); 0] = [];
            instance.ty().function().params(no_parameters).result(None);
            instance.export("read", ComponentTypeRef::Func(0));
        });
        let resource = with(&|instance| {
            instance.export("file", ComponentTypeRef::Type(TypeBounds::SubResource));
        });

        assert_eq!(types_only, Vec::<String>::new());
        assert_eq!(function, ["function `leasehold:policy/types@0.1.0#read`"]);
        assert_eq!(resource, ["resource `leasehold:policy/types@0.1.0#file`"]);
    }

    #[test]
    fn what_is_no_component_is_no_pure_component() {
        assert!(check_pure("garbage", b"not wasm").is_err());
        assert!(check_pure("core-module", b"\0asm\x01\0\0\0").is_err());
        assert!(encode("garbage", b"not wasm").is_err());
    }
}
