//! The document about the classes: it names every test of this chapter, no test that does not exist, and every difference.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "host/docs/vulnerability-classes.md";
/// Of them, those that this chapter or others have.
const AT_LEAST: usize = 60;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tests of a file.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]").skip(1).filter_map(|behind| {
        let name = behind.split_once("fn ")?.1;
        name.split_once('(').map(|(name, _)| name)
    })
}

/// `cve::paths::a_name`, of every file of this chapter but this one.
fn of_this_chapter() -> BTreeSet<String> {
    let folder = root().join("tests/all/cve");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let class = entry.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !["mod", "table"].contains(&class.as_str()) {
            found.extend(tests_of(&read(&entry.path())).map(|name| format!("cve::{class}::{name}")));
        }
    }
    found
}

/// What stands between backticks and names a test: `chapter::fact`, `cve::class::fact`.
fn cited(document: &str) -> BTreeSet<String> {
    let spans =
        document.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.filter(|span| span.contains("::") && !span.contains(' ')).map(str::to_owned).collect()
}

#[test]
fn the_document_names_every_test_and_none_that_does_not_exist() {
    let document = read(&root().join(DOCUMENT));
    let (own, cited) = (of_this_chapter(), cited(&document));
    let missing: Vec<_> = own.difference(&cited).collect();
    assert!(missing.is_empty(), "{DOCUMENT} does not name {missing:#?}");
    for name in &cited {
        if own.contains(name) {
            continue;
        }
        let (chapter, fact) = name.split_once("::").unwrap_or_default();
        let file = root().join(format!("tests/all/{chapter}.rs"));
        assert!(tests_of(&read(&file)).any(|known| known == fact), "{DOCUMENT} names `{name}`, which does not exist");
    }
    assert!(cited.len() >= AT_LEAST, "{DOCUMENT} names {} tests", cited.len());
}

/// The words of each `Differs` stand beside the name of its test.
#[test]
fn the_document_says_what_a_real_openbao_does_instead() {
    let document = read(&root().join(DOCUMENT));
    for entry in fs::read_dir(root().join("tests/all/cve")).unwrap().flatten() {
        let text = read(&entry.path());
        for test in text.split("#[test]").skip(1) {
            let Some((_, behind)) = test.split_once("Differs(\"") else { continue };
            let name = tests_of(&format!("#[test]{test}")).next().unwrap_or_default().to_owned();
            let words = behind.split('"').next().unwrap_or_default();
            let is_told = document.lines().any(|line| line.contains(&format!("{name}`")) && line.contains(words));
            assert!(is_told, "{DOCUMENT} does not say of `{name}`: {words}");
        }
    }
}
