//! What one policy says: its rules, checked, with the places they stand at.
//!
//! Must not know: other policies, or how a request is matched.
//!
//! Start with [`read`]; [`decode`] turns one `path` block into a [`Rule`], [`control_group`] reads who must approve, [`templates`] fills identity values in,
//! [`pattern`] sorts patterns into their three kinds, [`advice`] looks for what is legal and probably not meant.
//!
//! Invariants: a key that restricts is honoured or refused, never skipped. Error texts never hold an identity value.

pub(crate) mod advice;
pub(crate) mod control_group;
mod decode;
pub(crate) mod groups;
pub(crate) mod pattern;
pub(crate) mod templates;
mod time;
pub(crate) mod values;

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::syntax::text::{Lines, quoted};
use crate::syntax::{self, Item, Key, Kind, Node};
use crate::types::{Capabilities, Diagnostic, Position, Severity, Source};
use values::Value;

/// Rules of one policy. Enough for any text a person looks after.
const MAX_RULES: usize = 20_000;
/// Findings about one text; the first is the one a client sees.
const MAX_DIAGNOSTICS: usize = 50;

/// One `path` block, its template not yet filled in.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// As written.
    pub(crate) pattern: String,
    pub(crate) templated: bool,
    pub(crate) at: Position,
    /// Behind the pattern.
    pub(crate) end: Position,
    pub(crate) capabilities: Capabilities,
    /// Unix seconds from which the rule counts no more.
    pub(crate) expires: Option<u64>,
    pub(crate) limits: Limits,
}

/// What a rule asks of a request beyond the capability.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Limits {
    /// Nanoseconds; 0: none.
    pub(crate) min_wrapping: u64,
    /// Nanoseconds; 0: none.
    pub(crate) max_wrapping: u64,
    /// Keys lower-cased, sorted; an empty list means any value.
    pub(crate) allowed: Vec<(String, Vec<Value>)>,
    pub(crate) denied: Vec<(String, Vec<Value>)>,
    /// Lower-cased.
    pub(crate) required: Vec<String>,
    /// 0: none.
    pub(crate) pagination: u32,
    /// Who must approve of a request besides.
    pub(crate) factors: Vec<control_group::Factor>,
}

/// Collects what there is to say about one text.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    policy: &'a str,
    found: Vec<Diagnostic>,
    errors: usize,
}

/// Where something stands, in bytes of the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) at: u32,
    pub(crate) end: u32,
}

impl Span {
    fn at(at: u32) -> Self {
        Self { at, end: at }
    }

    fn of(key: &Key<'_>) -> Self {
        Self { at: key.at, end: key.end }
    }
}

impl<'a> Findings<'a> {
    pub(crate) fn about(policy: &'a str) -> Self {
        Self { policy, found: Vec::new(), errors: 0 }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Errors first, each part in the order of the text.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|one| one.severity != Severity::Error);
        self.found
    }

    pub(crate) fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        message: String,
        (start, end): (Position, Position),
        help: Option<String>,
    ) {
        self.errors += usize::from(severity == Severity::Error);
        // An error is kept even when warnings have filled the list: without it the text would count as taken.
        if self.found.len() < MAX_DIAGNOSTICS || (severity == Severity::Error && self.errors == 1) {
            let policy = self.policy.to_owned();
            self.found.push(Diagnostic { severity, code, message, policy, start, end, help });
        }
    }
}

/// Reads one policy. The rules count only if `findings` ends without an error. `now`: Unix seconds; blocks that have expired
/// then are left out unread. None: all are read.
pub(crate) fn read(source: &Source, now: Option<u64>, findings: &mut Findings<'_>) -> Vec<Rule> {
    let text = one_line_end(&source.text);
    let lines = Lines::of(&text);
    let items = match syntax::parse(&text) {
        Ok(items) => items,
        Err(error) => {
            let at = lines.position(error.at);
            let message = format!("At {}: {}", lines.spoken(error.at), error.message);
            findings.add(Severity::Error, "syntax", message, (at, at), None);
            return Vec::new();
        }
    };
    let mut reader = Reader { lines, now, findings };
    if now.is_none() {
        reader.check_repeated(&items);
    }
    reader.check_top_keys(&items);
    reader.check_name(&items);
    if reader.findings.has_errors() {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for item in &items {
        let Some((first, labels)) = item.keys.split_first() else { continue };
        if first.name != "path" {
            continue;
        }
        if rules.len() == MAX_RULES {
            let message = format!("the policy has more than {MAX_RULES} paths");
            reader.error("too-large", message, Span::of(first), None);
            break;
        }
        rules.extend(decode::rule(&mut reader, first, labels, item));
    }
    rules
}

/// HashiCorp's parser makes every line end `\n`; positions stay what they were.
pub(crate) fn one_line_end(text: &str) -> Cow<'_, str> {
    if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { Cow::Borrowed(text) }
}

struct Reader<'a, 'f> {
    lines: Lines<'a>,
    now: Option<u64>,
    findings: &'a mut Findings<'f>,
}

impl Reader<'_, '_> {
    fn error(&mut self, code: &'static str, message: String, span: Span, help: Option<String>) {
        let place = (self.lines.position(span.at), self.lines.position(span.end));
        self.findings.add(Severity::Error, code, message, place, help);
    }

    fn warn(&mut self, code: &'static str, message: String, span: Span, help: Option<String>) {
        let place = (self.lines.position(span.at), self.lines.position(span.end));
        self.findings.add(Severity::Warning, code, message, place, help);
    }

    fn check_top_keys(&mut self, items: &[Item<'_>]) {
        if let Some((span, message, help)) = self.invalid_keys(items, &["name", "path"]) {
            self.error("unknown-key", message, span, help);
        }
    }

    /// An attribute that is written twice: one of the two was not meant, and nobody can tell which. Vault refuses such a text
    /// since 1.21. Only a lint does so here: a text that was stored before, or comes from OpenBao, goes on to be read.
    fn check_repeated(&mut self, items: &[Item<'_>]) {
        let mut seen = BTreeSet::new();
        for item in items {
            // Blocks add up. So do rules of the JSON notation, which have their label as a second key.
            if let (Some(_), [key]) = (item.assign, item.keys.as_slice())
                && !seen.insert(&*key.name)
            {
                let place = self.lines.spoken(key.at);
                let message = format!(
                    "The argument {} at {place} was already set. Each argument can only be defined once",
                    quoted(&key.name)
                );
                self.error("repeated-attribute", message, Span::of(key), None);
            }
            self.check_repeated_below(&item.value);
        }
    }

    fn check_repeated_below(&mut self, node: &Node<'_>) {
        match &node.kind {
            Kind::Object(items) => self.check_repeated(items),
            Kind::List(nodes) => nodes.iter().for_each(|node| self.check_repeated_below(node)),
            _ => {}
        }
    }

    fn check_name(&mut self, items: &[Item<'_>]) {
        for item in items {
            let named = item.keys.first().is_some_and(|key| key.name == "name");
            if named && !matches!(item.value.kind, Kind::Text(_) | Kind::Integer(_)) {
                let place = self.lines.spoken(item.value.at);
                let kind = item.value.kind.type_name();
                let message = format!("At {place}: root.name: unknown type for string {kind}");
                self.error("wrong-type", message, Span::at(item.value.at), None);
            }
        }
    }

    /// All unknown keys of an object in one text, as Vault reports them; none when every key is known.
    fn invalid_keys(&self, items: &[Item<'_>], known: &[&str]) -> Option<(Span, String, Option<String>)> {
        let unknown = items.iter().filter_map(|item| {
            let key = item.keys.first()?;
            (!known.contains(&key.name.as_ref())).then_some((key, item.assign))
        });
        let mut count = 0_usize;
        let mut listed = String::new();
        let mut first = None;
        for (key, assign) in unknown {
            count += 1;
            first = first.or(Some(key));
            if count <= MAX_DIAGNOSTICS {
                // A block has no `=`, whose line is the one reported.
                let line = assign.map_or(0, |at| self.lines.position(at).line);
                listed.push_str(&format!("\t* invalid key {} on line {line}\n", quoted(&key.name)));
            }
        }
        let first = first?;
        let noun = if count == 1 { "error" } else { "errors" };
        let help = advice::nearest(&first.name, known).map(|near| format!("did you mean {}?", quoted(near)));
        Some((Span::of(first), format!("{count} {noun} occurred:\n{listed}\n"), help))
    }
}

/// A node where a string belongs.
fn string_of<'t>(node: &'t Node<'_>) -> Option<&'t str> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        Kind::Integer(written) => Some(written),
        _ => None,
    }
}
