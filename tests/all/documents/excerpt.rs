//! What a document shows of a script's answers must be what the script says.

use super::blocks::Block;

/// The words of the demo that show a chapter, or a check that holds.
const SAYS: [&str; 4] = ["chapter ", "check ", "eventually ", "say "];

/// Lines that the script cannot have printed.
pub(super) fn strange_lines(block: &Block, script: &str) -> Vec<String> {
    let texts: Vec<&str> = script
        .lines()
        .filter_map(|line| SAYS.iter().find_map(|word| line.trim_start().strip_prefix(word)))
        .filter_map(|rest| rest.strip_prefix('"')?.split("\" ").next())
        .map(|text| text.trim_end_matches('"'))
        .collect();
    let checks =
        script.lines().filter(|line| line.starts_with("check \"") || line.starts_with("eventually \"")).count();
    let mut strange = Vec::new();
    for line in &block.lines {
        let said = line.strip_prefix("== ").or_else(|| line.trim_start().strip_prefix("ok  "));
        let said = said.or_else(|| line.strip_prefix("# "));
        let right = match (said, line.split_once("$ ")) {
            (Some(said), _) => {
                let counted = !said.ends_with(" checks hold") || said.contains(&format!(" {checks} "));
                counted && texts.iter().any(|text| may_print(text, said))
            }
            (None, Some((who, command))) if who.chars().all(char::is_alphabetic) => {
                script.contains(&format!("run {}", beginning(command)))
            }
            _ => true,
        };
        if !right {
            strange.push(line.clone());
        }
    }
    strange
}

/// Commands that are answered by a table, with its rows.
pub(super) fn tables(block: &Block) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in &block.lines {
        match (line.split_once("$ "), line.strip_prefix("    "), found.last_mut()) {
            (Some((_, command)), _, _) => found.push((command.to_owned(), Vec::new())),
            (None, Some(row), Some((_, rows))) if !row.starts_with("ok  ") => rows.push(row.to_owned()),
            _ => {}
        }
    }
    found.retain(|(_, rows)| rows.first().is_some_and(|row| row.starts_with("Key ")));
    found
}

/// The words that say what is done: up to the first that differs from run to run.
fn beginning(command: &str) -> String {
    let is_fixed = |word: &&str| {
        !word.starts_with(['"', '\'']) && word.split('/').all(|part| part.len() < 20 && !part.contains("://"))
    };
    command.split_whitespace().take_while(is_fixed).collect::<Vec<_>>().join(" ")
}

/// Whether a text of the shell, its variables filled in, can read so.
fn may_print(text: &str, said: &str) -> bool {
    let mut rest = said;
    let mut pieces = fixed_pieces(text).into_iter();
    match pieces.next().map(|first| rest.strip_prefix(first.as_str())) {
        Some(Some(behind)) => rest = behind,
        _ => return false,
    }
    let mut last = String::new();
    for piece in pieces {
        match rest.find(&piece) {
            Some(at) => rest = rest.get(at + piece.len()..).unwrap_or_default(),
            None => return false,
        }
        last = piece;
    }
    rest.is_empty() || (last.is_empty() && text.contains('$'))
}

/// What stands between variables; empty at an end that is one.
fn fixed_pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '$' {
            while letters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_').is_some() {}
            pieces.push(String::new());
        } else if let Some(piece) = pieces.last_mut() {
            piece.push(letter);
        }
    }
    pieces
}

#[test]
fn a_text_with_variables_is_recognised() {
    assert!(may_print("a session of $user is open", "a session of v-token is open"));
    assert!(may_print("after $past s, not before its time", "after 10 s, not before its time"));
    assert!(may_print("granted to $user", "granted to v-token"));
    assert!(may_print("refused", "refused"));
    assert!(!may_print("refused", "refused twice"));
    assert!(!may_print("a session of $user is open", "a session of v-token is closed"));
}
