//! The shipped components, compiled here and compiled ahead.

use std::sync::Arc;

use leasehold_core::request::Object;
use leasehold_core::seams::sandbox::{AclEvaluator, Dialect, Purpose, RenderError, SandboxError, TemplateRenderer};
use leasehold_core::testing::ManualClock;
use leasehold_sandbox::{Artifact, Builtins, Config, Sandbox, precompile};
use sha2::{Digest as _, Sha256};

use crate::support::{NOW, counted_sandbox, nobody, policy, read, sandbox, sandbox_with, shipped};

const CALLS: &str = "leasehold_sandbox_calls_total";

fn leaked(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

/// As a build embeds it; `damage` stands for what must not be run.
fn embedded(name: &str, damage: impl FnOnce(&mut Vec<u8>, &mut String)) -> Artifact {
    let component = shipped(name);
    let mut code = precompile(&component).unwrap();
    let mut digest = hex::encode(Sha256::digest(&code));
    damage(&mut code, &mut digest);
    Artifact::embedded(leaked(component), leaked(code), Box::leak(digest.into_boxed_str()))
}

async fn works(builtins: Builtins) {
    let mut config = Config::new(builtins);
    config.limits.acl_at_once = 2;
    let sandbox = Sandbox::new(config, Arc::new(ManualClock::at(NOW))).unwrap();
    let text = "path \"a\" { capabilities = [\"read\"] }";
    let set = sandbox.compile_acl(&[policy("p", text)], &nobody()).await.unwrap().id;
    assert!(sandbox.decide(&set, &read("a", &Object::new())).await.unwrap().allowed);
    assert!(!sandbox.decide(&set, &read("b", &Object::new())).await.unwrap().allowed);
    let rendered = sandbox.render(&["DROP ROLE \"{{name}}\"".to_owned()], Dialect::Handlebars, &[("name", "n")]).await;
    assert_eq!(rendered.unwrap(), ["DROP ROLE \"n\""]);
}

#[tokio::test]
async fn what_was_compiled_ahead_runs_here() {
    let keep = |_: &mut Vec<u8>, _: &mut String| {};
    works(Builtins { acl: embedded("acl", keep), statements: embedded("statements", keep) }).await;
}

#[tokio::test]
async fn machine_code_with_another_digest_is_not_run() {
    // Were it run, it would crash this process.
    let nonsense = |code: &mut Vec<u8>, _: &mut String| code.iter_mut().skip(4096).for_each(|byte| *byte = 0xcc);
    works(Builtins {
        acl: embedded("acl", nonsense),
        statements: embedded("statements", |_, digest| *digest = "0".repeat(64)),
    })
    .await;
}

#[tokio::test]
async fn machine_code_that_is_not_for_this_engine_is_compiled_instead() {
    let not_code = |code: &mut Vec<u8>, digest: &mut String| {
        *code = b"not machine code at all".to_vec();
        *digest = hex::encode(Sha256::digest(&code));
    };
    works(Builtins { acl: embedded("acl", not_code), statements: embedded("statements", not_code) }).await;
}

#[tokio::test]
async fn a_component_of_another_world_is_no_builtin() {
    let builtins =
        Builtins { acl: Artifact::component(shipped("statements")), statements: Artifact::component(shipped("acl")) };
    let refused = Sandbox::new(Config::new(builtins), Arc::new(ManualClock::at(NOW))).unwrap_err();
    assert!(refused.0.contains("could not load the component `acl`"), "{refused}");
}

#[tokio::test]
async fn digests_are_those_of_the_components() {
    let (sandbox, _) = sandbox();
    for (name, digest) in [("acl", AclEvaluator::digest(&sandbox)), ("statements", TemplateRenderer::digest(&sandbox))]
    {
        assert_eq!(digest.0, hex::encode(Sha256::digest(shipped(name))));
    }
}

#[tokio::test]
async fn a_template_that_cannot_be_rendered_says_where() {
    let (sandbox, _) = sandbox();
    let statements = ["SELECT 1".to_owned(), "SELECT '{{nmae}}'".to_owned()];
    let Err(RenderError::Refused(why)) = sandbox.render(&statements, Dialect::Handlebars, &[("name", "n")]).await
    else {
        panic!("rendered")
    };
    assert_eq!(why.at, "1");
    assert!(why.line >= 1 && why.column >= 1, "{why:?}");
}

#[tokio::test]
async fn a_check_reports_and_never_refuses() {
    let (sandbox, _) = sandbox();
    let statements = ["CREATE ROLE \"{{nmae}}\"".to_owned()];
    let report = sandbox.check_template(&statements, Purpose::Creation, Dialect::Handlebars).await.unwrap();
    assert_eq!(report.dialect, Dialect::Plain);
    assert!(!report.diagnostics.is_empty());
}

#[tokio::test]
async fn a_check_comes_to_its_end_whatever_the_statements_are() {
    let (sandbox, _) = sandbox();
    let most = 1 << 20;
    let filled = |piece: &str| piece.repeat(most / piece.len());
    for (what, statements) in [
        ("open tags", vec![format!("CREATE ROLE \"{{{{name}}}}\"; -- {}", "{{".repeat(4_000))]),
        ("open tags, as many as fit", vec![filled("{{")]),
        ("tags that are opened and begun", vec![filled("{{a")]),
        ("unknown tags", vec![filled("{{a}}")]),
        ("braces", vec![filled("{{}}}")]),
        ("rows", vec![format!("INSERT INTO t VALUES {}", filled("(1,2),").get(..most - 100).unwrap())]),
        ("parentheses", vec![filled("(")]),
        ("dollar quotes", vec![filled("$a$b")]),
        ("names in single quotes", vec![filled("ROLE '{{name}}' ")]),
        ("grants", vec![filled("GRANT a ON b TO \"{{name}}\";")]),
        ("quotes", vec![filled("'")]),
        ("comments", vec![filled("/*")]),
        ("statements", vec!["x".to_owned(); 1_000]),
    ] {
        for wished in [Dialect::Handlebars, Dialect::Plain] {
            let report = sandbox.check_template(&statements, Purpose::Creation, wished).await;
            assert!(report.is_ok(), "{what}: {report:?}");
        }
    }
}

/// Takes more fuel than a render is given on the caller's own thread.
fn long() -> Vec<String> {
    vec!["SELECT '{{name}}'; ".repeat(250); 40]
}

#[tokio::test]
async fn a_render_that_takes_long_comes_to_its_end_all_the_same() {
    let (sandbox, _, counts) = counted_sandbox(shipped("acl"), |_| {});
    let rendered = sandbox.render(&long(), Dialect::Handlebars, &[("name", "n")]).await.unwrap();
    assert_eq!(rendered, vec!["SELECT 'n'; ".repeat(250); 40]);
    assert_eq!(counts.of(CALLS), 1);
}

#[tokio::test]
async fn a_render_that_runs_out_of_all_its_fuel_is_stopped() {
    let (sandbox, _) = sandbox_with(shipped("acl"), |limits| limits.statements.fuel = 10_000_000);
    let refused = sandbox.render(&long(), Dialect::Handlebars, &[("name", "n")]).await;
    assert!(matches!(refused, Err(RenderError::Sandbox(SandboxError::Fuel))), "{refused:?}");
}
