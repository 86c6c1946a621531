//! Documents keep up with the tree: every command in a `sh` block is one that the demo, the tests or a make target runs, and
//! every relative link leads somewhere.

use std::{fs, path::Path};

use crate::{error::Error, files};

/// What runs commands. A document's command must begin like one that stands here.
const RUNNERS: [&str; 4] = ["host/xtask/demo.sh", "host/xtask/steps.sh", ".ci/run", "Makefile"];

/// Looks at every document of ours.
pub(super) fn check(root: &Path) -> Result<Vec<String>, Error> {
    let mut runners = String::new();
    for runner in RUNNERS {
        let path = root.join(runner);
        runners.push_str(&fs::read_to_string(&path).map_err(Error::io("read", &path))?);
    }
    let mut documents = files::beneath(&root.join("host/docs"), &[])?;
    documents.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)));
    let mut wrong = Vec::new();
    for path in documents {
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let unknown = commands(&text).into_iter().filter(|(_, command)| !is_run(command, &runners));
        wrong.extend(unknown.map(|(line, command)| format!("{name}:{line}: nothing runs `{command}`")));
        let folder = path.parent().unwrap_or(root);
        let dead = links(&text).into_iter().filter(|(_, link)| !folder.join(link).exists());
        wrong.extend(dead.map(|(line, link)| format!("{name}:{line}: there is no `{link}`")));
    }
    Ok(wrong)
}

/// The beginnings of commands in `sh` blocks, with their lines.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            let begin = beginning(line);
            if !begin.is_empty() && begin != "export" {
                found.push((index + 1, begin));
            }
        }
    }
    found
}

/// The program and the words that say what it is to do: up to the first flag, path, setting or comment.
fn beginning(line: &str) -> String {
    let is_word =
        |word: &&str| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-') && !word.starts_with('-');
    // A mount's or a module's name may stand third already: two words tell a command from another, three where there are groups.
    let count = if line.starts_with("leasehold module") || line.starts_with("cargo xtask") { 3 } else { 2 };
    let words: Vec<&str> = line.split_whitespace().take_while(is_word).take(count).collect();
    if words.is_empty() { line.split_whitespace().next().unwrap_or_default().to_owned() } else { words.join(" ") }
}

fn is_run(command: &str, runners: &str) -> bool {
    match command.strip_prefix("make ") {
        Some(target) => runners.lines().any(|line| line.starts_with(&format!("{target}:"))),
        None => runners.contains(command),
    }
}

/// Targets of relative links, without what comes behind `#`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for part in line.split("](").skip(1) {
            let link = part.split([')', '#']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") {
                found.push((index + 1, link.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_nothing_runs_is_found() {
        let text = "```sh\nexport A=b\nleasehold module push freeze a.wasm\nleasehold frobnicate -x\nmake demo  # walks\n```\n```console\nnot run\n```";
        let runners = "run leasehold module push change-freeze x\ndemo: ## walk";
        let unknown: Vec<_> = commands(text).into_iter().filter(|(_, command)| !is_run(command, runners)).collect();
        assert_eq!(unknown, [(4, "leasehold frobnicate".to_owned())]);
    }

    #[test]
    fn links_are_taken_without_their_anchors() {
        let text = "[a](b.md#c) and [d](https://e.f/g) and [h](#i)\n[j](k/l.md)";
        assert_eq!(links(text), [(1, "b.md".to_owned()), (2, "k/l.md".to_owned())]);
    }
}
