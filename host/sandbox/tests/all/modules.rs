//! A module's life: inspected, loaded, configured, asked, unloaded.

use leasehold_core::seams::sandbox::{Digest, ModuleHost as _, SandboxError};

use crate::gate::appended;
use crate::support::{module_request, module_sandbox, policy_probe};

#[tokio::test]
async fn a_module_answers_between_load_and_unload_only() {
    let sandbox = module_sandbox(|_| {});
    let bytes = policy_probe("allow");
    let digest = Digest(sandbox.inspect(&bytes).await.unwrap().digest);
    let unknown = SandboxError::Unknown(digest.0.clone());
    // Looking at a module does not load it.
    assert_eq!(sandbox.evaluate("binding", &digest, b"{}", &module_request()).await.unwrap_err().why, unknown);

    assert_eq!(sandbox.load(&bytes).await.unwrap(), digest);
    assert_eq!(sandbox.load(&bytes).await.unwrap(), digest);
    sandbox.configure(&digest, b"{}").await.unwrap();
    sandbox.evaluate("binding", &digest, b"{}", &module_request()).await.unwrap();

    sandbox.unload(&digest).await;
    assert_eq!(sandbox.evaluate("binding", &digest, b"{}", &module_request()).await.unwrap_err().why, unknown);
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

#[tokio::test]
async fn a_message_does_nothing_to_the_terminal_that_shows_it() {
    let sandbox = module_sandbox(|_| {});
    let digest = sandbox.load(&policy_probe("control-message")).await.unwrap();
    let verdict = sandbox.evaluate("binding", &digest, b"{}", &module_request()).await.unwrap();
    assert_eq!(verdict.messages, [" [31mRED  !"]);
}

/// A whole policy module, and one more core module in it that is instantiated so many times.
fn with_more(core: &str, times: u8) -> Vec<u8> {
    let whole = policy_probe("allow");
    let modules = wasmparser::Parser::new(0).parse_all(&whole);
    let modules = modules.filter(|part| matches!(part, Ok(wasmparser::Payload::ModuleSection { .. }))).count();
    let mut whole = appended(whole, &wat::parse_str(core).unwrap());
    let mut instances = vec![times];
    for _ in 0..times {
        instances.extend([0, u8::try_from(modules).unwrap(), 0]);
    }
    whole.extend([2, u8::try_from(instances.len()).unwrap()]);
    whole.extend(instances);
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_modules_run_at_once_as_have_places_however_much_each_has() {
    let sandbox = std::sync::Arc::new(module_sandbox(|config| config.limits.binding_at_once = 4));
    let tables = "(module (memory 1) (memory 1) (memory 1) (table 1 funcref) (table 1 funcref) (table 1 funcref))";
    for (core, times) in [("(module (memory 1))", 3), ("(module)", 26), (tables, 1)] {
        let digest = sandbox.load(&with_more(core, times)).await.unwrap();
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let (sandbox, digest) = (sandbox.clone(), digest.clone());
                tokio::spawn(async move {
                    for _ in 0..50 {
                        sandbox.evaluate("binding", &digest, b"{}", &module_request()).await.unwrap();
                    }
                })
            })
            .collect();
        for one in asked {
            one.await.unwrap();
        }
        sandbox.unload(&digest).await;
    }
}
