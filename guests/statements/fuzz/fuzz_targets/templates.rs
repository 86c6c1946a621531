//! Any text as a template: nothing panics, the dialect that a check names renders, and bare tags render as in Vault.
#![no_main]

use leasehold_statements::{Dialect, Purpose, check, engine, outline, plain, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|template: &str| {
    let values: Vec<(String, String)> = Purpose::Creation
        .variables()
        .iter()
        .map(|name| ((*name).to_owned(), format!("#{name}#")))
        .collect();
    let statements = [template.to_owned()];
    for purpose in [Purpose::Creation, Purpose::Revocation] {
        let report = check(&statements, purpose, Dialect::Handlebars);
        if template.len() <= leasehold_statements::TEXT_MAX {
            assert!(render(&statements, report.dialect, &values).is_ok());
        }
    }
    let known = |word: &str| values.iter().any(|(key, _)| key == word);
    if let Ok(outline) = outline::outline(template, &known)
        && outline.unknown.is_empty()
    {
        let rendered = engine::render(template, &values);
        if !outline.has_more_than_bare_tags && outline.backslash.is_none() {
            let replaced = plain::render(template, &values, usize::MAX);
            assert_eq!(rendered.ok(), replaced);
        }
    }
});
