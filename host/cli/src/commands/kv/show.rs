//! Headlines and tables of versions, as Vault prints them.
//!
//! Must not know: requests.

use serde_json::{Map, Value};

use crate::environment::Environment;
use crate::failure::Failure;
use crate::print::{self, Format};

/// A headline that is as wide as what stands below it, and has two signs on each side at least.
pub(super) fn headline(text: &str, width: usize) -> String {
    let signs = match width.saturating_sub(text.len() + 2) {
        0 => 4,
        signs => signs,
    };
    let side = "=".repeat(signs.div_ceil(2));
    format!("{side} {text} {side}")
}

/// A path below its headline.
pub(super) fn path(env: &mut Environment, title: &str, path: &str) -> Result<(), Failure> {
    env.say(&headline(title, path.len()))?;
    Ok(env.say(&format!("{path}\n"))?)
}

/// A table of keys and values below its headline.
pub(super) fn object(env: &mut Environment, title: &str, shown: &Map<String, Value>) -> Result<(), Failure> {
    let widest = shown.keys().map(String::len).max().unwrap_or_default();
    env.say(&headline(title, widest + 4 + "value".len()))?;
    print::document(env, Format::Table, &Value::Object(shown.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headlines_are_as_wide_as_in_vault() {
        for (text, width, line) in [
            ("Secret Path", 15, "= Secret Path ="),
            ("Secret Path", 16, "== Secret Path =="),
            ("Secret Path", 13, "== Secret Path =="),
            ("Secret Path", 3, "== Secret Path =="),
            ("Metadata", 24, "======= Metadata ======="),
            ("Data", 14, "==== Data ===="),
            ("Data", 10, "== Data =="),
        ] {
            assert_eq!(headline(text, width), line, "{text} {width}");
        }
    }
}
