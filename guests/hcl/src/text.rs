//! Offsets to lines and columns, and quoting as Vault's error texts do it.

use std::fmt::Write as _;

/// 1-based; the column counts bytes of UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// The line starts of one text.
#[derive(Debug)]
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<u32>,
}

impl<'a> Lines<'a> {
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(at, _)| at as u32 + 1)).collect();
        Self { text, starts }
    }

    /// An offset behind the end stands on the last line: HCL's scanner counts each look beyond the end as a column.
    #[must_use]
    pub fn position(&self, at: u32) -> Position {
        let (line, start) = self.line(at);
        Position { line, column: at - start + 1 }
    }

    /// The same as `line:column`, the column counted in characters as HCL's error texts do.
    #[must_use]
    pub fn spoken(&self, at: u32) -> String {
        let (line, column) = self.characters(at);
        format!("{line}:{column}")
    }

    /// Line and column, the column counted in characters.
    #[must_use]
    pub fn characters(&self, at: u32) -> (u32, usize) {
        let (line, start) = self.line(at);
        let end = (at as usize).min(self.text.len());
        let beyond = at as usize - end;
        let before = self.text.get(start as usize..end).map_or(0, |part| part.chars().count());
        (line, before + beyond + 1)
    }

    fn line(&self, at: u32) -> (u32, u32) {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        (line as u32, start)
    }
}

/// A string in double quotes, escaped as Go's `%q` does for everything that can stand in a policy.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if u32::from(control) < 0x20 || control == '\x7f' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_bytes_for_machines_and_characters_in_messages() {
        let lines = Lines::of("a\nåb");
        assert_eq!(lines.position(4), Position { line: 2, column: 3 });
        assert_eq!(lines.spoken(4), "2:2");
        assert_eq!(lines.spoken(7), "2:5");
    }
}
