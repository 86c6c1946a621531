//! `cargo bench -p leasehold-sandbox --bench acl`: one decision under 20 policies of 50 rules, and one render.
//!
//! Prints medians over many batches; needs the components of `cargo xtask guests`.
#![expect(clippy::expect_used, reason = "a bench that cannot go on ends")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_core::request::Object;
use leasehold_core::seams::{Ask, Clock, Dialect, IdentityValues, PolicySource, Sandbox as _};
use leasehold_model::{Operation, Timestamp};
use leasehold_sandbox::{Artifact, Builtins, Config, Sandbox};

struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

fn component(name: &str) -> Artifact {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/guests/{name}.component.wasm"));
    Artifact::component(std::fs::read(path).expect("run `cargo xtask guests` first"))
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
            text: (0..50).map(|number| rule(policy, number)).collect(),
            allow_slashes: false,
            allow_wildcards: false,
        })
        .collect()
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let builtins = Builtins { acl: component("acl"), statements: component("statements") };
        let begun = Instant::now();
        let sandbox = Sandbox::new(Config::new(builtins), Arc::new(RealClock(Instant::now()))).expect("a sandbox");
        println!("sandbox made, both components compiled: {:?}", begun.elapsed());

        let begun = Instant::now();
        let set = sandbox.compile_acl(&policies(), &IdentityValues::new()).await.expect("a policy set");
        println!("policy set of 20 × 50 rules compiled:    {:?}", begun.elapsed());

        let data = Object::new();
        for (what, path) in [
            ("exact", "secret/team-7/service-3/config"),
            ("prefix", "secret/team-7/shared-13/a/b"),
            ("segments", "database/creds/team-7-18/x"),
            ("denied", "sys/seal"),
        ] {
            let ask = Ask { path, operation: Operation::Read, needs_sudo: false, wrap_ttl: None, data: &data };
            let mut batches = Vec::new();
            // Short batches: one in a thousand decisions is repeated on a fresh instance, which the mean shows.
            for _ in 0..1000 {
                let begun = Instant::now();
                for _ in 0..20 {
                    sandbox.decide(&set, &ask).await.expect("a verdict");
                }
                batches.push(begun.elapsed() / 20);
            }
            report(&format!("decision, {what}"), batches);
        }

        let mut batches = Vec::new();
        let path = "secret/team-7/service-3/config";
        let paths = [path; 10];
        for _ in 0..41 {
            let begun = Instant::now();
            for _ in 0..200 {
                sandbox.capabilities(&set, &paths).await.expect("capabilities");
            }
            batches.push(begun.elapsed() / 200);
        }
        report("capabilities of 10 paths", batches);

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
        for dialect in [Dialect::Handlebars, Dialect::Plain] {
            let mut batches = Vec::new();
            for _ in 0..41 {
                let begun = Instant::now();
                for _ in 0..50 {
                    sandbox.render(&statements, dialect, &values).await.expect("rendered");
                }
                batches.push(begun.elapsed() / 50);
            }
            report(&format!("render of 3 statements, {dialect:?}"), batches);
        }
    });
}

fn report(what: &str, mut batches: Vec<Duration>) {
    batches.sort();
    let least = batches.first().copied().unwrap_or_default();
    let median = batches.get(batches.len() / 2).copied().unwrap_or_default();
    let mean = batches.iter().sum::<Duration>() / u32::try_from(batches.len()).unwrap_or(1).max(1);
    println!("{what:<40} min {least:>10.2?}  median {median:>10.2?}  mean {mean:>10.2?}");
}
