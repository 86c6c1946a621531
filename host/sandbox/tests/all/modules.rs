//! A module's life: inspected, loaded, configured, asked, unloaded.

use leasehold_core::seams::sandbox::{Digest, Sandbox as _, SandboxError};

use crate::support::{module_ask, module_sandbox, policy_probe};

#[tokio::test]
async fn a_module_answers_between_load_and_unload_only() {
    let sandbox = module_sandbox(|_| {});
    let bytes = policy_probe("allow");
    let digest = Digest(sandbox.inspect(&bytes).await.unwrap().digest);
    let unknown = SandboxError::Unknown(digest.0.clone());
    // Looking at a module does not load it.
    assert_eq!(sandbox.evaluate(&digest, b"{}", &module_ask()).await.unwrap_err(), unknown);

    assert_eq!(sandbox.load(&bytes).await.unwrap(), digest);
    assert_eq!(sandbox.load(&bytes).await.unwrap(), digest);
    sandbox.configure(&digest, b"{}").await.unwrap();
    sandbox.evaluate(&digest, b"{}", &module_ask()).await.unwrap();

    sandbox.unload(&digest).await;
    assert_eq!(sandbox.evaluate(&digest, b"{}", &module_ask()).await.unwrap_err(), unknown);
    assert_eq!(sandbox.configure(&digest, b"{}").await.unwrap_err(), unknown);
}

#[tokio::test]
async fn many_modules_load_at_once() {
    let sandbox = std::sync::Arc::new(module_sandbox(|_| {}));
    let names = ["allow", "panics", "remembers", "own-failure"];
    let loads = names.map(|name| {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.load(&policy_probe(name)).await })
    });
    for load in loads {
        load.await.unwrap().unwrap();
    }
}
