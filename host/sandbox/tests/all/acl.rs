//! Warm ACL instances: what they keep, when they go, and what happens when one lies.

use std::time::Duration;

use leasehold_core::request::Object;
use leasehold_core::seams::sandbox::{
    AclError, AclEvaluator as _, AclRequest, Diagnostic, GroupKey, NamedGroup, PolicySetId, Reason, SandboxError,
    Severity,
};
use leasehold_model::{Capabilities, Operation};
use leasehold_sandbox::Sandbox;
use serde_json::json;

use crate::support::{NOW, acl_probe, counted_sandbox, nobody, policy, read, sandbox, sandbox_with, shipped};

async fn set(sandbox: &Sandbox, text: &str) -> PolicySetId {
    sandbox.compile_acl(&[policy("p", text)], &nobody()).await.unwrap().id
}

async fn allowed(sandbox: &Sandbox, set: &PolicySetId, path: &str) -> Result<bool, SandboxError> {
    sandbox.decide(set, &read(path, &Object::new())).await.map(|verdict| verdict.allowed)
}

const CHECKS: &str = "leasehold_sandbox_shadow_checks_total";
const DIFFERENCES: &str = "leasehold_sandbox_shadow_differences_total";

const READ: &str = "path \"secret/*\" {\n  capabilities = [\"read\"]\n}\n";

#[tokio::test]
async fn a_verdict_names_the_rule_and_where_it_stands() {
    let (sandbox, _) = sandbox();
    let set = set(&sandbox, &format!("\n{READ}")).await;

    let verdict = sandbox.decide(&set, &read("secret/a", &Object::new())).await.unwrap();

    assert!(verdict.allowed);
    assert_eq!(verdict.reason, Reason::Granted);
    assert_eq!(verdict.capabilities, Capabilities::READ);
    let [rule] = verdict.rules.as_slice() else { panic!("{:?}", verdict.rules) };
    assert_eq!((rule.policy.as_str(), rule.pattern.as_str(), rule.line), ("p", "secret/*", 2));
}

#[tokio::test]
async fn what_no_rule_names_is_denied() {
    let (sandbox, _) = sandbox();
    let set = set(&sandbox, READ).await;
    let verdict = sandbox.decide(&set, &read("other", &Object::new())).await.unwrap();
    assert!(!verdict.allowed);
    assert_eq!(verdict.reason, Reason::NoRule);
}

#[tokio::test]
async fn a_policy_that_does_not_parse_is_refused_with_its_position() {
    let (sandbox, _) = sandbox();
    let refused =
        sandbox.compile_acl(&[policy("bad", "path \"a\" {\n  capabilities = [\"foo\"]\n}\n")], &nobody()).await;
    let Err(AclError::Refused(diagnostics)) = refused else { panic!("{refused:?}") };
    let first: &Diagnostic = diagnostics.first().unwrap();
    assert_eq!((first.severity.clone(), first.at.as_str()), (Severity::Error, "bad"));
    assert!(first.message.contains("invalid capability") && first.line >= 1, "{first:?}");
    // The instance that refused it serves on.
    let set = set(&sandbox, READ).await;
    assert!(allowed(&sandbox, &set, "secret/a").await.unwrap());
}

#[tokio::test]
async fn equal_texts_have_one_id_and_others_another() {
    let (sandbox, _) = sandbox();
    let one = set(&sandbox, READ).await;
    assert_eq!(set(&sandbox, READ).await, one);
    assert_ne!(sandbox.compile_acl(&[policy("q", READ)], &nobody()).await.unwrap().id, one);
    // A text cannot be moved from one policy into the next unnoticed.
    let ab = [policy("a", READ), policy("b", "")];
    let ba = [policy("a", ""), policy("b", READ)];
    assert_ne!(sandbox.compile_acl(&ab, &nobody()).await.unwrap(), sandbox.compile_acl(&ba, &nobody()).await.unwrap());
}

#[tokio::test]
async fn a_set_that_is_not_known_is_said_to_be_unknown() {
    let (sandbox, _) = sandbox();
    let stranger = PolicySetId("no such set".into());
    assert!(matches!(allowed(&sandbox, &stranger, "a").await, Err(SandboxError::Unknown(_))));
}

#[tokio::test]
async fn sets_that_are_forgotten_are_unknown_and_come_back_by_compiling() {
    let (sandbox, _) = sandbox_with(shipped("acl"), |limits| limits.known_sets = 2);
    let text = |number: usize| format!("path \"only/{number}\" {{ capabilities = [\"read\"] }}");
    let mut sets = Vec::new();
    for number in 0..6 {
        let new = set(&sandbox, &text(number)).await;
        // The newest is known, whichever had to leave for it.
        assert!(allowed(&sandbox, &new, &format!("only/{number}")).await.unwrap());
        sets.push(new);
    }
    let mut forgotten = 0;
    for (number, known) in sets.iter().enumerate() {
        let path = format!("only/{number}");
        match allowed(&sandbox, known, &path).await {
            Ok(allowed) => assert!(allowed),
            Err(SandboxError::Unknown(_)) => forgotten += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(forgotten, 4);
    for (number, known) in sets.iter().enumerate() {
        assert_eq!(set(&sandbox, &text(number)).await, *known);
        assert!(allowed(&sandbox, known, &format!("only/{number}")).await.unwrap());
    }
}

#[tokio::test]
async fn more_sets_than_an_instance_holds_are_compiled_again() {
    let (sandbox, _) = sandbox_with(shipped("acl"), |limits| {
        limits.warm = 1;
        limits.warm_sets = 2;
    });
    let mut sets = Vec::new();
    for number in 0..6 {
        let text = format!("path \"only/{number}\" {{ capabilities = [\"read\"] }}");
        sets.push((number, set(&sandbox, &text).await));
    }
    for _ in 0..3 {
        for (number, set) in &sets {
            assert!(allowed(&sandbox, set, &format!("only/{number}")).await.unwrap());
            assert!(!allowed(&sandbox, set, &format!("only/{}", number + 1)).await.unwrap());
        }
    }
}

#[tokio::test]
async fn capabilities_and_grants_below_answer_from_the_same_set() {
    let (sandbox, _) = sandbox();
    let set = set(&sandbox, READ).await;
    let all = sandbox.capabilities(&set, &["secret/a", "other"]).await.unwrap();
    assert_eq!(all.iter().map(|one| one.names()).collect::<Vec<_>>(), [vec!["read"], vec!["deny"]]);
    assert!(sandbox.grants_below(&set, "secret/").await.unwrap());
    assert!(!sandbox.grants_below(&set, "database/").await.unwrap());
    // Enough paths for another thread.
    assert_eq!(sandbox.capabilities(&set, &["secret/a"; 500]).await.unwrap().len(), 500);
}

#[tokio::test]
async fn the_longest_texts_that_a_token_may_have_can_be_read() {
    let (sandbox, _) = sandbox();
    let each = leasehold_core::policy::documents::TEXT_LEN_MAX;
    let text = format!("{READ}# {}", "x".repeat(each - READ.len() - 2));
    let all: Vec<_> = (0..leasehold_core::policy::documents::SET_LEN_MAX / each)
        .map(|number| policy(&format!("p{number}"), &text))
        .collect();
    let set = sandbox.compile_acl(&all, &nobody()).await.unwrap().id;
    assert!(allowed(&sandbox, &set, "secret/a").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_set_that_is_dear_to_compile_takes_no_places_from_others() {
    let (sandbox, _) = sandbox_with(shipped("acl"), |limits| limits.compiles_at_once = 2);
    let sandbox = std::sync::Arc::new(sandbox);
    let valued = "path \"valued/*\" {\n  capabilities = [\"read\"]\n  allowed_parameters = { \"a\" = [\"x\"] }\n}\n";
    let many: String = (0..4_000).map(|at| format!("path \"p/{at}\" {{ capabilities = [\"read\"] }}\n")).collect();
    let dear = set(&sandbox, &format!("{valued}{many}")).await;
    let (small, other) = (set(&sandbox, valued).await, set(&sandbox, READ).await);

    // More than there are places in the lane, each compiling the large set anew.
    let flood: Vec<_> = (0..40)
        .map(|_| {
            let (sandbox, dear) = (sandbox.clone(), dear.clone());
            tokio::spawn(async move { asked_with_value(&sandbox, &dear).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    for _ in 0..20 {
        assert!(allowed(&sandbox, &other, "secret/a").await.unwrap());
        assert!(asked_with_value(&sandbox, &small).await.unwrap());
    }
    for asked in flood {
        let answer = asked.await.unwrap();
        assert!(matches!(answer, Ok(true) | Err(SandboxError::Busy)), "{answer:?}");
    }
}

/// Two hundred subsets of ten wide policies, from sixteen clients: everybody's `lookup-self` took 600 ms.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_wide_sets_compiled_keeps_no_usual_set_waiting_and_pushes_none_out() {
    let (sandbox, _, counts) = counted_sandbox(shipped("acl"), |limits| {
        limits.shadow_one_in = 0;
        limits.compiles_at_once = 1;
        limits.wide_compiles_at_once = 1;
        limits.compile_patience = Duration::from_millis(500);
        limits.warm_sets = 4;
        limits.warm_age = Duration::MAX;
        limits.warm_calls = u32::MAX;
    });
    let sandbox = std::sync::Arc::new(sandbox);
    let usual = set(&sandbox, READ).await;
    assert!(allowed(&sandbox, &usual, "secret/a").await.unwrap());
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let (sandbox, stop) = (sandbox.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut round, mut busy) = (0, 0);
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    round += 1;
                    let rules = (0..3_000)
                        .map(|at| format!("path \"{client}/{round}/{at}\" {{ capabilities = [\"read\"] }}\n"));
                    let wide = sandbox.compile_acl(&[policy("wide", &rules.collect::<String>())], &nobody()).await;
                    busy += usize::from(wide == Err(AclError::Sandbox(SandboxError::Busy)));
                }
                (round, busy)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for round in 0..40 {
        assert!(allowed(&sandbox, &usual, "secret/a").await.unwrap());
        // Another usual set that nobody has compiled before: it waits for none of theirs.
        let fresh = sandbox.compile_acl(&[policy(&format!("fresh{}", round % 2), READ)], &nobody()).await.unwrap().id;
        assert!(allowed(&sandbox, &fresh, "secret/a").await.unwrap());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut rounds = 0;
    for client in clients {
        rounds += client.await.unwrap().0;
    }
    assert!(rounds > 8, "the load was one");
    assert_eq!(counts.of("leasehold_acl_sets_compiled_total{usual}"), 3, "each usual set once");
    assert!(counts.of("leasehold_acl_sets_compiled_total{wide}") > 8);
}

async fn asked_with_value(sandbox: &Sandbox, set: &PolicySetId) -> Result<bool, SandboxError> {
    let data = json!({ "a": "x" }).as_object().cloned().unwrap();
    sandbox.decide(set, &read("valued/a", &data)).await.map(|verdict| verdict.allowed)
}

/// Whether the answer came on this thread. The runtime has one more, which is kept busy until that is known.
async fn at_once<T>(answer: impl Future<Output = Result<T, SandboxError>>) -> bool {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let busy = tokio::task::spawn_blocking(move || released.recv());
    let mut answer = std::pin::pin!(answer);
    let first = std::future::poll_fn(|context| std::task::Poll::Ready(answer.as_mut().poll(context))).await;
    release.send(()).unwrap();
    busy.await.unwrap().unwrap();
    match first {
        std::task::Poll::Ready(answer) => answer.map(|_| true).unwrap(),
        std::task::Poll::Pending => answer.await.map(|_| false).unwrap(),
    }
}

#[test]
fn only_what_takes_no_time_is_answered_on_the_callers_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(light_and_heavy_questions());
}

async fn light_and_heavy_questions() {
    let (sandbox, _) = sandbox_with(shipped("acl"), |limits| {
        limits.shadow_one_in = 0;
        // What is asked here is where an answer comes from, also on a machine that is busy with other things.
        limits.compile_acl.wall = Duration::from_secs(300);
        limits.decide.wall = Duration::from_secs(300);
        limits.compile_patience = Duration::from_secs(300);
    });
    let light = set(&sandbox, READ).await;
    assert!(at_once(sandbox.capabilities(&light, &["secret/a"; 64])).await);
    assert!(at_once(sandbox.decide(&light, &read("secret/a", &Object::new()))).await);

    // Every choice of `a` and `+` for fifteen segments, none of which is the path that is asked for in the end.
    let patterns = (0..6_000u32).map(|bits| {
        let segments = (0..15).map(|at| if bits >> at & 1 == 1 { "+/" } else { "a/" });
        format!("path \"{}z\" {{ capabilities = [\"read\"] }}\n", segments.collect::<String>())
    });
    let text: String = patterns.collect();
    let path = format!("{}x", "a/".repeat(15));
    for question in ["capabilities", "decide"] {
        let heavy = sandbox.compile_acl(&[policy(question, &text)], &nobody()).await.unwrap().id;
        let none = Object::new();
        let ask = read(&path, &none);
        // Also the first one, of which nobody knows yet how long it takes: it held a worker of the runtime for up to a second.
        if question == "decide" {
            assert!(!at_once(sandbox.decide(&heavy, &ask)).await);
        } else {
            assert!(!at_once(sandbox.capabilities(&heavy, &[path.as_str(); 64])).await);
        }
        assert!(!at_once(sandbox.decide(&heavy, &ask)).await);
        assert!(!at_once(sandbox.capabilities(&heavy, &[path.as_str()])).await);
    }
    assert_eq!(sandbox.capabilities(&light, &["secret/a"; 64]).await.unwrap(), [Capabilities::READ; 64]);
}

#[tokio::test]
async fn a_rule_that_expires_grants_nothing_afterwards() {
    let (sandbox, clock) = sandbox();
    let at = leasehold_model::Timestamp::from_secs(NOW + 60).rfc3339();
    let text = format!("path \"a\" {{\n  capabilities = [\"read\"]\n  expiration = \"{at}\"\n}}\n");
    let set = set(&sandbox, &text).await;
    assert!(allowed(&sandbox, &set, "a").await.unwrap());

    clock.advance(Duration::from_secs(61));

    assert!(!allowed(&sandbox, &set, "a").await.unwrap());
}

#[tokio::test]
async fn values_matter_where_a_rule_names_their_key() {
    let (sandbox, _) = sandbox();
    let text = "path \"a\" {\n  capabilities = [\"update\"]\n  allowed_parameters = { \"size\" = [\"small\"], \"*\" = [] }\n}\n";
    let set = set(&sandbox, text).await;
    for (data, expected) in [
        (json!({ "size": "small" }), true),
        (json!({ "size": "large" }), false),
        (json!({ "SIZE": "large" }), false),
        (json!({ "other": "anything" }), true),
    ] {
        let data = data.as_object().unwrap().clone();
        let ask = AclRequest {
            path: "a",
            operation: Operation::Update,
            needs_sudo: false,
            wrap_ttl: None,
            data: &data,
            requester: None,
            approvals: &[],
        };
        let verdict = sandbox.decide(&set, &ask).await.unwrap();
        assert_eq!(verdict.allowed, expected, "{data:?}: {:?}", verdict.reason);
        assert!(!format!("{verdict:?}").contains("large"), "a verdict shows no value: {verdict:?}");
    }
}

#[tokio::test]
async fn a_lint_gives_warnings_of_a_text_that_would_be_taken() {
    let (sandbox, _) = sandbox();
    let found = sandbox.lint(&policy("p", "path \"a\" {\n  capabilities = []\n}\n")).await.unwrap().diagnostics;
    assert!(found.iter().all(|one| one.severity != Severity::Error), "{found:?}");
    let found = sandbox.lint(&policy("p", "path \"a\" {")).await.unwrap().diagnostics;
    assert!(found.iter().any(|one| one.severity == Severity::Error), "{found:?}");
    let text = r#"path "a/{{identity.groups.ids.7.name}}" {
  capabilities = ["read"]
  control_group { factor "f" { controlled_capabilities = ["read"] identity { group_names = ["g"] approvals = 1 } } }
}"#;
    let group = |key, approves| NamedGroup { key, approves };
    assert_eq!(
        sandbox.lint(&policy("p", text)).await.unwrap().groups,
        [group(GroupKey::Name("g".to_owned()), true), group(GroupKey::Id("7".to_owned()), false)]
    );
}

#[tokio::test]
async fn an_instance_that_trapped_is_replaced_and_its_request_refused() {
    let (sandbox, _) = sandbox_with(acl_probe("flaky"), |limits| limits.warm = 1);
    let set = set(&sandbox, READ).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(allowed(&sandbox, &set, "x").await);
    }
    assert!(matches!(answers[2], Err(SandboxError::Trap(_))), "{answers:?}");
    assert!(matches!(answers[5], Err(SandboxError::Trap(_))), "{answers:?}");
    for served in [0, 1, 3, 4] {
        assert_eq!(answers[served], Ok(true), "{answers:?}");
    }
}

#[tokio::test]
async fn an_endless_decision_runs_out_of_fuel_and_is_no_allow() {
    let (sandbox, _) = sandbox_with(acl_probe("endless"), |limits| limits.decide.fuel = 1_000_000);
    let set = set(&sandbox, READ).await;
    for _ in 0..3 {
        assert_eq!(allowed(&sandbox, &set, "x").await, Err(SandboxError::Fuel));
    }
}

#[tokio::test]
async fn a_verdict_that_contradicts_itself_is_no_allow() {
    let (sandbox, _) = sandbox_with(acl_probe("contradicts"), |_| {});
    let set = set(&sandbox, READ).await;
    assert!(matches!(allowed(&sandbox, &set, "x").await, Err(SandboxError::Answer(_))));
}

#[tokio::test]
async fn an_instance_that_drifts_is_found_out_and_dropped() {
    let (sandbox, _, counts) = counted_sandbox(acl_probe("drifts"), |limits| {
        limits.warm = 1;
        limits.shadow_one_in = 4;
    });
    let set = set(&sandbox, READ).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(allowed(&sandbox, &set, "x").await.unwrap());
    }
    // The fourth is compared with a fresh instance, which denies. It is given all the same.
    assert_eq!(answers, [false, true, true, true]);

    counts.reach(DIFFERENCES, 1).await;

    assert_eq!(counts.of(CHECKS), 1);
    // The difference is counted before the instance goes.
    let mut next = true;
    for _ in 0..100 {
        next = allowed(&sandbox, &set, "x").await.unwrap();
        if !next {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!next, "the instance that drifted still answers");
}

#[tokio::test]
async fn an_instance_that_decides_as_a_fresh_one_stays() {
    let (sandbox, _, counts) = counted_sandbox(shipped("acl"), |limits| limits.shadow_one_in = 1);
    let set = set(&sandbox, READ).await;
    for round in 1..=10 {
        assert!(allowed(&sandbox, &set, "secret/a").await.unwrap());
        counts.reach(CHECKS, round * 3 - 2).await;
        assert!(!sandbox.grants_below(&set, "other/").await.unwrap());
        counts.reach(CHECKS, round * 3 - 1).await;
        assert_eq!(sandbox.capabilities(&set, &["secret/a"; 100]).await.unwrap().len(), 100);
        counts.reach(CHECKS, round * 3).await;
    }
    assert_eq!(counts.of(DIFFERENCES), 0);
}

#[tokio::test]
async fn an_answer_is_compared_for_the_moment_it_was_given_for() {
    let (sandbox, clock, counts) = counted_sandbox(shipped("acl"), |limits| limits.shadow_one_in = 1);
    for round in 1..=20_u64 {
        let expires = leasehold_model::Timestamp::from_secs(NOW + i64::try_from(round * 10).unwrap()).rfc3339();
        // Long, so that the clock is ahead before a fresh instance has read it.
        let rules: String = (0..200).map(|rule| format!("path \"{rule}\" {{ capabilities = [\"read\"] }}\n")).collect();
        let text = format!("path \"a\" {{\n  capabilities = [\"read\"]\n  expiration = \"{expires}\"\n}}\n{rules}");
        let set = set(&sandbox, &text).await;
        assert!(allowed(&sandbox, &set, "a").await.unwrap());
        clock.advance(Duration::from_secs(10));
        counts.reach(CHECKS, round).await;
    }
    assert_eq!(counts.of(DIFFERENCES), 0);
}

#[test]
fn nobody_waits_for_a_comparison() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (sandbox, _, counts) = counted_sandbox(shipped("acl"), |limits| limits.shadow_one_in = 2);
        let set = set(&sandbox, READ).await;
        // The only thread that may block is taken: a comparison cannot begin.
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || held.recv());
        for _ in 0..10 {
            let answer = tokio::time::timeout(Duration::from_secs(10), allowed(&sandbox, &set, "secret/a")).await;
            assert_eq!(answer, Ok(Ok(true)));
        }
        assert_eq!(counts.of(CHECKS), 0);

        drop(release);
        assert!(busy.await.unwrap().is_err());
        // One was waiting, not five.
        counts.reach(CHECKS, 1).await;
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert_eq!((counts.of(CHECKS), counts.of(DIFFERENCES)), (1, 0));
    });
}

#[tokio::test]
async fn an_instance_goes_after_its_calls_and_after_its_time() {
    // The probe answers `true` from its second question on: a denial shows a new instance.
    let (sandbox, clock) = sandbox_with(acl_probe("drifts"), |limits| {
        limits.warm = 1;
        limits.shadow_one_in = 0;
        // Compiling counts as a call, too.
        limits.warm_calls = 4;
    });
    let set = set(&sandbox, READ).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(allowed(&sandbox, &set, "x").await.unwrap());
    }
    assert_eq!(answers, [false, true, true, false, true, true]);

    assert!(!allowed(&sandbox, &set, "x").await.unwrap());
    clock.advance(Duration::from_secs(61));
    // One more answer comes from the old instance, which is then not kept.
    allowed(&sandbox, &set, "x").await.unwrap();
    assert!(!allowed(&sandbox, &set, "x").await.unwrap());
}

#[tokio::test]
async fn a_request_beyond_its_bound_is_refused() {
    let (sandbox, _) = sandbox();
    let set = set(&sandbox, READ).await;
    let path = "x".repeat(2 << 20);
    assert_eq!(allowed(&sandbox, &set, &path).await, Err(SandboxError::TooLong(1 << 20)));
}

#[tokio::test]
async fn long_values_are_judged_where_a_rule_names_them_and_only_there() {
    let (sandbox, _) = sandbox();
    let text = "path \"ruled\" {\n  capabilities = [\"update\"]\n  allowed_parameters = { \"policy\" = [\"path*\"], \"*\" = [] }\n}\n\
                path \"other\" { capabilities = [\"update\"] }\n";
    let set = set(&sandbox, text).await;
    let long = |start: &str, length: usize| format!("{start}{}", "\"\u{1}é".repeat(length / 4));
    for (path, data, expected) in [
        ("other", json!({ "policy": long("x", 4 << 20) }), Ok(true)),
        ("other", json!({ "k".repeat(70 << 10): 1 }), Ok(true)),
        ("nowhere", json!({ "policy": long("path", 4 << 20) }), Ok(false)),
        ("ruled", json!({ "policy": long("path", 70 << 10) }), Ok(true)),
        ("ruled", json!({ "policy": long("x", 70 << 10) }), Ok(false)),
        // As it stands in JSON: a control character is six bytes there.
        ("ruled", json!({ "policy": long("path", 400 << 10) }), Ok(true)),
        ("ruled", json!({ "policy": vec!["x"; 200_000] }), Ok(false)),
        ("ruled", json!({ "policy": long("path", 2 << 20) }), Err(SandboxError::TooLong(1 << 20))),
    ] {
        let data = data.as_object().unwrap().clone();
        let ask = AclRequest {
            path,
            operation: Operation::Update,
            needs_sudo: false,
            wrap_ttl: None,
            data: &data,
            requester: None,
            approvals: &[],
        };
        let answer = sandbox.decide(&set, &ask).await.map(|verdict| verdict.allowed);
        assert_eq!(answer, expected, "{path}, {} bytes", data.values().map(|v| v.to_string().len()).sum::<usize>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_all_get_the_right_answer() {
    let (sandbox, _) = sandbox_with(shipped("acl"), |limits| {
        limits.acl_at_once = 64;
        limits.shadow_one_in = 10;
    });
    let sandbox = std::sync::Arc::new(sandbox);
    let set = set(&sandbox, READ).await;
    let tasks: Vec<_> = (0..32)
        .map(|number| {
            let (sandbox, set) = (sandbox.clone(), set.clone());
            tokio::spawn(async move {
                for round in 0..50 {
                    let good = (number + round) % 2 == 0;
                    let path = if good { "secret/x" } else { "other/x" };
                    assert_eq!(allowed(&sandbox, &set, path).await, Ok(good));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
