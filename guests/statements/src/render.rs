//! Rendering at every lease: all statements with the same values, or the one diagnostic that says why not.

use crate::{Diagnostic, Dialect, OUTPUT_MAX, Severity, TEXT_MAX, engine, outline, plain, spelling};

/// Renders every statement with the same values.
///
/// # Errors
/// The first statement that does not render, with position; in the plain dialect only what is too large.
pub fn render(statements: &[String], dialect: Dialect, values: &[(String, String)]) -> Result<Vec<String>, Diagnostic> {
    let mut text_left = TEXT_MAX;
    let mut output_left = OUTPUT_MAX;
    let mut rendered = Vec::with_capacity(statements.len());
    for (index, text) in statements.iter().enumerate() {
        text_left = text_left
            .checked_sub(text.len())
            .ok_or_else(|| too_large(index, text, format!("the statements have more than {TEXT_MAX} bytes")))?;
        let statement = match dialect {
            Dialect::Plain => replaced(index, text, values, output_left)?,
            Dialect::Handlebars => templated(index, text, values, output_left)?,
        };
        output_left = output_left.saturating_sub(statement.len());
        rendered.push(statement);
    }
    Ok(rendered)
}

fn too_large(index: usize, text: &str, why: String) -> Diagnostic {
    Diagnostic::at(Severity::Warning, "too-large", why, index, text, 0)
}

fn replaced(index: usize, text: &str, values: &[(String, String)], limit: usize) -> Result<String, Diagnostic> {
    plain::render(text, values, limit)
        .ok_or_else(|| too_large(index, text, format!("more than {OUTPUT_MAX} bytes would be rendered")))
}

/// Renders as handlebars. A statement with nothing but bare tags does not need the engine: replacing renders the same
/// bytes (a property test compares the two) in a fifth of the time.
fn templated(index: usize, text: &str, values: &[(String, String)], limit: usize) -> Result<String, Diagnostic> {
    let known = |word: &str| values.iter().any(|(key, _)| key == word);
    let outline = outline::outline(text, &known)
        .map_err(|fault| Diagnostic::at(Severity::Warning, "refused", fault.why, index, text, fault.offset))?;
    if let Some(unknown) = outline.unknown.first() {
        let why = format!("unknown variable `{}`", unknown.name);
        let diagnostic = Diagnostic::at(Severity::Warning, "unknown-variable", why, index, text, unknown.offset);
        let keys: Vec<&str> = values.iter().map(|(key, _)| key.as_str()).collect();
        return Err(match spelling::nearest(&unknown.name, &keys) {
            Some(meant) => diagnostic.help(format!("did you mean `{{{{{meant}}}}}`?")),
            None => diagnostic,
        });
    }
    if !outline.has_more_than_bare_tags && outline.backslash.is_none() {
        return replaced(index, text, values, limit);
    }
    // Bounded before it is made: a tag writes one value or text, and each of two helpers around it at most doubles it.
    let longest = values.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
    let most = longest.saturating_mul(outline::TAGS_MAX).saturating_add(text.len()).saturating_mul(4);
    if most > limit {
        return Err(too_large(index, text, format!("more than {OUTPUT_MAX} bytes could be rendered")));
    }
    let rendered = engine::render(text, values)
        .map_err(|error| Diagnostic::at(Severity::Warning, "refused", error.why, index, text, error.offset))?;
    if rendered.len() > limit {
        return Err(too_large(index, text, format!("more than {OUTPUT_MAX} bytes would be rendered")));
    }
    Ok(rendered)
}
