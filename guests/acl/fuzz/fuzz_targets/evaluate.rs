//! Policies, a path and a value, cut out of one text by line feeds of another kind (`\x0c`): no decision panics, an
//! allowed request has its capability, and a denying rule allows nothing.
#![no_main]

use leasehold_acl::{Capabilities, Operation, Parameter, PolicySet, Request, Source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let mut parts = input.splitn(4, '\x0c');
    let (Some(first), Some(second), Some(path), Some(value)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    let source = |name: &str, text: &str| Source {
        name: name.to_owned(),
        text: text.to_owned(),
        allow_slashes: true,
        allow_wildcards: true,
    };
    let identity = [("identity.entity.name".to_owned(), value.to_owned())];
    let Ok(set) = PolicySet::compile(&[source("a", first), source("b", second)], &identity, 0) else { return };
    for operation in [Operation::Create, Operation::Read, Operation::List, Operation::Delete] {
        let parameters = vec![
            Parameter { name: "a".to_owned(), value: Some(value.to_owned()) },
            Parameter { name: "limit".to_owned(), value: Some(value.to_owned()) },
        ];
        let request = Request { path: path.to_owned(), operation, needs_sudo: false, wrap_ttl: Some(60), parameters, requester: None, approvals: Vec::new() };
        let verdict = set.evaluate(&request);
        if verdict.allowed {
            assert!(verdict.capabilities.contains(operation.capability()));
            assert!(!verdict.capabilities.contains(Capabilities::DENY));
            assert!(!verdict.rules.is_empty());
        }
    }
    let _ = set.capabilities(path);
    let _ = set.grants_below(path);
});
