//! What the load gate refuses, and what it says.

use std::time::{Duration, Instant};

use leasehold_core::seams::sandbox::ModuleHost as _;
use leasehold_sandbox::{Compiler, inspect_offline};
use wasm_encoder::{
    BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, Instruction, Module, TypeSection,
    ValType,
};

use crate::support::{component_probe, encode, module_sandbox, policy_probe, policy_wit, shipped};

fn refused(bytes: &[u8]) -> String {
    inspect_offline(bytes).unwrap_err().0
}

#[test]
fn a_module_that_passes_is_described() {
    let facts = inspect_offline(&policy_probe("allow")).unwrap();
    assert_eq!(facts.world, "leasehold:policy@0.1.0");
    assert_eq!((facts.name.as_str(), facts.version.as_str()), ("probe", "1.0.0"));
    assert_eq!(facts.exports, ["leasehold:policy/policy@0.1.0"]);
    // An instance of types alone gives a module nothing.
    assert!(facts.imports.iter().all(|name| name == "leasehold:policy/types@0.1.0"), "{:?}", facts.imports);
    assert_eq!(facts.digest.len(), 64);
    assert!(facts.functions >= 4);
}

#[test]
fn every_import_is_refused_by_name() {
    for (probe, named, advice) in [
        ("extra-import", "function `host:log/log@1.0.0#write`", "remove the import"),
        ("wasi-import", "function `wasi:clocks/monotonic-clock@0.2.0#now`", "wasm32-unknown-unknown"),
        ("resource-import", "resource `leasehold:policy/types@0.1.0#file`", "remove the import"),
    ] {
        let why = refused(&component_probe(probe));
        assert!(why.contains(named) && why.contains(advice), "{probe}: {why}");
    }
}

#[test]
fn another_world_is_refused_with_the_name_of_the_right_one() {
    for (probe, expected) in [
        ("wrong-world", "exports `run`, but a policy module exports `leasehold:policy/policy@0.1.0`"),
        ("later-version", "built for `leasehold:policy/policy@0.2.0`, this server speaks 0.1"),
        ("empty-policy", "does not answer for the world `policy-module`"),
        ("threads", "does not offer"),
    ] {
        let why = refused(&component_probe(probe));
        assert!(why.contains(expected), "{probe}: {why}");
    }
    let text = std::fs::read_to_string(policy_wit().join("../../guests/probes/component/later-version.wat")).unwrap();
    let why = refused(&wat::parse_str(text.replace("@0.2.0", "@0.1")).unwrap());
    assert!(why.contains("the version in a name is none, like `0.1.0`"), "{why}");
    assert!(refused(&shipped("acl")).contains("one of those that ship with the server"));
}

#[test]
fn what_is_no_component_is_told_apart() {
    for (bytes, expected) in [
        (b"".as_slice(), "but 0 bytes"),
        (b"\0asm".as_slice(), "but 4 bytes"),
        (b"garbage, and quite a lot of it".as_slice(), "a component starts with"),
        (b"\0asm\x01\0\0\0".as_slice(), "this is a core module"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0".as_slice(), "machine code"),
        (b" (component)".as_slice(), "WebAssembly text"),
        (b"\0asm\x0d\0\x01\0\x7f\x02ab".as_slice(), "this is no valid component"),
        (b"\0asm\x0d\0\x01\0garbage".as_slice(), "cut off or damaged"),
    ] {
        let why = refused(bytes);
        assert!(why.contains(expected), "{expected}: {why}");
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused_wherever_it_was_cut() {
    let whole = policy_probe("allow");
    let (mut said_so, mut taken) = (0, 0);
    for length in 0..whole.len() {
        match inspect_offline(&whole[..length]) {
            // Behind the last export only the names of tools follow: without them it is the same module.
            Ok(facts) => taken += usize::from(facts.exports == ["leasehold:policy/policy@0.1.0"]),
            Err(why) => said_so += usize::from(why.0.contains("cut off")),
        }
    }
    assert!(taken <= 3, "{taken}");
    assert!(said_so > whole.len() / 3, "{said_so} of {}", whole.len());
}

#[test]
fn a_file_with_one_wrong_byte_never_panics() {
    let whole = policy_probe("allow");
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        let _ = inspect_offline(&damaged);
    }
}

#[test]
fn more_functions_than_allowed_are_refused() {
    let why = refused(&generated(20_001, |function| {
        function.instruction(&Instruction::End);
    }));
    assert!(why.contains("functions, 20000 are allowed"), "{why}");
}

#[test]
fn a_module_that_is_too_large_is_refused_before_it_is_read() {
    assert!(refused(&vec![0; (4 << 20) + 1]).contains("4194305 bytes long, 4194304 are allowed"));
}

#[test]
fn one_function_that_is_too_long_is_refused() {
    let why = refused(&generated(1, |function| {
        for _ in 0..600_000 {
            function.instruction(&Instruction::I32Const(0)).instruction(&Instruction::Drop);
        }
        function.instruction(&Instruction::End);
    }));
    assert!(why.contains("split it"), "{why}");
}

#[test]
fn too_many_local_variables_are_refused() {
    let mut module = module_around(1);
    let mut code = CodeSection::new();
    let mut function = Function::new([(20_001, ValType::I64)]);
    function.instruction(&Instruction::End);
    code.function(&function);
    module.section(&code);
    assert!(refused(&nested(&module.finish())).contains("more than 20000 local variables"));
}

/// So many levels, each holding the one before twice, under long names.
fn doubling(levels: usize, name: usize, innermost: &str) -> Vec<u8> {
    let (a, b) = ("a".repeat(name), "b".repeat(name));
    let mut text = format!("(component (type $t0 (instance {innermost}))");
    for level in 1..=levels {
        let below = level - 1;
        text.push_str(&format!(
            r#"(type $t{level} (instance (alias outer 1 $t{below} (type $p))
                (export "{a}" (instance (type $p))) (export "{b}" (instance (type $p)))))"#
        ));
    }
    wat::parse_str(format!(r#"{text}(import "x" (instance (type $t{levels}))))"#)).unwrap()
}

#[test]
fn imported_types_that_share_each_other_are_looked_at_once() {
    let begun = Instant::now();
    for innermost in [r#"(export "f" (func))"#, ""] {
        // Within the levels that are allowed: a thousand names of 200 kB, were each made.
        let told = inspect_offline(&doubling(10, 20_000, innermost));
        let why = told.unwrap_err().0;
        let expected = if innermost.is_empty() { "exports nothing" } else { "imports function `x#aaa" };
        assert!(why.contains(expected) && why.len() < 2_000, "{why}");
    }
    let why = refused(&doubling(16, 1_500, r#"(export "f" (func))"#));
    assert!(why.contains("that hold instances or components, 10 are allowed"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn deep_nesting_is_refused_before_the_validator_gives_up() {
    let chain = |levels: usize| {
        let types = (1..levels).map(|level| {
            let below = level - 1;
            format!(
                r#"(type $t{level} (instance (alias outer 1 $t{below} (type $p)) (export "a" (instance (type $p)))))"#
            )
        });
        let types: String = types.collect();
        format!(r#"(component (type $t0 (instance)) {types} (import "x" (instance (type $t{}))))"#, levels - 1)
    };
    let instances = |levels: usize| {
        let each = (1..levels).map(|level| format!(r#"(instance $i{level} (export "a" (instance $i{})))"#, level - 1));
        let each: String = each.collect();
        format!("(component (instance $i0) {each})")
    };
    let components = |levels: usize| {
        let each = (1..levels).map(|level| {
            let below = level - 1;
            format!(
                r#"(component $c{level} (alias outer 1 $c{below} (component $p)) (instance $i (instantiate $p))
                    (export "a" (instance $i)))"#
            )
        });
        let each: String = each.collect();
        format!("(component (component $c0) {each})")
    };
    for text in [chain(500), instances(500), components(500)] {
        let why = refused(&wat::parse_str(text).unwrap());
        assert!(why.contains("that hold instances or components, 10 are allowed"), "{why}");
    }
    let why = refused(&wat::parse_str(chain(5)).unwrap());
    assert!(why.contains("exports nothing"), "{why}");
}

#[test]
fn core_instances_are_counted_through_nested_components() {
    let mut text = "(component (component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..=20 {
        let below = level - 1;
        text.push_str(&format!(
            "(component $c{level} (alias outer 1 $c{below} (component $p)) (instance (instantiate $p)) (instance (instantiate $p)))"
        ));
    }
    let why = refused(&wat::parse_str(format!("{text} (instance (instantiate $c20)))")).unwrap());
    assert!(why.contains("has 1048576 core instances, 32 are allowed"), "{why}");
    let few = wat::parse_str(format!("{text} (instance (instantiate $c5)))")).unwrap();
    assert!(!refused(&few).contains("core instances"), "32 may be");
    let handed = r#"(component (component (import "c" (component $p)) (instance (instantiate $p))))"#;
    assert!(refused(&wat::parse_str(handed).unwrap()).contains("hands components around"));
}

/// Many blocks, with a value that lives through all of them: what takes register allocation longest.
fn compile_bomb() -> Vec<u8> {
    let mut module = module_around(400);
    let mut code = CodeSection::new();
    for _ in 0..400 {
        let mut function = Function::new([(64, ValType::I64)]);
        for round in 0..550u32 {
            function.instruction(&Instruction::Block(BlockType::Empty));
            function.instruction(&Instruction::LocalGet(round % 64)).instruction(&Instruction::I64Eqz);
            function.instruction(&Instruction::BrIf(0));
            function.instruction(&Instruction::LocalGet((round * 7) % 64));
            function.instruction(&Instruction::LocalGet((round * 13) % 64)).instruction(&Instruction::I64Mul);
            function.instruction(&Instruction::LocalSet((round * 3) % 64)).instruction(&Instruction::End);
        }
        function.instruction(&Instruction::End);
        code.function(&function);
    }
    module.section(&code);
    let base = std::fs::read_to_string(policy_wit().join("../../guests/probes/policy/base.wat")).unwrap();
    let allow = std::fs::read_to_string(policy_wit().join("../../guests/probes/policy/allow.wat")).unwrap();
    let bomb = encode(wat::parse_str(format!("(module {base} {allow})")).unwrap(), &policy_wit(), "policy-module");
    // The heavy module is carried along inside; it is compiled, though nothing of it ever runs.
    appended(bomb, &module.finish())
}

#[tokio::test]
async fn a_component_that_takes_the_compiler_too_long_is_refused_in_time() {
    for child in [true, false] {
        let sandbox = module_sandbox(|config| {
            config.limits.module.compile_wall = Duration::from_millis(300);
            if child {
                config.compiler = worker();
            }
        });
        let begun = Instant::now();
        let why = sandbox.load(&compile_bomb()).await.unwrap_err().0;
        assert!(why.contains("took longer than 300ms"), "{why}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_child_that_uses_up_its_processor_time_is_told_so() {
    let sandbox = module_sandbox(|config| {
        config.limits.module.compile_cpu = 1;
        config.compiler = worker();
    });
    let why = sandbox.load(&compile_bomb()).await.unwrap_err().0;
    assert!(why.contains("more than 1 s of processor time"), "{why}");
}

#[tokio::test]
async fn a_child_that_gets_no_memory_is_told_so() {
    let sandbox = module_sandbox(|config| {
        config.limits.module.compile_memory = 48 << 20;
        config.compiler = worker();
    });
    let why = sandbox.load(&compile_bomb()).await.unwrap_err().0;
    assert!(why.contains("48 MiB of memory") || why.contains("could not be compiled"), "{why}");
}

#[tokio::test]
async fn what_a_child_compiled_runs_as_what_this_process_compiled() {
    let here = module_sandbox(|_| {});
    let there = module_sandbox(|config| config.compiler = worker());
    let module = policy_probe("two-ceilings");
    let mut verdicts = Vec::new();
    for sandbox in [here, there] {
        let digest = sandbox.load(&module).await.unwrap();
        let verdict = sandbox.evaluate("binding", &digest, b"", &crate::support::module_request()).await.unwrap();
        verdicts.push((verdict.max_ttl, verdict.fuel));
    }
    assert_eq!(verdicts[0], verdicts[1]);
}

fn worker() -> Compiler {
    Compiler::Child { program: env!("CARGO_BIN_EXE_compile-worker").into(), arguments: Vec::new() }
}

/// A core module with the types and functions of `count` functions without parameters.
fn module_around(count: u32) -> Module {
    let mut module = Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    module.section(&types);
    let mut functions = FunctionSection::new();
    for _ in 0..count {
        functions.function(0);
    }
    module.section(&functions);
    let mut exports = ExportSection::new();
    exports.export("first", ExportKind::Func, 0);
    module.section(&exports);
    module
}

fn generated(count: u32, body: impl Fn(&mut Function)) -> Vec<u8> {
    let mut module = module_around(count);
    let mut code = CodeSection::new();
    for _ in 0..count {
        let mut function = Function::new([]);
        body(&mut function);
        code.function(&function);
    }
    module.section(&code);
    nested(&module.finish())
}

/// A component that holds this module and nothing else.
fn nested(core: &[u8]) -> Vec<u8> {
    appended(b"\0asm\x0d\0\x01\0".to_vec(), core)
}

/// The component with one more core module in it: section 1, its length, the module.
pub(crate) fn appended(mut component: Vec<u8>, core: &[u8]) -> Vec<u8> {
    component.push(1);
    let mut length = core.len();
    while length >= 0x80 {
        component.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    component.push(u8::try_from(length).unwrap());
    component.extend_from_slice(core);
    component
}
