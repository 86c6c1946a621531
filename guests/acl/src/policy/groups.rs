//! The identity groups that a text names: whose members may approve, and of which its templates ask for a value.
//!
//! Must not know: which groups there are.

use std::collections::BTreeSet;

use super::{Rule, templates};
use crate::types::{GroupKey, NamedGroup};

/// More than a person looks after.
const MAX_GROUPS: usize = 100;
/// No group has a longer name.
const MAX_NAME: usize = 512;

/// Each once, in order.
pub(crate) fn named(rules: &[Rule]) -> Vec<NamedGroup> {
    let mut found = BTreeSet::new();
    for rule in rules {
        let factors = rule.limits.factors.iter().flat_map(|factor| factor.groups());
        let approving = factors.map(|(key, value)| NamedGroup { key, value: value.to_owned(), approves: true });
        found.extend(approving.filter(fits));
        if rule.templated {
            found.extend(templates::names(&rule.pattern).filter_map(|name| of_template(&name)).filter(fits));
        }
    }
    found.into_iter().take(MAX_GROUPS).collect()
}

fn fits(group: &NamedGroup) -> bool {
    group.value.len() <= MAX_NAME
}

fn of_template(name: &str) -> Option<NamedGroup> {
    let (key, rest, plain) = match name.strip_prefix("identity.groups.names.") {
        Some(rest) => (GroupKey::Name, rest, ".id"),
        None => (GroupKey::Id, name.strip_prefix("identity.groups.ids.")?, ".name"),
    };
    // A group's name may hold dots: where the end is one of metadata, the name could end at several of them.
    let value = match rest.strip_suffix(plain) {
        Some(value) => value,
        None if rest.matches(".metadata.").count() == 1 => rest.split_once(".metadata.")?.0,
        None => return None,
    };
    (!value.is_empty()).then(|| NamedGroup { key, value: value.to_owned(), approves: false })
}
