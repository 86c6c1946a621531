//! What `wit/` says, as Rust. Generated; one module per world, because each has its own `types`.

pub(crate) mod acl {
    wasmtime::component::bindgen!({
        path: "../../wit/acl",
        world: "acl",
        additional_derives: [Clone, PartialEq],
    });
}

pub(crate) mod statements {
    wasmtime::component::bindgen!({
        path: "../../wit/statements",
        world: "statements",
    });
}

pub(crate) mod policy {
    wasmtime::component::bindgen!({
        path: "../../wit/policy",
        world: "policy-module",
    });
}
