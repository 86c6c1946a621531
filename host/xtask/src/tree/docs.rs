//! Every relative link of a document leads somewhere. What its commands do is a matter of `tests/all/documents`, which runs them.

use std::{fs, path::Path};

use crate::{error::Error, files};

const FOLDERS: [&str; 3] = ["host/docs", "examples", "guests"];
const AT_THE_TOP: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];

/// Looks at every document of ours.
pub(super) fn check(root: &Path) -> Result<Vec<String>, Error> {
    let mut documents: Vec<_> = AT_THE_TOP.map(|name| root.join(name)).into();
    for folder in FOLDERS {
        documents.extend(files::beneath(&root.join(folder), &["target"])?);
    }
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut wrong = Vec::new();
    for path in documents {
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let folder = path.parent().unwrap_or(root);
        let dead = links(&text).into_iter().filter(|(_, link)| !folder.join(link).exists());
        wrong.extend(dead.map(|(line, link)| format!("{name}:{line}: there is no `{link}`")));
    }
    Ok(wrong)
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
    fn links_are_taken_without_their_anchors() {
        let text = "[a](b.md#c) and [d](https://e.f/g) and [h](#i)\n[j](k/l.md)";
        assert_eq!(links(text), [(1, "b.md".to_owned()), (2, "k/l.md".to_owned())]);
    }
}
