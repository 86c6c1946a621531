//! Parameter values: what a policy lists, what a request brings, and when they meet.

use crate::syntax::{Kind, Node, json};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Bool(bool),
    Null,
    /// Never equal to anything: in Vault a policy's number and a request's have different types.
    Number,
    /// Never equal to anything: in Vault an object inside a policy's object is a list of objects.
    Nested,
    List(Vec<Value>),
    /// In the order of the keys; every key once.
    Map(Vec<(String, Value)>),
}

impl Value {
    pub(crate) fn of(node: &Node<'_>) -> Self {
        match &node.kind {
            Kind::Text(text) => Self::Text(text.clone().into_owned()),
            Kind::Bool(truth) => Self::Bool(*truth),
            Kind::Null => Self::Null,
            Kind::Integer(_) | Kind::Float(_) => Self::Number,
            Kind::List(nodes) => Self::List(nodes.iter().map(Self::of).collect()),
            Kind::Object(items) => Self::map(items, Self::of),
        }
    }

    /// A key that stands twice has its last value.
    fn map(items: &[crate::syntax::Item<'_>], value_of: impl Fn(&Node<'_>) -> Self) -> Self {
        let pair = |item: &crate::syntax::Item<'_>| {
            Some((item.keys.first()?.name.clone().into_owned(), value_of(&item.value)))
        };
        let mut pairs: Vec<(String, Self)> = items.iter().rev().filter_map(pair).collect();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs.dedup_by(|(a, _), (b, _)| a == b);
        Self::Map(pairs)
    }

    /// A policy's value.
    pub(crate) fn listed(node: &Node<'_>) -> Self {
        match &node.kind {
            Kind::List(nodes) => Self::List(nodes.iter().map(Self::listed).collect()),
            Kind::Object(items) => Self::map(items, |value| match &value.kind {
                Kind::Object(_) => Self::Nested,
                _ => Self::listed(value),
            }),
            _ => Self::of(node),
        }
    }

    /// Whether it can equal any value.
    pub(crate) fn can_match(&self) -> bool {
        match self {
            Self::Number | Self::Nested => false,
            Self::List(values) => values.iter().all(Self::can_match),
            Self::Map(pairs) => pairs.iter().all(|(_, value)| value.can_match()),
            Self::Text(_) | Self::Bool(_) | Self::Null => true,
        }
    }

    /// A request's value. None when the text is no JSON.
    pub(crate) fn from_json(text: &str) -> Option<Self> {
        json::parse_value(text).map(|node| Self::of(&node))
    }

    /// Whether this value of a policy covers a request's. Only a string on its own is a glob.
    pub(crate) fn covers(&self, asked: &Self) -> bool {
        match (self, asked) {
            (Self::Text(glob), Self::Text(text)) => glob_covers(glob, text),
            _ => self.equals(asked),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Null, Self::Null) => true,
            (Self::List(a), Self::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|((key, a), (other_key, b))| key == other_key && a.equals(b))
            }
            _ => false,
        }
    }
}

/// `*` at an end stands for anything; alone it is only itself.
fn glob_covers(glob: &str, text: &str) -> bool {
    if glob.len() < 2 {
        return glob == text;
    }
    match (glob.strip_prefix('*'), glob.strip_suffix('*')) {
        (Some(tail), Some(_)) => text.contains(tail.strip_suffix('*').unwrap_or(tail)),
        (Some(tail), None) => text.ends_with(tail),
        (None, Some(head)) => text.starts_with(head),
        (None, None) => glob == text,
    }
}

/// Adds one key's values to a sorted map of them.
pub(crate) fn add(into: &mut Vec<(String, Vec<Value>)>, name: String, values: Vec<Value>) {
    match into.binary_search_by(|(known, _)| known.as_str().cmp(&name)) {
        Ok(at) => {
            if let Some((_, known)) = into.get_mut(at) {
                widen(known, values);
            }
        }
        Err(at) => into.insert(at, (name, values)),
    }
}

/// Lists add up; no values mean any, and swallow the others.
pub(crate) fn widen(known: &mut Vec<Value>, values: Vec<Value>) {
    if values.is_empty() || known.is_empty() {
        known.clear();
    } else {
        known.extend(values);
    }
}

/// What two keys that differ in case only allow together: a value must be in both lists. No values mean any, and none is left
/// when the lists have nothing in common.
pub(crate) fn narrow(known: &mut Vec<Value>, values: Vec<Value>) {
    if known.is_empty() {
        *known = values;
    } else if !values.is_empty() {
        known.retain(|value| values.contains(value));
        if known.is_empty() {
            known.push(Value::Nested);
        }
    }
}

/// The values listed for a key.
pub(crate) fn listed<'l>(lists: &'l [(String, Vec<Value>)], name: &str) -> Option<&'l [Value]> {
    let at = lists.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
    lists.get(at).map(|(_, values)| values.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(policy: &str, asked: &str) -> bool {
        let policy = Value::listed(&json::parse_value(policy).unwrap());
        policy.covers(&Value::from_json(asked).unwrap())
    }

    /// Each row was asked of OpenBao 2.7.2.
    #[test]
    fn values_meet_as_in_the_field() {
        for (policy, asked, expected) in [
            (r#""x*""#, r#""xy""#, true),
            (r#""*y""#, r#""xy""#, true),
            (r#""*x*""#, r#""axb""#, true),
            (r#""*""#, r#""x""#, false),
            (r#""*""#, r#""*""#, true),
            (r#""**""#, r#""x""#, true),
            ("true", "true", true),
            (r#""true""#, "true", false),
            ("1", "1", false),
            ("1", r#""1""#, false),
            (r#"["x"]"#, r#"["x"]"#, true),
            (r#"["x*"]"#, r#"["xy"]"#, false),
            (r#""x""#, r#"["x"]"#, false),
            (r#"{"b":"c"}"#, r#"{"b":"c"}"#, true),
            (r#""""#, "null", false),
            (r#"{"b":{"c":"x"}}"#, r#"{"b":{"c":"x"}}"#, false),
            (r#"[{"b":{}}]"#, r#"[{"b":{}}]"#, false),
            (r#"[{"b":"c"}]"#, r#"[{"b":"c"}]"#, true),
            (r#"{"b":["c"]}"#, r#"{"b":["c"]}"#, true),
        ] {
            assert_eq!(covers(policy, asked), expected, "{policy} {asked}");
        }
    }
}
