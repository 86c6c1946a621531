//! Values as Go's `%v` and `%q` print them, because that is what Vault's tables show.

use serde_json::Value;

pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(object) => {
            let mut pairs: Vec<_> = object.iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(b.0));
            let shown: Vec<_> = pairs.into_iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", shown.join(" "))
        }
        other => other.to_string(),
    }
}

/// `["apps" "default"]`.
pub(crate) fn quoted_list(list: Option<&[String]>) -> String {
    let quoted: Vec<_> = list.unwrap_or_default().iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nested_values_print_as_in_go() {
        let value = json!({ "b": [1, true, null, 1.5, "z"], "a": {} });

        assert_eq!(plain(&value), "map[a:map[] b:[1 true <nil> 1.5 z]]");
    }
}
