//! Any text is refused or taken, and linting agrees with compiling.
#![no_main]

use leasehold_acl::{PolicySet, Severity, Source, lint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let source = Source { name: "p".to_owned(), text: text.to_owned(), ..Source::default() };
    let refused = lint(&source).iter().any(|one| one.severity == Severity::Error);
    assert_eq!(PolicySet::compile(&[source], &[], 0).is_err(), refused);
});
