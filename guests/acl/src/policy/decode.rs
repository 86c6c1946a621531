//! One `path` block into one [`Rule`].
//!
//! The order of the checks is the order in which Vault finds errors: the first one is what the client reads.

use super::pattern::{self, Glob};
use super::values::{self, Value};
use super::{Limits, Reader, Rule, Span, advice, control_group, string_of, templates, time};
use crate::syntax::text::quoted;
use crate::syntax::{Item, Key, Kind, Node};
use crate::types::Capabilities;

const KNOWN: [&str; 13] = [
    "comment",
    "policy",
    "capabilities",
    "allowed_parameters",
    "denied_parameters",
    "required_parameters",
    "min_wrapping_ttl",
    "max_wrapping_ttl",
    "mfa_methods",
    "pagination_limit",
    "expiration",
    "list_scan_response_keys_filter_path",
    "control_group",
];

/// They restrict, and nothing enforces them yet: taking them silently would open what the operator closed.
const UNSUPPORTED: [&str; 2] = ["mfa_methods", "list_scan_response_keys_filter_path"];

/// None when the block is refused, and the reader has the reason, or when it has expired.
pub(super) fn rule(reader: &mut Reader<'_, '_>, first: &Key<'_>, labels: &[Key<'_>], item: &Item<'_>) -> Option<Rule> {
    // A block without a label is a rule on `path` itself, as in Vault.
    let label = labels.first().unwrap_or(first);
    let mut block = Block { label, reader };
    let templated = block.check_template()?;
    let items = block.items(&item.value)?;
    block.check_keys(items)?;
    let factors = block.control_groups(items)?;
    let mut fields = block.fields(items)?;
    fields.limits.factors = factors;
    if block.reader.now.is_some_and(|now| fields.expires.is_some_and(|expires| expires <= now)) {
        // As in Vault, whatever else is wrong with it.
        return None;
    }
    block.check_wildcards(templated)?;
    let capabilities = block.capabilities(&fields)?;
    if capabilities.contains(Capabilities::DENY) {
        // Nothing else in the block counts then, and Vault does not read on either.
        return Some(block.rule(templated, Capabilities::DENY, fields.expires, Limits::default()));
    }
    let limits = block.limits(fields.limits, fields.min_wrapping, fields.max_wrapping)?;
    if labels.len() > 1 {
        let message = format!("path {}: only the first label counts", block.path());
        block.reader.warn("extra-label", message, Span::of(label), None);
    }
    Some(block.rule(templated, capabilities, fields.expires, limits))
}

struct Block<'b, 'a, 'f> {
    label: &'b Key<'b>,
    reader: &'b mut Reader<'a, 'f>,
}

/// The values of a block, types checked.
#[derive(Default)]
struct Fields<'n, 't> {
    policy: Option<&'n Node<'t>>,
    capabilities: Vec<&'n Node<'t>>,
    expires: Option<u64>,
    min_wrapping: Option<&'n Node<'t>>,
    max_wrapping: Option<&'n Node<'t>>,
    limits: Limits,
}

type ParameterLists = Vec<(String, Vec<Value>)>;

impl<'b> Block<'b, '_, '_> {
    fn refuse<T>(&mut self, code: &'static str, span: Span, message: String, help: Option<String>) -> Option<T> {
        self.reader.error(code, format!("path {}: {message}", self.path()), span, help);
        None
    }

    /// Errors from inside the block name the path twice in Vault; clients compare texts.
    fn refuse_twice<T>(&mut self, code: &'static str, span: Span, message: &str, help: Option<String>) -> Option<T> {
        let message = format!("path {}: {message}", self.path());
        self.refuse(code, span, message, help)
    }

    fn wrong_type<T>(&mut self, at: u32, message: &str) -> Option<T> {
        let place = self.reader.lines.spoken(at);
        self.refuse_twice("wrong-type", Span::at(at), &format!("At {place}: {message}"), None)
    }

    /// The pattern as error texts quote it.
    fn path(&self) -> String {
        quoted(&self.label.name)
    }

    fn here(&self) -> Span {
        Span::of(self.label)
    }

    fn check_template(&mut self) -> Option<bool> {
        match templates::has_any(&self.label.name) {
            Ok(any) => Some(any),
            Err(templates::Unbalanced) => {
                let message = "failed to validate policy templating: unbalanced templating characters";
                self.refuse("template", self.here(), message.to_owned(), None)
            }
        }
    }

    fn items<'n, 't>(&mut self, value: &'n Node<'t>) -> Option<&'n [Item<'t>]> {
        match &value.kind {
            Kind::Object(items) => Some(items),
            other => {
                let message = format!("cannot check HCL keys of type {}", other.type_name());
                self.refuse("wrong-type", Span::at(value.at), message, None)
            }
        }
    }

    fn check_keys(&mut self, items: &[Item<'_>]) -> Option<()> {
        if let Some((span, message, help)) = self.reader.invalid_keys(items, &KNOWN) {
            return self.refuse("unknown-key", span, message, help);
        }
        for item in items {
            let Some(key) = item.keys.first() else { continue };
            if UNSUPPORTED.contains(&key.name.as_ref()) {
                let message =
                    format!("{} is not supported, and without it the path would be more open than written", key.name);
                return self.refuse("unsupported-key", Span::of(key), message, None);
            }
            if item.keys.len() > 1 {
                let message = format!("{} takes no label", key.name);
                return self.refuse("unknown-key", Span::of(key), message, None);
            }
        }
        Some(())
    }

    /// Several blocks add up: each of them holds.
    fn control_groups(&mut self, items: &[Item<'_>]) -> Option<Vec<control_group::Factor>> {
        let mut factors = Vec::new();
        let blocks = items.iter().filter(|item| item.keys.first().is_some_and(|key| key.name == "control_group"));
        for block in blocks {
            match control_group::read(self.reader, &block.value) {
                Ok(found) => factors.extend(found),
                Err(refusal) => {
                    let (message, span) = (format!("error handling control_group: {}", refusal.message), refusal.span);
                    return self.refuse("control-group", span, message, refusal.help);
                }
            }
        }
        Some(factors)
    }

    fn fields<'n, 't>(&mut self, items: &'n [Item<'t>]) -> Option<Fields<'n, 't>> {
        let mut fields = Fields::default();
        let named =
            |name: &'static str| items.iter().filter(move |item| item.keys.first().is_some_and(|key| key.name == name));
        for item in named("policy") {
            self.string(&item.value, "Policy")?;
            fields.policy = Some(&item.value);
        }
        for item in named("capabilities") {
            let nodes = self.strings(&item.value, "Capabilities")?;
            fields.capabilities.extend(nodes);
        }
        for item in named("expiration") {
            let written = self.string(&item.value, "expiration")?;
            fields.expires = self.expiration(written, item.value.at)?;
        }
        fields.min_wrapping = named("min_wrapping_ttl").next_back().map(|item| &item.value);
        fields.max_wrapping = named("max_wrapping_ttl").next_back().map(|item| &item.value);
        for item in named("allowed_parameters") {
            self.parameters(&item.value, "allowed_parameters", &mut fields.limits.allowed)?;
        }
        for item in named("denied_parameters") {
            self.parameters(&item.value, "denied_parameters", &mut fields.limits.denied)?;
        }
        for item in named("required_parameters") {
            let nodes = self.strings(&item.value, "required_parameters")?;
            fields.limits.required.extend(nodes.into_iter().filter_map(string_of).map(str::to_lowercase));
        }
        for item in named("pagination_limit") {
            fields.limits.pagination = self.pagination(&item.value)?;
        }
        Some(fields)
    }

    fn string<'n>(&mut self, node: &'n Node<'_>, field: &str) -> Option<&'n str> {
        match string_of(node) {
            Some(text) => Some(text),
            None => {
                self.wrong_type(node.at, &format!("root.{field}: unknown type for string {}", node.kind.type_name()))
            }
        }
    }

    fn strings<'n, 't>(&mut self, node: &'n Node<'t>, field: &str) -> Option<Vec<&'n Node<'t>>> {
        let nodes = match &node.kind {
            Kind::List(nodes) => nodes,
            Kind::Object(items) => {
                // An empty object is an empty list in HCL.
                return match items.first().and_then(|item| item.keys.first()) {
                    None => Some(Vec::new()),
                    Some(key) => {
                        self.wrong_type(key.at, &format!("root.{field}[0]: unknown type for string *ast.ObjectItem"))
                    }
                };
            }
            other => return self.wrong_type(node.at, &format!("unknown slice type: {}", other.type_name())),
        };
        for (index, node) in nodes.iter().enumerate() {
            if string_of(node).is_none() {
                let kind = node.kind.type_name();
                return self.wrong_type(node.at, &format!("root.{field}[{index}]: unknown type for string {kind}"));
            }
        }
        Some(nodes.iter().collect())
    }

    fn expiration(&mut self, written: &str, at: u32) -> Option<Option<u64>> {
        if written.is_empty() {
            return Some(None);
        }
        match time::absolute(written) {
            Some(seconds) => Some(Some(seconds)),
            None => {
                let message = "invalid expiration time: could not parse string as date and time";
                let help = Some("write it as \"2030-01-31T12:00:00Z\"".to_owned());
                self.refuse_twice("invalid-expiration", Span::at(at), message, help)
            }
        }
    }

    fn parameters(&mut self, node: &Node<'_>, field: &str, into: &mut ParameterLists) -> Option<()> {
        let items = match &node.kind {
            Kind::Object(items) => items,
            other => {
                let message = format!("root.{field}: not an object type for map ({})", other.type_name());
                return self.wrong_type(node.at, &message);
            }
        };
        // A repeated key adds values. Of keys that differ in case only Vault takes one by chance: here both restrict.
        let mut written: Vec<(&str, Vec<Value>)> = Vec::new();
        for item in items {
            let [key] = item.keys.as_slice() else {
                return self.wrong_type(item.value.at, &format!("root.{field}: map must have string keys"));
            };
            let values: Vec<Value> = match &item.value.kind {
                Kind::List(nodes) => nodes.iter().map(Value::listed).collect(),
                Kind::Object(_) => vec![Value::listed(&item.value)],
                other => return self.wrong_type(item.value.at, &format!("unknown slice type: {}", other.type_name())),
            };
            if let Some(never) = values.iter().find(|value| !value.can_match()) {
                let (code, what) = match never {
                    Value::Number => ("number-never-matches", "a number"),
                    _ => ("nested-never-matches", "a value with a number or with an object inside an object"),
                };
                let message =
                    format!("path {}: {field} {}: {what} never matches any value", self.path(), quoted(&key.name));
                self.reader.warn(code, message, Span::of(key), None);
            }
            match written.iter_mut().find(|(name, _)| *name == key.name) {
                Some((_, known)) => known.extend(values),
                None => written.push((&key.name, values)),
            }
        }
        let mut lowered: ParameterLists = Vec::with_capacity(written.len());
        for (name, values) in written {
            let name = name.to_lowercase();
            let Some((_, known)) = lowered.iter_mut().find(|(known, _)| *known == name) else {
                lowered.push((name, values));
                continue;
            };
            let message =
                format!("path {}: {field} {}: keys that differ in case only both count", self.path(), quoted(&name));
            self.reader.warn("keys-differ-in-case", message, Span::at(node.at), None);
            if field == "allowed_parameters" {
                values::narrow(known, values);
            } else {
                values::widen(known, values);
            }
        }
        for (name, values) in lowered {
            values::add(into, name, values);
        }
        Some(())
    }

    fn pagination(&mut self, node: &Node<'_>) -> Option<u32> {
        let written = match &node.kind {
            Kind::Integer(written) => *written,
            Kind::Text(text) => text.as_ref(),
            other => {
                let message = format!("root.pagination_limit: unknown type {}", other.type_name());
                return self.wrong_type(node.at, &message);
            }
        };
        match time::integer(written) {
            // A negative one is no limit, as in Vault.
            Ok(limit) => Some(u32::try_from(limit.max(0)).unwrap_or(u32::MAX)),
            Err(why) => {
                let message = format!("strconv.ParseInt: parsing {}: {why}", quoted(written));
                self.refuse_twice("wrong-type", Span::at(node.at), &message, None)
            }
        }
    }

    fn check_wildcards(&mut self, templated: bool) -> Option<()> {
        // A filled-in template is checked again.
        let stripped = pattern::without_slash(&self.label.name);
        if !templated && matches!(pattern::kind(stripped), Glob::Forbidden) {
            let message = format!("path {}: {}", quoted(stripped), pattern::FORBIDDEN);
            return self.refuse("plus-star", self.here(), message, Some("a final `*` covers every segment".to_owned()));
        }
        Some(())
    }

    fn capabilities(&mut self, fields: &Fields<'_, '_>) -> Option<Capabilities> {
        let mut sum = Capabilities::NONE;
        let legacy = match fields.policy.and_then(string_of) {
            None | Some("") => Capabilities::NONE,
            Some("deny") => return Some(Capabilities::DENY),
            Some("read") => READ,
            Some("write") => WRITE,
            Some("sudo") => WRITE | Capabilities::SUDO,
            Some(other) => {
                let help = advice::nearest(other, &["deny", "read", "write", "sudo"]);
                let help = help.map(|near| format!("did you mean {}?", quoted(near)));
                let span = fields.policy.map_or(self.here(), |node| Span::at(node.at));
                return self.refuse_twice("invalid-policy", span, &format!("invalid policy {}", quoted(other)), help);
            }
        };
        for (index, node) in fields.capabilities.iter().enumerate() {
            let name = string_of(node).unwrap_or_default();
            match Capabilities::named(name) {
                Some(Capabilities::DENY) => {
                    if fields.capabilities.len() > index + 1 || !sum.is_empty() || !legacy.is_empty() {
                        let message = format!("path {}: beside \"deny\" no other capability counts", self.path());
                        self.reader.warn("deny-with-others", message, Span::at(node.at), None);
                    }
                    return Some(Capabilities::DENY);
                }
                Some(one) => sum |= one,
                None => {
                    let known = Capabilities::NAMED.map(|(name, _)| name);
                    let help = advice::nearest(name, &known).or_else(|| advice::http_verb(name));
                    let help = help.map(|near| format!("did you mean {}?", quoted(near)));
                    let span = Span { at: node.at, end: node.at + name.len() as u32 + 2 };
                    let message = format!("invalid capability {}", quoted(name));
                    return self.refuse_twice("unknown-capability", span, &message, help);
                }
            }
        }
        Some(sum | legacy)
    }

    fn limits(&mut self, mut limits: Limits, min: Option<&Node<'_>>, max: Option<&Node<'_>>) -> Option<Limits> {
        limits.min_wrapping = self.wrapping("min_wrapping_ttl", min)?;
        limits.max_wrapping = self.wrapping("max_wrapping_ttl", max)?;
        if limits.max_wrapping != 0 && limits.max_wrapping < limits.min_wrapping {
            let span = max.map_or(self.here(), |node| Span::at(node.at));
            let message = "max_wrapping_ttl cannot be less than min_wrapping_ttl".to_owned();
            return self.refuse("wrapping-bounds", span, message, None);
        }
        Some(limits)
    }

    fn wrapping(&mut self, field: &str, node: Option<&Node<'_>>) -> Option<u64> {
        let Some(node) = node else { return Some(0) };
        match time::duration(&node.kind) {
            Ok(nanoseconds) => Some(nanoseconds),
            Err(why) => {
                self.refuse("invalid-duration", Span::at(node.at), format!("error parsing {field}: {why}"), None)
            }
        }
    }

    fn rule(&self, templated: bool, capabilities: Capabilities, expires: Option<u64>, limits: Limits) -> Rule {
        let lines = &self.reader.lines;
        Rule {
            pattern: self.label.name.clone().into_owned(),
            templated,
            at: lines.position(self.label.at),
            end: lines.position(self.label.end),
            capabilities,
            expires,
            limits,
        }
    }
}

const READ: Capabilities = Capabilities::READ.and(Capabilities::LIST);
const WRITE: Capabilities = READ.and(Capabilities::CREATE).and(Capabilities::UPDATE).and(Capabilities::DELETE);
