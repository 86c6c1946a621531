//! Paragraphs at 78 columns, broken where the lines come out most even: as Vault's client breaks them.

/// The longest line.
pub(crate) const WIDTH: usize = 78;
/// What a line that is too long costs, against the square of the space left over on the others.
const TOO_LONG: u64 = 100_000;
/// A text of more words than this is not a message to be made pretty.
const WORDS_MAX: usize = 2_000;

pub(crate) fn wrapped(text: &str) -> String {
    wrapped_with_padding(text, 0)
}

pub(crate) fn wrapped_with_padding(text: &str, padding: usize) -> String {
    let words: Vec<&str> = text.trim().split(['\n', ' ']).collect();
    let pad = " ".repeat(padding);
    if words.len() > WORDS_MAX {
        return format!("{pad}{text}");
    }
    let lines = lines(&words, WIDTH.saturating_sub(padding));
    lines.iter().map(|line| format!("{pad}{}", line.join(" "))).collect::<Vec<_>>().join("\n")
}

/// Splits the words so that the sum of the squared rests of all lines but the last is smallest.
fn lines<'a>(words: &'a [&'a str], limit: usize) -> Vec<&'a [&'a str]> {
    let count = words.len();
    let mut cost = vec![u64::MAX; count + 1];
    let mut next = vec![count; count + 1];
    cost[count] = 0;
    for from in (0..count).rev() {
        let rest: usize = words[from..].iter().map(|word| word.len() + 1).sum::<usize>() - 1;
        if rest <= limit {
            cost[from] = 0;
            continue;
        }
        let mut length = 0;
        for to in from + 1..count {
            length += words[to - 1].len() + usize::from(to > from + 1);
            let left = u64::try_from(limit.abs_diff(length)).unwrap_or(u64::MAX);
            let penalty = if length > limit { TOO_LONG } else { 0 };
            let total = left.saturating_mul(left).saturating_add(penalty).saturating_add(cost[to]);
            if total < cost[from] {
                cost[from] = total;
                next[from] = to;
            }
        }
    }
    let mut found = Vec::new();
    let mut at = 0;
    while at < count {
        found.push(&words[at..next[at]]);
        at = next[at];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_even_rather_than_full() {
        let text = "* Password found in connection_url, use a templated url to enable root rotation and prevent read access to password information.";

        assert_eq!(
            wrapped_with_padding(text, 2),
            "  * Password found in connection_url, use a templated url to enable root\n  rotation and prevent read access to password information."
        );
    }

    #[test]
    fn a_word_longer_than_a_line_stays_whole() {
        let long = "x".repeat(200);

        assert_eq!(wrapped(&format!("a {long} b")).replace('\n', " "), format!("a {long} b"));
        assert_eq!(wrapped(""), "");
    }
}
