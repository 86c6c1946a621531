//! A round in words: what was asked, what was done to whom, and what contradicts the rules.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::checker::{self, Rule, Violation};
use super::history::{History, Outcome};

/// Tables of a round, in Markdown.
pub fn report(history: &History, violations: &[Violation]) -> String {
    let mut text = String::new();
    let mut ops: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for op in &history.ops {
        let counts = ops.entry(op.what.kind()).or_default();
        match op.outcome {
            Outcome::Accepted => counts[0] += 1,
            Outcome::Refused(_) => counts[1] += 1,
            Outcome::Unknown => counts[2] += 1,
        }
    }
    text.push_str("| operation | accepted | refused | unknown |\n|---|---|---|---|\n");
    for (kind, [accepted, refused, unknown]) in &ops {
        let _ = writeln!(text, "| {kind} | {accepted} | {refused} | {unknown} |");
    }
    let mut faults: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    for span in &history.spans {
        let entry = faults.entry(span.fault.kind()).or_default();
        entry.0 += 1;
        entry.1 += (span.end - span.begin).as_secs_f64();
    }
    text.push_str("\n| fault | times | seconds until it was over |\n|---|---|---|\n");
    for (kind, (count, seconds)) in &faults {
        let _ = writeln!(text, "| {kind} | {count} | {seconds:.0} |");
    }
    text.push_str("\n| rule | broken |\n|---|---|\n");
    for rule in Rule::ALL {
        let count = violations.iter().filter(|violation| violation.rule == rule).count();
        let _ = writeln!(text, "| {} | {count} |", rule.text());
    }
    let late = checker::late(history);
    let longest = late.iter().map(|late| late.by).max().unwrap_or_default();
    let _ = writeln!(
        text,
        "\n{} roles and {} rows were seen in {} and {} looks; the latest role went {:.1} s after its end.",
        history.roles.len(),
        history.rows.len(),
        history.role_looks.len(),
        history.row_looks.len(),
        longest.as_secs_f64()
    );
    for what in &history.unhealed {
        let _ = writeln!(text, "- {what}");
    }
    for violation in violations.iter().take(40) {
        let _ = writeln!(text, "- {violation}");
    }
    text
}

/// How many operations of this kind were accepted.
pub fn accepted(history: &History, kind: &str) -> usize {
    history.ops.iter().filter(|op| op.outcome == Outcome::Accepted && op.what.kind() == kind).count()
}
