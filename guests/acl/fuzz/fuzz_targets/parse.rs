//! Any text is refused or taken, and linting agrees with compiling.
#![no_main]

use leasehold_acl::{PolicySet, Severity, Source, lint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let source = Source { name: "p".to_owned(), text: text.to_owned(), ..Source::default() };
    // What is set twice is refused when it is written, and read all the same.
    let errors = |one: &leasehold_acl::Diagnostic| one.severity == Severity::Error && one.code != "repeated-attribute";
    let refused = lint(&source).iter().any(errors);
    assert_eq!(PolicySet::compile(&[source], &[], 0).is_err(), refused);
});
