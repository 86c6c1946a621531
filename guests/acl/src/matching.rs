//! From a path to the one rule that decides about it.
//!
//! Must not know: what a rule grants. Rules are numbers here.
//!
//! Start with [`Matcher::find`]. Three tables, one for each kind of pattern: exact paths and prefixes are sorted lists,
//! patterns with `+` a tree of segments.
//!
//! Invariants: nothing is allocated for a rule that does not match, apart from one small stack for the walk in the tree;
//! each node of the tree is looked at once at most, so the work is bounded by the rules, not by the path.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

/// Number of a merged rule.
pub(crate) type RuleId = u32;

#[derive(Debug, Default)]
pub(crate) struct Matcher {
    /// Sorted.
    exact: Vec<(Box<str>, RuleId)>,
    prefixes: Prefixes,
    segments: Vec<Node>,
    /// Of the rules with `+`, whose numbers are consecutive.
    ranks: Vec<Rank>,
    first_rank: RuleId,
}

/// Where a rule stands among all that match: a larger position of the first wildcard first, then no final `*`, fewer
/// `+`, the longer pattern, the lexically greater one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    first_wildcard: usize,
    whole: bool,
    pluses: Reverse<usize>,
    length: usize,
    /// Without a final `*`.
    body: Box<str>,
}

/// One segment's place in the tree.
#[derive(Debug, Default)]
struct Node {
    /// Sorted.
    literal: Vec<(Box<str>, u32)>,
    plus: Option<u32>,
    /// The rule that ends behind this segment.
    end: Option<RuleId>,
    /// Rules whose last segment is only the beginning of one.
    globs: Prefixes,
}

impl Matcher {
    /// All three lists sorted by pattern; prefixes without their `*`, patterns with `+` whole and numbered on end.
    pub(crate) fn new(
        exact: Vec<(Box<str>, RuleId)>,
        prefixes: Vec<(Box<str>, RuleId)>,
        segments: &[(Box<str>, RuleId)],
    ) -> Self {
        let mut matcher = Self {
            exact,
            prefixes: Prefixes::new(prefixes),
            segments: vec![Node::default()],
            ranks: Vec::with_capacity(segments.len()),
            first_rank: segments.first().map_or(0, |(_, rule)| *rule),
        };
        let mut globs: BTreeMap<u32, Vec<(Box<str>, RuleId)>> = BTreeMap::new();
        for (pattern, rule) in segments {
            matcher.plant(pattern, *rule, &mut globs);
        }
        for (node, mut beginnings) in globs {
            beginnings.sort();
            if let Some(node) = matcher.segments.get_mut(node as usize) {
                node.globs = Prefixes::new(beginnings);
            }
        }
        matcher
    }

    fn plant(&mut self, pattern: &str, rule: RuleId, globs: &mut BTreeMap<u32, Vec<(Box<str>, RuleId)>>) {
        let body = pattern.strip_suffix('*');
        let whole = body.is_none();
        let body = body.unwrap_or(pattern);
        self.ranks.push(Rank {
            first_wildcard: body.find('+').unwrap_or(body.len()),
            whole,
            pluses: Reverse(body.split('/').filter(|segment| *segment == "+").count()),
            length: body.len(),
            body: body.into(),
        });
        let mut at = 0_u32;
        let mut segments = body.split('/').peekable();
        while let Some(segment) = segments.next() {
            if !whole && segments.peek().is_none() {
                globs.entry(at).or_default().push((segment.into(), rule));
                return;
            }
            at = self.child(at, segment);
        }
        if let Some(node) = self.segments.get_mut(at as usize) {
            node.end = Some(rule);
        }
    }

    fn child(&mut self, at: u32, segment: &str) -> u32 {
        let next = self.segments.len() as u32;
        let Some(node) = self.segments.get_mut(at as usize) else { return at };
        let found = if segment == "+" {
            *node.plus.get_or_insert(next)
        } else {
            match node.literal.binary_search_by(|(known, _)| known.as_ref().cmp(segment)) {
                Ok(index) => node.literal.get(index).map_or(next, |(_, child)| *child),
                Err(index) => {
                    node.literal.insert(index, (segment.into(), next));
                    next
                }
            }
        };
        if found == next {
            self.segments.push(Node::default());
        }
        found
    }

    /// The winning rule. `path` has no leading slash; for a list or scan a path with a final slash falls back to the one
    /// without.
    pub(crate) fn find(&self, path: &str, ends_in_slash: bool) -> Option<RuleId> {
        let bare = if ends_in_slash { path.strip_suffix('/') } else { None };
        self.exact(path).or_else(|| self.exact(bare?)).or_else(|| self.widest(path)).or_else(|| self.widest(bare?))
    }

    fn exact(&self, path: &str) -> Option<RuleId> {
        let at = self.exact.binary_search_by(|(known, _)| known.as_ref().cmp(path)).ok()?;
        self.exact.get(at).map(|(_, rule)| *rule)
    }

    /// The best of the longest prefix and all matching patterns with `+`.
    fn widest(&self, path: &str) -> Option<RuleId> {
        let prefix = self.prefixes.longest(path);
        if self.ranks.is_empty() {
            return prefix.map(|(_, rule)| rule);
        }
        let mut best: Option<(&Rank, RuleId)> = None;
        // Offsets into the path; none once its last segment has been used up.
        let mut open: Vec<(u32, Option<usize>)> = vec![(0, Some(0))];
        while let Some((node, rest)) = open.pop() {
            let Some(node) = self.segments.get(node as usize) else { continue };
            let Some(start) = rest else {
                self.consider(node.end, &mut best);
                continue;
            };
            let remaining = path.get(start..).unwrap_or_default();
            let (segment, next) = match remaining.find('/') {
                Some(length) => (remaining.get(..length).unwrap_or_default(), Some(start + length + 1)),
                None => (remaining, None),
            };
            self.consider(node.globs.longest(segment).map(|(_, rule)| rule), &mut best);
            if let Ok(index) = node.literal.binary_search_by(|(known, _)| known.as_ref().cmp(segment)) {
                open.extend(node.literal.get(index).map(|(_, child)| (*child, next)));
            }
            open.extend(node.plus.map(|child| (child, next)));
        }
        match (prefix, best) {
            (Some((body, rule)), Some((rank, other))) => match beats(body, rank) {
                Ordering::Greater => Some(rule),
                _ => Some(other),
            },
            (prefix, best) => prefix.map(|(_, rule)| rule).or(best.map(|(_, rule)| rule)),
        }
    }

    fn consider<'m>(&'m self, rule: Option<RuleId>, best: &mut Option<(&'m Rank, RuleId)>) {
        let Some(rule) = rule else { return };
        let Some(rank) = self.ranks.get(rule.saturating_sub(self.first_rank) as usize) else { return };
        if best.is_none_or(|(known, _)| rank > known) {
            *best = Some((rank, rule));
        }
    }

    /// Rules that could decide about a path at or below `mount`, which ends in `/`.
    pub(crate) fn below<'m>(&'m self, mount: &'m str) -> impl Iterator<Item = RuleId> + 'm {
        let starting = |list: &'m [(Box<str>, RuleId)]| {
            let from = list.partition_point(|(known, _)| known.as_ref() < mount);
            let rest = list.get(from..).unwrap_or_default();
            rest.iter().take_while(move |(known, _)| known.starts_with(mount)).map(|(_, rule)| *rule)
        };
        let wild = (self.first_rank..)
            .zip(&self.ranks)
            .filter(move |(_, rank)| rank.reaches_below(mount))
            .map(|(rule, _)| rule);
        starting(&self.exact).chain(starting(&self.prefixes.sorted)).chain(wild)
    }
}

/// How a prefix rule stands against a rule with `+`.
fn beats(prefix: &str, rank: &Rank) -> Ordering {
    let mine = (prefix.len(), false, Reverse(0), prefix.len(), prefix);
    mine.cmp(&(rank.first_wildcard, rank.whole, rank.pluses, rank.length, rank.body.as_ref()))
}

impl Rank {
    fn reaches_below(&self, mount: &str) -> bool {
        let mut segments = self.body.split('/').peekable();
        for part in mount.strip_suffix('/').unwrap_or(mount).split('/') {
            let Some(segment) = segments.next() else { return false };
            if segment == "+" || segment == part {
                continue;
            }
            return !self.whole && segments.peek().is_none() && part.starts_with(segment);
        }
        true
    }
}

/// Prefixes, sorted, each with a link to the longest other one that it starts with.
#[derive(Debug, Default)]
struct Prefixes {
    sorted: Vec<(Box<str>, RuleId)>,
    parents: Vec<Option<u32>>,
}

impl Prefixes {
    fn new(sorted: Vec<(Box<str>, RuleId)>) -> Self {
        let mut parents = Vec::with_capacity(sorted.len());
        let mut open: Vec<u32> = Vec::new();
        for (index, (prefix, _)) in sorted.iter().enumerate() {
            while let Some(last) = open.last() {
                match sorted.get(*last as usize) {
                    Some((shorter, _)) if prefix.starts_with(shorter.as_ref()) => break,
                    _ => open.pop(),
                };
            }
            parents.push(open.last().copied());
            open.push(index as u32);
        }
        Self { sorted, parents }
    }

    fn longest(&self, text: &str) -> Option<(&str, RuleId)> {
        // Whatever lies between the longest prefix and the text in the order starts with that prefix too: so it is the
        // text's lower neighbour or one of that one's parents.
        let mut at = self.sorted.partition_point(|(prefix, _)| prefix.as_ref() <= text).checked_sub(1)?;
        let (neighbour, _) = self.sorted.get(at)?;
        let common = neighbour.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
        loop {
            let (prefix, rule) = self.sorted.get(at)?;
            if prefix.len() <= common {
                return Some((prefix, *rule));
            }
            at = (*self.parents.get(at)?)? as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_is_found_through_its_neighbour() {
        let sorted: Vec<(Box<str>, RuleId)> =
            ["", "a", "a/b", "a/b/c", "a/bz", "b"].iter().zip(0..).map(|(text, id)| ((*text).into(), id)).collect();
        let prefixes = Prefixes::new(sorted);
        for (text, expected) in [
            ("a/b/d", Some(2)),
            ("a/bzz", Some(4)),
            ("a/by", Some(2)),
            ("c", Some(0)),
            ("a/b/c", Some(3)),
            ("", Some(0)),
        ] {
            assert_eq!(prefixes.longest(text).map(|(_, rule)| rule), expected, "{text}");
        }
    }
}
