//! Random cases for a comparison with a running server of Vault.
//!
//! `LEASEHOLD_ACL_CASES=cases.jsonl cargo test --test differential -- --ignored` writes one case a line: policies, a
//! path, and our answer as `sys/capabilities` would word it. Whoever has a server asks it the same and compares.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;

use leasehold_acl::PolicySet;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use support::{path, pieces, refusal, rules, source, spoken, written};

#[test]
#[ignore = "writes a file for a comparison by hand"]
fn write_cases() {
    let file = std::env::var("LEASEHOLD_ACL_CASES").unwrap();
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    let mut runner = TestRunner::default();
    let strategy = (prop::collection::vec(rules(), 1..4), prop::collection::vec(path(), 8));
    for _ in 0..1_000 {
        let (policies, paths) = strategy.new_tree(&mut runner).unwrap().current();
        let texts: Vec<String> = policies.iter().map(|rules| written(rules)).collect();
        let sources: Vec<_> = texts.iter().enumerate().map(|(n, text)| source(&format!("p{n}"), text)).collect();
        let set = PolicySet::compile(&sources, &[], 0).unwrap();
        let paths: Vec<String> = paths.into_iter().filter(|path| !path.is_empty() && !path.starts_with('/')).collect();
        let answers: Vec<Vec<String>> = paths.iter().map(|path| spoken(set.capabilities(path))).collect();
        writeln!(out, "{}", json!({ "policies": texts, "paths": paths, "expected": answers })).unwrap();
    }
}

/// The same for texts that are cut up: `LEASEHOLD_ACL_TEXTS` gets each text with the error a client would read, or null.
#[test]
#[ignore = "writes a file for a comparison by hand"]
fn write_texts() {
    let file = std::env::var("LEASEHOLD_ACL_TEXTS").unwrap();
    let mut out = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    let mut runner = TestRunner::default();
    for _ in 0..3_000 {
        let text = pieces().new_tree(&mut runner).unwrap().current();
        writeln!(out, "{}", json!({ "text": text, "expected": refusal(&text) })).unwrap();
    }
}
