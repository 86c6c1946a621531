//! The tree and the comments into what stands on which line.

use std::iter::Peekable;
use std::vec::IntoIter;

use crate::syntax::text::Lines;
use crate::syntax::{self, Kind, Node};

/// One comment, and whether an empty line follows it.
#[derive(Debug)]
pub(super) struct Comment<'a> {
    pub(super) text: &'a str,
    pub(super) gap_after: bool,
}

/// The inside of an object, or a whole file.
#[derive(Debug, Default)]
pub(super) struct Body<'a> {
    pub(super) items: Vec<Item<'a>>,
    /// Comments behind the last item.
    pub(super) tail: Vec<Comment<'a>>,
}

#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) lead: Vec<Comment<'a>>,
    pub(super) keys: Vec<&'a str>,
    pub(super) assigned: bool,
    pub(super) value: Value<'a>,
    /// A comment behind it, on its last line.
    pub(super) trail: Option<&'a str>,
    pub(super) line: u32,
    pub(super) last_line: u32,
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Literal(&'a str),
    Heredoc(&'a str),
    List { elements: Vec<Element<'a>>, tail: Vec<Comment<'a>>, on_one_line: bool },
    Object(Body<'a>),
}

#[derive(Debug)]
pub(super) struct Element<'a> {
    pub(super) lead: Vec<Comment<'a>>,
    pub(super) value: Value<'a>,
    pub(super) trail: Option<&'a str>,
}

/// Lays a whole text out.
pub(super) fn of<'a>(text: &'a str, items: &[syntax::Item<'a>], comments: Vec<syntax::Comment<'a>>) -> Body<'a> {
    Layout { text, lines: Lines::of(text), comments: comments.into_iter().peekable() }.body(items, text.len() as u32)
}

struct Layout<'a> {
    text: &'a str,
    lines: Lines<'a>,
    /// Those that have no place yet, in the order of the text.
    comments: Peekable<IntoIter<syntax::Comment<'a>>>,
}

impl<'a> Layout<'a> {
    /// `end`: where the body ends.
    fn body(&mut self, items: &[syntax::Item<'a>], end: u32) -> Body<'a> {
        let mut laid = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let Some(first) = item.keys.first() else { continue };
            // Also one between the keys and the value: it has no place there, and must not be lost.
            let lead = self.comments_before(first.at.max(item.value.at), first.at);
            let (value, last_line) = self.value(&item.value);
            let next = items.get(index + 1).and_then(|next| next.keys.first()).map_or(end, |key| key.at);
            laid.push(Item {
                lead,
                keys: item.keys.iter().map(|key| self.written(key.at, key.end)).collect(),
                assigned: item.assign.is_some(),
                value,
                trail: self.trail(last_line, next),
                line: self.line(first.at),
                last_line,
            });
        }
        Body { items: laid, tail: self.comments_before(end, end) }
    }

    /// The value, and the line of its last character.
    fn value(&mut self, node: &Node<'a>) -> (Value<'a>, u32) {
        let value = match &node.kind {
            Kind::Object(items) => Value::Object(self.body(items, node.end.saturating_sub(1))),
            Kind::List(nodes) => self.list(node, nodes),
            _ => {
                let written = self.written(node.at, node.end).trim_end();
                // The line end behind a here-document belongs to nobody.
                let last_line = self.line(node.at + written.len().saturating_sub(1) as u32);
                let is_heredoc = written.starts_with("<<");
                return (if is_heredoc { Value::Heredoc(written) } else { Value::Literal(written) }, last_line);
            }
        };
        (value, self.line(node.end.saturating_sub(1)))
    }

    fn list(&mut self, node: &Node<'a>, nodes: &[Node<'a>]) -> Value<'a> {
        let end = node.end.saturating_sub(1);
        let mut elements = Vec::with_capacity(nodes.len());
        for (index, one) in nodes.iter().enumerate() {
            let lead = self.comments_before(one.at, one.at);
            let (value, last_line) = self.value(one);
            let next = nodes.get(index + 1).map_or(end, |next| next.at);
            elements.push(Element { lead, value, trail: self.trail(last_line, next) });
        }
        let tail = self.comments_before(end, end);
        Value::List { elements, tail, on_one_line: self.line(node.at) == self.line(end) }
    }

    /// The comments that begin before a place; what they lead to begins at `follower`.
    fn comments_before(&mut self, place: u32, follower: u32) -> Vec<Comment<'a>> {
        let mut found: Vec<Comment<'a>> = Vec::new();
        while let Some(comment) = self.comments.next_if(|comment| comment.at < place) {
            let next = self.comments.peek().filter(|next| next.at < place).map_or(follower, |next| next.at);
            let text = comment.text.trim_end();
            let last_line = self.line(comment.at + text.len().saturating_sub(1) as u32);
            found.push(Comment { text, gap_after: self.line(next) > last_line + 1 });
        }
        found
    }

    /// A comment on this very line, before what comes next.
    fn trail(&mut self, line: u32, next: u32) -> Option<&'a str> {
        let lines = &self.lines;
        let comment = self.comments.next_if(|comment| comment.at < next && lines.position(comment.at).line == line)?;
        Some(comment.text.trim_end())
    }

    fn line(&self, at: u32) -> u32 {
        self.lines.position(at).line
    }

    fn written(&self, at: u32, end: u32) -> &'a str {
        self.text.get(at as usize..end as usize).unwrap_or_default()
    }
}
