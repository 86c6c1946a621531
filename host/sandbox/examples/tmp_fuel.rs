#![allow(clippy::all, clippy::expect_used, clippy::unwrap_used)]
use leasehold_core::seams::*;
use leasehold_core::testing::ManualClock;
use leasehold_sandbox::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
#[tokio::main]
async fn main() {
    let read = |n: &str| std::fs::read(format!("target/guests/{n}.component.wasm")).unwrap();
    for fuel in [10u64, 20, 40, 80, 160, 320] {
        let mut c = Config::new(Builtins {
            acl: Artifact::component(read("acl")),
            statements: Artifact::component(read("statements")),
        });
        c.limits.compile_acl.fuel = fuel * 1_000_000;
        let s = leasehold_sandbox::Sandbox::new(c, Arc::new(ManualClock::at(1))).unwrap();
        let mut best = Duration::MAX;
        let mut ok = false;
        for n in 0..8 {
            let p: Vec<_> = (0..20).map(|p| PolicySource { name: format!("p{n}-{p}"), text: (0..50).map(|r| format!("path \"secret/team-{p}/service-{r}/config\" {{\n  capabilities = [\"read\", \"list\"]\n}}\n")).collect(), allow_slashes: false, allow_wildcards: false }).collect();
            let b = Instant::now();
            ok = s.compile_acl(&p, &IdentityValues::new()).await.is_ok();
            best = best.min(b.elapsed());
        }
        println!("fuel {fuel}M ok {ok} best {best:?}");
        if ok {
            break;
        }
    }
}
