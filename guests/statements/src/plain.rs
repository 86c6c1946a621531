//! Vault's replacement, made deterministic: one pass from left to right, a replaced value is not looked at again.
//!
//! Vault runs one `ReplaceAll` per key in the random order of a Go map; the two differ only when a value, or a value
//! and the text around it, spells another placeholder, where Vault itself differs from run to run.

/// Replaces every `{{key}}` of `values`; anything else stays as it is. `None` when more than `limit` bytes would come out.
#[must_use]
pub fn render(text: &str, values: &[(String, String)], limit: usize) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("{{") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        match replaced(tag, values) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                // One brace only: in `{{{name}}}` the tag begins at the second.
                out.push('{');
                rest = tag.get(1..).unwrap_or("");
            }
        }
        if out.len() > limit {
            return None;
        }
    }
    out.push_str(rest);
    (out.len() <= limit).then_some(out)
}

/// The value for the tag that `text` begins with, and what follows the tag.
fn replaced<'t>(text: &'t str, values: &'t [(String, String)]) -> Option<(&'t str, &'t str)> {
    let inner = text.strip_prefix("{{")?;
    values.iter().find_map(|(key, value)| {
        let after = inner.strip_prefix(key.as_str())?.strip_prefix("}}")?;
        Some((value.as_str(), after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<(String, String)> {
        vec![("name".into(), "VALUE".into()), ("username".into(), "{{name}}".into())]
    }

    #[test]
    fn a_value_that_spells_a_placeholder_is_not_replaced_again() {
        assert_eq!(render("{{username}} {{name}}", &values(), 99).as_deref(), Some("{{name}} VALUE"));
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        assert_eq!(render("{{name}}", &values(), 4), None);
        assert_eq!(render("{{name}}", &values(), 5).as_deref(), Some("VALUE"));
    }
}
