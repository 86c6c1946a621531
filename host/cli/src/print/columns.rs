//! Columns padded with spaces, four between them, nothing behind the last: Vault's tables, byte for byte.

const BETWEEN: &str = "    ";
const EMPTY: &str = "n/a";

/// A table with a head and a line of dashes.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let dashes = head.iter().map(|name| "-".repeat(name.len())).collect();
    let mut lines = vec![head.iter().map(|&name| name.to_owned()).collect(), dashes];
    lines.extend_from_slice(rows);
    columns(&lines)
}

/// Columns alone.
pub(crate) fn columns(lines: &[Vec<String>]) -> String {
    let cells: Vec<Vec<&str>> = lines.iter().map(|line| line.iter().map(|cell| shown(cell)).collect()).collect();
    let count = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| cells.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |cells: &Vec<&str>| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            text.push_str(cell);
            if at + 1 < cells.len() {
                text.push_str(&" ".repeat(width.saturating_sub(cell.chars().count())));
                text.push_str(BETWEEN);
            }
        }
        text
    };
    cells.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn shown(cell: &str) -> &str {
    match cell.trim() {
        "" => EMPTY,
        cell => cell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_as_not_available_and_no_line_ends_in_spaces() {
        let rows = vec![vec!["a".to_owned(), String::new()], vec!["long key".to_owned(), "v".to_owned()]];

        assert_eq!(
            table(&["Key", "Value"], &rows),
            "Key         Value\n---         -----\na           n/a\nlong key    v"
        );
    }
}
