//! Assembles probes, finds the shipped components, makes small sandboxes, and counts what they count.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use leasehold_core::request::Object;
use leasehold_core::seams::sandbox::{AclRequest, IdentityValues, ModuleIdentity, ModuleRequest, PolicySource};
use leasehold_core::testing::ManualClock;
use leasehold_model::{Operation, Timestamp};
use leasehold_sandbox::{Artifact, Builtins, Config, GuestLimits, Sandbox};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

pub(crate) const NOW: i64 = 1_800_000_000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A component that `cargo xtask guests` built.
pub(crate) fn shipped(name: &str) -> Vec<u8> {
    let path = root().join(format!("target/guests/{name}.component.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run `cargo xtask guests`", path.display()))
}

pub(crate) fn policy_probe(name: &str) -> Vec<u8> {
    probe("policy", name, "policy-module")
}

pub(crate) fn acl_probe(name: &str) -> Vec<u8> {
    probe("acl", name, "acl")
}

/// A whole component in text.
pub(crate) fn component_probe(name: &str) -> Vec<u8> {
    wat::parse_file(root().join(format!("guests/probes/component/{name}.wat"))).unwrap()
}

fn probe(package: &str, name: &str, world: &str) -> Vec<u8> {
    let folder = root().join("guests/probes").join(package);
    let read = |name: &str| std::fs::read_to_string(folder.join(format!("{name}.wat"))).unwrap();
    let core = wat::parse_str(format!("(module {} {})", read("base"), read(name))).unwrap();
    encode(core, &root().join("wit").join(package), world)
}

/// What `wasm-tools component embed` and `component new` do.
pub(crate) fn encode(mut core: Vec<u8>, wit: &Path, world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&core).unwrap().validate(true).encode().unwrap()
}

pub(crate) fn policy_wit() -> PathBuf {
    root().join("wit/policy")
}

/// With the shipped components.
pub(crate) fn sandbox() -> (Sandbox, Arc<ManualClock>) {
    sandbox_with(shipped("acl"), |_| {})
}

/// With another ACL component, and limits to taste.
pub(crate) fn sandbox_with(acl: Vec<u8>, taste: impl FnOnce(&mut GuestLimits)) -> (Sandbox, Arc<ManualClock>) {
    let builtins = Builtins { acl: Artifact::component(acl), statements: Artifact::component(shipped("statements")) };
    let mut config = Config::new(builtins);
    config.limits.acl_at_once = 8;
    config.limits.statements_at_once = 4;
    config.limits.modules_at_once = 4;
    taste(&mut config.limits);
    let clock = Arc::new(ManualClock::at(NOW));
    (Sandbox::new(config, clock.clone()).unwrap(), clock)
}

/// The counters of a sandbox that was made while this was the recorder.
#[derive(Default)]
pub(crate) struct Counts(Mutex<HashMap<String, Arc<AtomicU64>>>);

impl Counts {
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Waits until at least so many are counted: something works behind the caller's back.
    pub(crate) async fn reach(&self, name: &str, wanted: u64) {
        for _ in 0..1000 {
            if self.of(name) >= wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("`{name}` did not come to {wanted}: {}", self.of(name));
    }
}

impl metrics::Recorder for Counts {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        let mut counts = self.0.lock().unwrap();
        // `name{value}` where a size tells counters of one name apart, else `name`.
        let size = key.labels().find(|label| label.key() == "size");
        let name = size.map_or_else(|| key.name().to_owned(), |size| format!("{}{{{}}}", key.name(), size.value()));
        metrics::Counter::from_arc(Arc::clone(counts.entry(name).or_default()))
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }

    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

/// As [`sandbox_with`], and what it counts.
pub(crate) fn counted_sandbox(
    acl: Vec<u8>,
    taste: impl FnOnce(&mut GuestLimits),
) -> (Sandbox, Arc<ManualClock>, Counts) {
    let counts = Counts::default();
    let (sandbox, clock) = metrics::with_local_recorder(&counts, || sandbox_with(acl, taste));
    (sandbox, clock, counts)
}

/// For tests of modules, which need no real ACL: starts faster.
pub(crate) fn module_sandbox(taste: impl FnOnce(&mut Config)) -> Sandbox {
    // A component that is never called in these tests stands in for both.
    let builtins = Builtins {
        acl: Artifact::component(acl_probe("allow")),
        statements: Artifact::component(shipped("statements")),
    };
    let mut config = Config::new(builtins);
    config.limits.acl_at_once = 2;
    config.limits.statements_at_once = 1;
    config.limits.modules_at_once = 4;
    taste(&mut config);
    Sandbox::new(config, Arc::new(ManualClock::at(NOW))).unwrap()
}

pub(crate) fn policy(name: &str, text: &str) -> PolicySource {
    PolicySource { name: name.to_owned(), text: text.into(), allow_slashes: false, allow_wildcards: false }
}

pub(crate) fn nobody() -> IdentityValues {
    IdentityValues::new()
}

pub(crate) fn read<'a>(path: &'a str, data: &'a Object) -> AclRequest<'a> {
    AclRequest {
        path,
        operation: Operation::Read,
        needs_sudo: false,
        wrap_ttl: None,
        data,
        requester: None,
        approvals: &[],
    }
}

pub(crate) fn module_request() -> ModuleRequest {
    ModuleRequest {
        id: "5c4b".to_owned(),
        path: "database/creds/readonly".to_owned(),
        mount_path: "database/".to_owned(),
        mount_type: "database".to_owned(),
        operation: Operation::Read,
        parameters: vec![("seen".to_owned(), Some("1".to_owned())), ("hidden".to_owned(), None)],
        identity: ModuleIdentity {
            display_name: "token".to_owned(),
            token_accessor: "accessor".to_owned(),
            token_policies: vec!["default".to_owned()],
            ..ModuleIdentity::default()
        },
        now: Timestamp::from_secs(NOW),
        client_address: Some("127.0.0.1".to_owned()),
        attributes: Vec::new(),
    }
}
