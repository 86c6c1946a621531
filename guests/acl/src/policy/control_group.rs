//! A `control_group` block: who must approve of a request before it is carried out.
//!
//! Must not know: requests, beyond what an approval says.
//!
//! Start with [`read`]. The order of the checks is the order in which OpenBao finds errors.

use super::{Reader, Span, string_of, time};
use crate::syntax::text::quoted;
use crate::syntax::{Item, Kind, Node};
use crate::types::{Approval, Capabilities, GroupKey};

/// How long a request waits where the block does not say.
const DEFAULT_TTL: u64 = 24 * 60 * 60;
/// As long as a token lives unless the server's configuration says otherwise: who asked would be gone before.
const MAX_TTL: u64 = 768 * 60 * 60;
/// More approvals than anybody waits for: they bound what is kept of a request.
const MAX_APPROVALS: u32 = 100;

/// Groups of one could be approved of by those of another.
const ONE_IDENTITY: &str = "a factor has one identity block, without a name: write a factor for each";

/// Some members of some groups must approve.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Factor {
    pub(crate) name: String,
    /// What it holds back.
    pub(crate) operations: Capabilities,
    group_names: Vec<String>,
    group_ids: Vec<String>,
    pub(crate) approvals: u32,
    /// Seconds.
    pub(crate) ttl: u64,
    /// Whoever asks may approve.
    self_approval: bool,
}

impl Factor {
    /// Whose members may approve.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupKey, &str)> {
        let names = self.group_names.iter().map(|name| (GroupKey::Name, name.as_str()));
        names.chain(self.group_ids.iter().map(|id| (GroupKey::Id, id.as_str())))
    }

    /// Whether an approval counts for this factor.
    pub(crate) fn counts(&self, approval: &Approval, requester: Option<&str>) -> bool {
        let is_member = self.group_names.iter().any(|name| approval.group_names.contains(name))
            || self.group_ids.iter().any(|id| approval.group_ids.contains(id));
        is_member && approval.age < self.ttl && (self.self_approval || requester != Some(&*approval.entity))
    }
}

/// Why a block is refused.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) span: Span,
    pub(super) help: Option<String>,
}

impl Refusal {
    fn at(at: u32, message: impl Into<String>) -> Self {
        Self { message: message.into(), span: Span::at(at), help: None }
    }

    fn helped(self, help: &str) -> Self {
        Self { help: Some(help.to_owned()), ..self }
    }

    /// As Go's lists of errors read, with what was done around them.
    fn inside(self, what: &str) -> Self {
        Self { message: format!("{what}1 error occurred:\n\t* {}\n\n", self.message), ..self }
    }

    fn before(self, what: &str) -> Self {
        Self { message: format!("{what}{}", self.message), ..self }
    }
}

pub(super) fn read(reader: &Reader<'_, '_>, block: &Node<'_>) -> Result<Vec<Factor>, Refusal> {
    factors(reader, block).map_err(|refusal| refusal.inside(""))
}

fn factors(reader: &Reader<'_, '_>, block: &Node<'_>) -> Result<Vec<Factor>, Refusal> {
    let items = known(reader, block, &["ttl", "self_auth_allowed", "factor"])?;
    let (mut ttl, mut self_approval) = (DEFAULT_TTL, false);
    let mut factors: Vec<(u32, Factor, Option<Refusal>)> = Vec::new();
    for item in items {
        match key(item) {
            "ttl" => {
                let refused = |why| Refusal::at(item.value.at, format!("path control_group: invalid ttl: {why}"));
                let nanoseconds = time::duration(&item.value.kind).map_err(refused)?;
                ttl = match nanoseconds.div_ceil(1_000_000_000) {
                    0 => DEFAULT_TTL,
                    seconds if seconds > MAX_TTL => return Err(refused(format!("it is at most {}h", MAX_TTL / 3600))),
                    seconds => seconds,
                };
            }
            "self_auth_allowed" => match item.value.kind {
                Kind::Bool(truth) => self_approval = truth,
                _ => {
                    let message = "path control_group: self_auth_allowed must be true or false";
                    return Err(Refusal::at(item.value.at, message));
                }
            },
            _ => {
                let refused = |refusal: Refusal| {
                    refusal.before("path control_group factor: ").inside("error handling control_group factor: ")
                };
                let (factor, invalid) = factor(reader, item).map_err(refused)?;
                factors.push((item.value.at, factor, invalid));
            }
        }
    }
    if let Some(invalid) = factors.iter_mut().find_map(|(_, _, invalid)| invalid.take()) {
        return Err(invalid);
    }
    if factors.is_empty() {
        return Err(Refusal::at(block.at, "requires at least one factor but had none"));
    }
    for (index, (at, factor, _)) in factors.iter().enumerate() {
        let lacking = if factor.approvals == 0 {
            "required approvals"
        } else if factor.group_names.is_empty() && factor.group_ids.is_empty() {
            "approving groups"
        } else if factor.operations.is_empty() {
            "controlled capabilities"
        } else {
            continue;
        };
        return Err(Refusal::at(*at, format!("factor {index}: missing {lacking}")));
    }
    Ok(factors.into_iter().map(|(_, factor, _)| Factor { ttl, self_approval, ..factor }).collect())
}

/// A factor, and why it is refused unless there is an earlier reason.
fn factor(reader: &Reader<'_, '_>, item: &Item<'_>) -> Result<(Factor, Option<Refusal>), Refusal> {
    let items = known(reader, &item.value, &["controlled_capabilities", "identity"])?;
    let name = match &*item.keys {
        [_, name] => name.name.clone().into_owned(),
        [_, _, ..] => return Err(Refusal::at(item.value.at, "a factor has one name")),
        _ => return Err(Refusal::at(item.value.at, "require name key")),
    };
    let mut factor = Factor {
        name,
        operations: Capabilities::NONE,
        group_names: Vec::new(),
        group_ids: Vec::new(),
        approvals: 0,
        ttl: DEFAULT_TTL,
        self_approval: false,
    };
    let mut invalid = None;
    let mut has_identity = false;
    for item in items {
        match key(item) {
            "identity" if std::mem::replace(&mut has_identity, true) || item.keys.len() > 1 => {
                return Err(Refusal::at(item.value.at, ONE_IDENTITY));
            }
            "controlled_capabilities" => {
                for (at, name) in strings(reader, &item.value)? {
                    match Capabilities::named(name).filter(|one| OPERATIONS.contains(*one)) {
                        Some(operation) => factor.operations |= operation,
                        None => invalid = invalid.or_else(|| Some(not_valid(at, name))),
                    }
                }
            }
            _ => identity(reader, &item.value, &mut factor)?,
        }
    }
    Ok((factor, invalid))
}

/// What a request can be; `sudo` and `deny` are none of them.
const OPERATIONS: Capabilities = Capabilities::CREATE
    .and(Capabilities::READ)
    .and(Capabilities::UPDATE)
    .and(Capabilities::DELETE)
    .and(Capabilities::LIST)
    .and(Capabilities::SCAN)
    .and(Capabilities::PATCH);

fn not_valid(at: u32, name: &str) -> Refusal {
    Refusal::at(at, format!("path control_group Operation(s) not valid: {name}"))
        .helped("one of create, read, update, delete, list, scan, patch")
}

fn identity(reader: &Reader<'_, '_>, node: &Node<'_>, factor: &mut Factor) -> Result<(), Refusal> {
    let block = match &node.kind {
        // `"identity": [{…}]`
        Kind::List(nodes) => match nodes.as_slice() {
            [one] => one,
            _ => return Err(Refusal::at(node.at, ONE_IDENTITY)),
        },
        _ => node,
    };
    for item in known(reader, block, &["group_names", "group_ids", "approvals"])? {
        match key(item) {
            "approvals" => factor.approvals = approvals(&item.value)?,
            name => {
                let names = strings(reader, &item.value)?.into_iter().map(|(_, name)| name.to_owned());
                match name {
                    "group_names" => factor.group_names.extend(names),
                    _ => factor.group_ids.extend(names),
                }
            }
        }
    }
    Ok(())
}

/// 0 for a negative number: then approvals are missing.
fn approvals(node: &Node<'_>) -> Result<u32, Refusal> {
    let written = string_of(node).unwrap_or_default();
    let number = time::integer(written);
    let number =
        number.map_err(|why| Refusal::at(node.at, format!("strconv.ParseInt: parsing {}: {why}", quoted(written))))?;
    match u32::try_from(number.max(0)) {
        Ok(number) if number <= MAX_APPROVALS => Ok(number),
        _ => Err(Refusal::at(node.at, format!("at most {MAX_APPROVALS} approvals can be asked for"))),
    }
}

fn key<'i>(item: &'i Item<'_>) -> &'i str {
    item.keys.first().map_or("", |key| &*key.name)
}

fn known<'n, 't>(reader: &Reader<'_, '_>, node: &'n Node<'t>, names: &[&str]) -> Result<&'n [Item<'t>], Refusal> {
    let Kind::Object(items) = &node.kind else {
        return Err(Refusal::at(node.at, format!("cannot check HCL keys of type {}", node.kind.type_name())));
    };
    match reader.invalid_keys(items, names) {
        // A list of errors, of which the first stands for all.
        Some((span, message, help)) => {
            let first = message.lines().nth(1).unwrap_or_default().trim_start_matches("\t* ").to_owned();
            Err(Refusal { message: first, span, help })
        }
        None => Ok(items),
    }
}

fn strings<'n>(reader: &Reader<'_, '_>, node: &'n Node<'_>) -> Result<Vec<(u32, &'n str)>, Refusal> {
    let told = |at: u32, what: String| Refusal::at(at, format!("At {}: {what}", reader.lines.spoken(at)));
    let Kind::List(nodes) = &node.kind else {
        return Err(told(node.at, format!("unknown slice type: {}", node.kind.type_name())));
    };
    let text = |node: &'n Node<'_>| {
        let refused = || told(node.at, format!("unknown type for string {}", node.kind.type_name()));
        string_of(node).map(|text| (node.at, text)).ok_or_else(refused)
    };
    nodes.iter().map(text).collect()
}
