//! A policy's text as a tree.
//!
//! Must not know: what a policy means. [`leasehold_hcl`] reads the two notations; here JSON gets the labels that HCL has.

pub(crate) use leasehold_hcl::{Comment, Item, Key, Kind, Node, SyntaxError, is_json, json, parse_with_comments, text};

/// Reads HCL, or JSON when the first character that is not white space is `{`.
///
/// # Errors
/// The first error, as HashiCorp's parser would report it. The caller adds `At line:column: ` in front.
pub(crate) fn parse(text: &str) -> Result<Vec<Item<'_>>, SyntaxError> {
    let items = leasehold_hcl::parse(text)?;
    if !is_json(text) {
        return Ok(items);
    }
    let mut rules = labelled(items, "path");
    for item in rules.iter_mut().flat_map(|rule| items_of(&mut rule.value)) {
        if item.keys.first().is_some_and(|key| key.name == "control_group")
            && let Kind::Object(items) = &mut item.value.kind
        {
            *items = labelled(std::mem::take(items), "factor");
        }
    }
    Ok(rules)
}

fn items_of<'n, 't>(node: &'n mut Node<'t>) -> &'n mut [Item<'t>] {
    match &mut node.kind {
        Kind::Object(items) => items,
        _ => &mut [],
    }
}

/// `{"path": {"P": {…}}}` and `{"path": [{"P": {…}}, …]}` become `path "P" {…}` items; and so with another name.
fn labelled<'a>(items: Vec<Item<'a>>, name: &str) -> Vec<Item<'a>> {
    let mut out = Vec::new();
    for item in items {
        let Some(first) = item.keys.first() else { continue };
        if first.name != name {
            out.push(item);
            continue;
        }
        let Item { keys, assign, value } = item;
        match value.kind {
            Kind::Object(labelled) => label(&keys, assign, (value.at, value.end), labelled, &mut out),
            Kind::List(nodes) if !nodes.is_empty() && nodes.iter().all(is_object) => {
                for node in nodes {
                    if let Kind::Object(labelled) = node.kind {
                        label(&keys, assign, (node.at, node.end), labelled, &mut out);
                    }
                }
            }
            kind => out.push(Item { keys, assign, value: Node { at: value.at, end: value.end, kind } }),
        }
    }
    out
}

fn is_object(node: &Node<'_>) -> bool {
    matches!(node.kind, Kind::Object(_))
}

/// `"path": {"P": {…}}` to `path "P" {…}`. What is no rule stays as it is, for the decoder to refuse.
fn label<'a>(
    keys: &[Key<'a>],
    assign: Option<u32>,
    (at, end): (u32, u32),
    inner: Vec<Item<'a>>,
    out: &mut Vec<Item<'a>>,
) {
    let fits = |item: &Item<'_>| match &item.value.kind {
        Kind::Object(_) => true,
        Kind::List(nodes) => !nodes.is_empty() && nodes.iter().all(is_object),
        _ => false,
    };
    if !inner.iter().all(fits) {
        out.push(Item { keys: keys.to_vec(), assign, value: Node { at, end, kind: Kind::Object(inner) } });
        return;
    }
    for item in inner {
        let labels: Vec<Key<'a>> = keys.iter().chain(&item.keys).cloned().collect();
        match item.value.kind {
            Kind::List(blocks) => {
                for value in blocks {
                    out.push(Item { keys: labels.clone(), assign: item.assign, value });
                }
            }
            kind => out.push(Item {
                keys: labels,
                assign: item.assign,
                value: Node { at: item.value.at, end: item.value.end, kind },
            }),
        }
    }
}
