//! Words that may stand in one place only. Comments may name anything, and tests may read the clock.

use std::{fs, path::Path};

use crate::{error::Error, files};

/// A word of code, and where it may stand: a file or folder beneath the root.
const WORDS: [(&str, &str); 4] = [
    ("wasmtime", "host/sandbox"),
    ("hyper", "host/http"),
    ("SystemTime::now", "host/server/src/clock.rs"),
    // How long an answer took, for a metric. Waiting goes by tokio's clock, which a test can stop.
    ("std::time::Instant", "host/http/src"),
];

/// Folders that do not ship, or whose work is with real processes and real time.
const SKIPPED: [&str; 6] = ["tests", "benches", "examples", "devpg", "xtask", "target"];

/// Looks at the host's Rust sources.
pub(super) fn check(root: &Path) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    for path in files::beneath(&root.join("host"), &SKIPPED)? {
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        wrong.extend(in_file(name, &text));
    }
    Ok(wrong)
}

fn in_file(name: &Path, text: &str) -> Vec<String> {
    let is_test_file =
        name.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_test"));
    if is_test_file {
        return Vec::new();
    }
    let lines: Vec<_> = text.lines().map(str::trim_start).collect();
    // By our style a file's test module is its end.
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    let shipped = lines.get(..tests.unwrap_or(lines.len())).unwrap_or_default();
    let mut wrong = Vec::new();
    for (index, line) in shipped.iter().enumerate().filter(|(_, line)| !line.starts_with("//")) {
        for (word, home) in WORDS {
            if !name.starts_with(home) && has_word(line, word) {
                wrong.push(format!("{}:{}: `{word}` may stand in `{home}` only", name.display(), index + 1));
            }
        }
    }
    wrong
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, text: &str) -> usize {
        in_file(Path::new(name), text).len()
    }

    #[test]
    fn a_technology_stays_in_its_room() {
        assert_eq!(wrong("host/core/src/lease.rs", "use wasmtime::Engine;"), 1);
        assert_eq!(wrong("host/sandbox/src/lib.rs", "use wasmtime::Engine;"), 0);
        assert_eq!(wrong("host/core/src/lib.rs", "//! Must not know: hyper, wasmtime."), 0);
        assert_eq!(wrong("host/server/src/main.rs", "fn whyper() {}"), 0);
    }

    #[test]
    fn time_is_read_in_one_file_and_in_tests() {
        assert_eq!(wrong("host/core/src/lease.rs", "let now = std::time::Instant::now();"), 1);
        assert_eq!(wrong("host/server/src/clock.rs", "SystemTime::now()"), 0);
        assert_eq!(
            wrong("host/core/src/lease.rs", "fn x() {}\n#[cfg(test)]\nmod tests {\n    std::time::Instant::now();\n}"),
            0
        );
    }
}
