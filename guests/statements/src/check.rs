//! What happens when a role is written: the dialect is settled, and everything worth saying is said.

use crate::outline::{Outline, outline};
use crate::{
    DIAGNOSTICS_MAX, Diagnostic, Dialect, OUTPUT_MAX, Purpose, Report, Severity, TEXT_MAX, engine, lint, plain,
    spelling,
};

/// Compiles and dry-runs the statements of one role for one purpose. Never refuses.
#[must_use]
pub fn check(statements: &[String], purpose: Purpose, wished: Dialect) -> Report {
    let length = statements.iter().fold(0_usize, |sum, text| sum.saturating_add(text.len()));
    if length > TEXT_MAX {
        let why = format!("the statements have {length} bytes; more than {TEXT_MAX} are not rendered");
        let text = statements.first().map_or("", String::as_str);
        let diagnostics = vec![Diagnostic::at(Severity::Warning, "too-large", why, 0, text, 0)];
        return Report { dialect: Dialect::Plain, diagnostics };
    }
    let mut diagnostics = Vec::new();
    if wished == Dialect::Handlebars {
        diagnostics = against_handlebars(statements, purpose);
    }
    let dialect = if wished == Dialect::Handlebars && diagnostics.is_empty() { wished } else { Dialect::Plain };
    if dialect == Dialect::Plain {
        diagnostics.extend(lint::left_in_place(statements, purpose));
    }
    diagnostics.extend(lint::habits(statements, purpose));
    diagnostics.truncate(DIAGNOSTICS_MAX);
    Report { dialect, diagnostics }
}

/// What keeps these statements in the plain dialect; empty when they are handlebars.
fn against_handlebars(statements: &[String], purpose: Purpose) -> Vec<Diagnostic> {
    let known = |word: &str| purpose.variables().contains(&word);
    let mut found = Vec::new();
    let mut outlines: Vec<Outline> = Vec::with_capacity(statements.len());
    for (index, text) in statements.iter().enumerate() {
        if found.len() >= DIAGNOSTICS_MAX {
            return found;
        }
        match outline(text, &known) {
            Ok(outline) => {
                unknown(index, text, &outline, purpose, &mut found);
                outlines.push(outline);
            }
            Err(fault) => found.push(kept_plain(index, text, fault.offset, &fault.why)),
        }
    }
    if !found.is_empty() {
        return found;
    }
    // The author wrote handlebars as soon as one statement has more than bare tags; then a backslash is handlebars' too.
    if outlines.iter().all(|outline| !outline.has_more_than_bare_tags) {
        for (index, (text, outline)) in statements.iter().zip(&outlines).enumerate() {
            if let Some(offset) = outline.backslash {
                found.push(kept_plain(index, text, offset, "a backslash before `{{` would keep the tag as text"));
            }
        }
    }
    if found.is_empty() {
        dry_run(statements, &outlines, purpose, &mut found);
    }
    found
}

fn unknown(index: usize, text: &str, outline: &Outline, purpose: Purpose, found: &mut Vec<Diagnostic>) {
    let Some(first) = outline.unknown.first() else { return };
    found.push(kept_plain(index, text, first.offset, &format!("there is no variable `{}`", first.name)));
    // One that fills its tag is reported as what stays in place; the others would be part of a longer tag there.
    for unknown in outline.unknown.iter().filter(|unknown| !unknown.alone) {
        let message = format!("unknown variable `{}`", unknown.name);
        let diagnostic = Diagnostic::at(Severity::Warning, "unknown-variable", message, index, text, unknown.offset);
        found.push(match spelling::nearest(&unknown.name, purpose.variables()) {
            Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
            None => diagnostic.help(format!("at {} there are {}", purpose.word(), purpose.variables().join(", "))),
        });
    }
}

/// Renders with values of the form that the host hands in; of bare tags the result must be Vault's.
fn dry_run(statements: &[String], outlines: &[Outline], purpose: Purpose, found: &mut Vec<Diagnostic>) {
    let values: Vec<(String, String)> =
        purpose.variables().iter().map(|&name| (name.to_owned(), sample(name).to_owned())).collect();
    for (index, (text, outline)) in statements.iter().zip(outlines).enumerate() {
        match engine::render(text, &values) {
            Err(error) => found.push(kept_plain(index, text, error.offset, &error.why)),
            Ok(rendered) => {
                let differs = !outline.has_more_than_bare_tags
                    && outline.backslash.is_none()
                    && plain::render(text, &values, OUTPUT_MAX).as_ref() != Some(&rendered);
                if differs {
                    found.push(kept_plain(index, text, 0, "it would render differently"));
                }
            }
        }
    }
}

fn sample(variable: &str) -> &'static str {
    match variable {
        "expiration" => "2030-01-31 23:59:59+0000",
        "password" => "A1b2C3d4E5f6G7h8I9j0K1l2",
        _ => "v-token-readonly-A1b2C3d4E5f6G7h8I9j0-1700000000",
    }
}

fn kept_plain(index: usize, text: &str, offset: usize, why: &str) -> Diagnostic {
    let message = format!("kept as plain: {why}");
    Diagnostic::at(Severity::Warning, "kept-plain", message, index, text, offset)
        .help("set template_dialect=plain when that is what you want")
}
