//! `cargo bench -p leasehold-sandbox`: what one call of each kind of guest costs.
//!
//! Needs the components of `cargo xtask guests` and `cargo xtask module examples/change-freeze`. Criterion's estimate is a
//! mean and holds the comparisons with fresh instances that run beside the decisions; `-- --verbose` adds the median.
//!
//! Wanted on two cores: a decision under 20 × 50 rules ≤ 5 µs in the median, a render of three statements ≤ 100 µs.
#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use leasehold_core::request::Object;
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::sandbox::{
    AclEvaluator as _, AclRequest, Dialect, IdentityValues, ModuleHost as _, ModuleIdentity, ModuleRequest,
    PolicySource, TemplateRenderer as _,
};
use leasehold_model::{Operation, Timestamp};
use leasehold_sandbox::{Artifact, Builtins, Config, GuestLimits, Sandbox};
use tokio::runtime::Runtime;

struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }

    fn steady(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

fn built(path: &str, how: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: run `{how}` first", path.display()))
}

fn shipped(name: &str) -> Artifact {
    Artifact::component(built(&format!("target/guests/{name}.component.wasm"), "cargo xtask guests"))
}

fn sandbox(taste: impl FnOnce(&mut GuestLimits)) -> Sandbox {
    let mut config = Config::new(Builtins { acl: shipped("acl"), statements: shipped("statements") });
    taste(&mut config.limits);
    Sandbox::new(config, Arc::new(RealClock(Instant::now()))).expect("a sandbox")
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// 60 % exact paths, 25 % with `*` at the end, 15 % with `+`.
fn policies() -> Vec<PolicySource> {
    let rule = |policy: usize, rule: usize| {
        let path = match rule % 20 {
            0..12 => format!("secret/team-{policy}/service-{rule}/config"),
            12..17 => format!("secret/team-{policy}/shared-{rule}/*"),
            _ => format!("database/+/team-{policy}-{rule}/+"),
        };
        format!("path \"{path}\" {{\n  capabilities = [\"read\", \"list\"]\n}}\n")
    };
    (0..20)
        .map(|policy| PolicySource {
            name: format!("policy-{policy}"),
            text: (0..50).map(|number| rule(policy, number)).collect::<String>().into(),
            allow_slashes: false,
            allow_wildcards: false,
        })
        .collect()
}

fn decisions(criterion: &mut Criterion) {
    let runtime = runtime();
    let sandbox = sandbox(|_| {});
    let (policies, nobody, data) = (policies(), IdentityValues::new(), Object::new());
    let set = runtime.block_on(sandbox.compile_acl(&policies, &nobody)).expect("a policy set").id;

    let mut group = criterion.benchmark_group("decision under 20 × 50 rules");
    for (what, path) in [
        ("exact", "secret/team-7/service-3/config"),
        ("prefix", "secret/team-7/shared-13/a/b"),
        ("segments", "database/creds/team-7-18/x"),
        ("denied", "sys/seal"),
    ] {
        let ask = AclRequest {
            path,
            operation: Operation::Read,
            needs_sudo: false,
            wrap_ttl: None,
            data: &data,
            requester: None,
            approvals: &[],
        };
        group.bench_with_input(BenchmarkId::from_parameter(what), &ask, |bencher, ask| {
            bencher.to_async(&runtime).iter(|| async { sandbox.decide(&set, ask).await.expect("a verdict") });
        });
    }
    group.finish();

    criterion.bench_function("capabilities of 10 paths under 20 × 50 rules", |bencher| {
        let paths = ["secret/team-7/service-3/config"; 10];
        bencher.to_async(&runtime).iter(|| async { sandbox.capabilities(&set, &paths).await.expect("capabilities") });
    });
}

/// What the first decision of an instance costs, and each comparison.
fn compiling(criterion: &mut Criterion) {
    let runtime = runtime();
    let sandbox = sandbox(|_| {});
    // Known sets are not compiled again: a value that nobody looks at makes another set of each round.
    let round = std::sync::atomic::AtomicU64::new(0);
    let identity = || {
        let round = round.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        IdentityValues::from([("round".to_owned(), round.to_string())])
    };
    let one = policies();
    let mut other = policies();
    other.reverse();
    criterion.bench_function("compiling two sets of 20 × 50 rules", |bencher| {
        bencher.to_async(&runtime).iter(|| async {
            sandbox.compile_acl(&one, &identity()).await.expect("a policy set");
            sandbox.compile_acl(&other, &identity()).await.expect("a policy set")
        });
    });
}

fn renders(criterion: &mut Criterion) {
    let runtime = runtime();
    let sandbox = sandbox(|_| {});
    let statements = [
        "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readers;",
        "COMMENT ON ROLE \"{{name}}\" IS 'leased';",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\";",
    ]
    .map(str::to_owned);
    let values = [
        ("name", "v-token-readonly-abc"),
        ("username", "v-token-readonly-abc"),
        ("password", "Placeholder01"),
        ("expiration", "2026-11-23 01:35:37+0000"),
    ];
    let mut group = criterion.benchmark_group("render of 3 statements");
    for (what, dialect) in [("handlebars", Dialect::Handlebars), ("plain", Dialect::Plain)] {
        group.bench_function(what, |bencher| {
            bencher
                .to_async(&runtime)
                .iter(|| async { sandbox.render(&statements, dialect, &values).await.expect("rendered statements") });
        });
    }
    group.finish();
}

/// The example of a third party's module, a fresh instance for each verdict.
fn modules(criterion: &mut Criterion) {
    let runtime = runtime();
    let sandbox = sandbox(|_| {});
    let path = "examples/change-freeze/target/change-freeze.component.wasm";
    let module = built(path, "cargo xtask module examples/change-freeze");
    let module = runtime.block_on(sandbox.load(&module)).expect("a module");
    let config =
        br#"{ "windows": [ { "from": 1700000000, "to": 1700003600, "message": "release" } ], "max_ttl": "1h" }"#;
    let ask = ModuleRequest {
        id: "5c4b".to_owned(),
        path: "database/creds/readonly".to_owned(),
        mount_path: "database/".to_owned(),
        mount_type: "database".to_owned(),
        operation: Operation::Read,
        parameters: Vec::new(),
        identity: ModuleIdentity { display_name: "token".to_owned(), ..ModuleIdentity::default() },
        now: Timestamp::from_secs(1_800_000_000),
        client_address: Some("127.0.0.1".to_owned()),
        attributes: Vec::new(),
    };
    criterion.bench_function("module evaluate, change-freeze", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { sandbox.evaluate("binding", &module, config, &ask).await.expect("a verdict") });
    });
}

criterion_group!(benches, decisions, compiling, renders, modules);
criterion_main!(benches);
