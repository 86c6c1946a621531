//! The components that ship with the server, and machine code for them, embedded by our own build.

use leasehold_sandbox::{Artifact, Builtins};

macro_rules! artifact {
    ($name:literal) => {
        Artifact::embedded(
            include_bytes!(concat!(env!("LEASEHOLD_GUESTS"), "/", $name, ".component.wasm")),
            include_bytes!(concat!(env!("LEASEHOLD_GUESTS"), "/", $name, ".cwasm")),
            include_str!(concat!(env!("LEASEHOLD_GUESTS"), "/", $name, ".cwasm.sha256")),
        )
    };
}

pub(crate) fn builtins() -> Builtins {
    Builtins { acl: artifact!("acl"), statements: artifact!("statements") }
}
