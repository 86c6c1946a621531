//! The example of a third party's module, as it was built, through the seam.

use std::path::PathBuf;

use leasehold_core::seams::sandbox::{ModuleDecision, ModuleHost as _, SandboxError};
use leasehold_model::{Operation, Ttl};

use crate::support::{NOW, module_request, module_sandbox};

fn built() -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples/change-freeze/target/change-freeze.component.wasm");
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask module examples/change-freeze`", path.display()))
}

#[tokio::test]
async fn credentials_are_refused_in_the_freeze_and_capped_outside_it() {
    let sandbox = module_sandbox(|_| {});
    let facts = sandbox.inspect(&built()).await.unwrap();
    assert_eq!(facts.name, "change-freeze");
    let module = sandbox.load(&built()).await.unwrap();
    let config = |from: i64, to: i64| {
        let window = serde_json::json!({ "from": from, "to": to, "message": "release" });
        serde_json::json!({ "windows": [window], "max_ttl": "1h" }).to_string().into_bytes()
    };

    let frozen = sandbox.evaluate("binding", &module, &config(NOW - 60, NOW + 60), &module_request()).await.unwrap();
    assert_eq!(frozen.decision, ModuleDecision::Deny);
    assert_eq!(frozen.messages, ["credentials are frozen until 2027-01-15T08:01:00Z: release"]);

    let free = sandbox.evaluate("binding", &module, &config(NOW - 60, NOW), &module_request()).await.unwrap();
    assert_eq!((free.decision, free.max_ttl), (ModuleDecision::Allow, Some(Ttl::from_secs(3600))));

    let mut revoke = module_request();
    revoke.operation = Operation::Revoke;
    let revoked = sandbox.evaluate("binding", &module, &config(NOW - 60, NOW + 60), &revoke).await.unwrap();
    assert_eq!(revoked.decision, ModuleDecision::Allow);
}

#[tokio::test]
async fn a_configuration_that_is_refused_says_why() {
    let sandbox = module_sandbox(|_| {});
    let module = sandbox.load(&built()).await.unwrap();
    sandbox.configure(&module, b"").await.unwrap();
    let refused = sandbox.configure(&module, br#"{ "window": [] }"#).await.unwrap_err();
    assert!(matches!(&refused, SandboxError::Failed(why) if why.contains("unknown field `window`")), "{refused}");
}
