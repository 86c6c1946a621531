//! Lines and columns out of byte offsets.

/// 1-based line and column (bytes of UTF-8) of byte `offset`; past the end counts as the end.
pub(crate) fn of(text: &str, offset: usize) -> (u32, u32) {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// The byte offset of a 1-based line and a 1-based column that counts characters, as the template engine gives them.
pub(crate) fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start = match line.checked_sub(2) {
        None => 0,
        Some(nth) => text.match_indices('\n').nth(nth).map_or(text.len(), |(at, _)| at + 1),
    };
    let rest = text.get(start..).unwrap_or("");
    start + rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_counts_bytes_and_a_line_starts_at_one() {
        assert_eq!(of("ab", 0), (1, 1));
        assert_eq!(of("é{{", 2), (1, 3));
        assert_eq!(of("a\nbc", 3), (2, 2));
        assert_eq!(of("a\n", 99), (2, 1));
    }

    #[test]
    fn the_engines_character_columns_become_byte_offsets() {
        assert_eq!(offset_of("é{{", 1, 2), 2);
        assert_eq!(offset_of("a\nbé{{", 2, 3), 5);
        assert_eq!(offset_of("a", 7, 7), 1);
    }
}
