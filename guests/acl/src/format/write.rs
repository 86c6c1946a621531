//! Items into text: two spaces for each level, equals signs in line, one empty line around what takes several.

use super::layout::{Body, Comment, Element, Item, Value};

pub(super) fn body(body: &Body<'_>) -> String {
    let mut text = String::new();
    write_body(&mut text, body, 0);
    text
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

fn write_body(text: &mut String, body: &Body<'_>, depth: usize) {
    for (at, run) in runs(&body.items).into_iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        write_run(text, run, depth);
    }
    if !body.tail.is_empty() {
        if !body.items.is_empty() {
            text.push('\n');
        }
        write_comments(text, &body.tail, depth);
    }
}

/// Splits items into those that stand line under line, and those that stand alone.
fn runs<'i, 'a>(items: &'i [Item<'a>]) -> Vec<&'i [Item<'a>]> {
    let mut found = Vec::new();
    let mut from = 0;
    for at in 1..=items.len() {
        let goes_on = items.get(at - 1..=at).is_some_and(|pair| match pair {
            [one, next] => {
                fits_a_line(one) && fits_a_line(next) && next.lead.is_empty() && next.line <= one.last_line + 1
            }
            _ => false,
        });
        if !goes_on {
            found.extend(items.get(from..at).filter(|run| !run.is_empty()));
            from = at;
        }
    }
    found
}

fn fits_a_line(item: &Item<'_>) -> bool {
    match &item.value {
        Value::Literal(_) => true,
        value @ Value::List { .. } => is_short(value),
        Value::Heredoc(_) | Value::Object(_) => false,
    }
}

/// A list that can stand on one line, as it did: no comments in it, nothing in it that takes lines.
fn is_short(value: &Value<'_>) -> bool {
    match value {
        Value::Literal(_) => true,
        Value::List { elements, tail, on_one_line } => {
            let bare =
                |element: &Element<'_>| element.lead.is_empty() && element.trail.is_none() && is_short(&element.value);
            (*on_one_line || elements.is_empty()) && tail.is_empty() && elements.iter().all(bare)
        }
        Value::Heredoc(_) => false,
        Value::Object(body) => body.items.is_empty() && body.tail.is_empty(),
    }
}

fn write_run(text: &mut String, run: &[Item<'_>], depth: usize) {
    let key_of = |item: &Item<'_>| item.keys.join(" ");
    let shown = |item: &Item<'_>| {
        let mut value = String::new();
        write_value(&mut value, &item.value, depth);
        value
    };
    let aligned = run.len() > 1;
    let key_width = run.iter().map(|item| key_of(item).chars().count()).max().unwrap_or(0);
    let value_width = run.iter().map(|item| shown(item).chars().count()).max().unwrap_or(0);
    for item in run {
        write_comments(text, &item.lead, depth);
        let (key, value) = (key_of(item), shown(item));
        text.push_str(&indent(depth));
        text.push_str(&key);
        if aligned {
            text.push_str(&" ".repeat(key_width - key.chars().count()));
        }
        text.push_str(if item.assigned { " = " } else { " " });
        text.push_str(&value);
        if let Some(trail) = &item.trail {
            if aligned {
                text.push_str(&" ".repeat(value_width - value.chars().count()));
            }
            text.push(' ');
            text.push_str(trail);
        }
        text.push('\n');
    }
}

fn write_comments(text: &mut String, comments: &[Comment<'_>], depth: usize) {
    for (at, comment) in comments.iter().enumerate() {
        text.push_str(&indent(depth));
        text.push_str(comment.text);
        text.push('\n');
        let is_last_of_all = at + 1 == comments.len();
        if comment.gap_after && !is_last_of_all {
            text.push('\n');
        }
    }
}

fn write_value(text: &mut String, value: &Value<'_>, depth: usize) {
    match value {
        Value::Literal(literal) | Value::Heredoc(literal) => text.push_str(literal),
        Value::Object(body) if body.items.is_empty() && body.tail.is_empty() => text.push_str("{}"),
        Value::Object(body) => {
            text.push_str("{\n");
            write_body(text, body, depth + 1);
            text.push_str(&indent(depth));
            text.push('}');
        }
        short @ Value::List { elements, .. } if is_short(short) => {
            text.push('[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    text.push_str(", ");
                }
                write_value(text, &element.value, depth);
            }
            text.push(']');
        }
        Value::List { elements, tail, .. } => {
            text.push_str("[\n");
            for element in elements {
                write_comments(text, &element.lead, depth + 1);
                text.push_str(&indent(depth + 1));
                write_value(text, &element.value, depth + 1);
                text.push_str(if matches!(element.value, Value::Heredoc(_)) { "\n," } else { "," });
                if let Some(trail) = &element.trail {
                    text.push(' ');
                    text.push_str(trail);
                }
                text.push('\n');
            }
            write_comments(text, tail, depth + 1);
            text.push_str(&indent(depth));
            text.push(']');
        }
    }
}
