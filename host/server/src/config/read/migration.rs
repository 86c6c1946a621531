//! The file of `operator migrate`: `storage_source` and `storage_destination`, as in Vault.

use super::super::tree;
use super::{Reader, Refused, Remark, Source, Store};

/// From where to where.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    pub(crate) source: Store,
    pub(crate) destination: Store,
    /// What was accepted and has no effect.
    pub(crate) warnings: Vec<Remark>,
}

const SOURCE: &str = "storage_source";
const DESTINATION: &str = "storage_destination";

/// # Errors
/// As [`super::read`].
pub(crate) fn read_migration(sources: &[Source]) -> Result<Migration, Refused> {
    let mut reader = Reader::at(sources);
    let (mut source, mut destination, mut is_whole) = (None, None, true);
    for file in sources {
        reader.file = file;
        match tree::parse(&file.text) {
            Ok(items) => {
                for item in &items {
                    match item.key.as_str() {
                        SOURCE => reader.end(item, SOURCE, &mut source),
                        DESTINATION => reader.end(item, DESTINATION, &mut destination),
                        "cluster_addr" => {
                            reader.warning(item.line, "`cluster_addr` has no effect: there is no cluster of Raft")
                        }
                        other => reader.unknown(item.line, other, &[SOURCE, DESTINATION], "block of a migration"),
                    }
                }
            }
            Err(error) => {
                is_whole = false;
                reader.problem(error.line, format!("not HCL or JSON: {}", error.what));
            }
        }
    }
    if is_whole && reader.problems.is_empty() {
        for (name, is_missing) in [(SOURCE, source.is_none()), (DESTINATION, destination.is_none())] {
            if is_missing {
                reader
                    .problem(1, format!("no `{name}`: add `{name} \"sqlite\" {{ path = \"…\" }}` or another storage"));
            }
        }
    }
    let Reader { problems, warnings, .. } = reader;
    match (source, destination) {
        (Some(source), Some(destination)) if problems.is_empty() => Ok(Migration { source, destination, warnings }),
        _ => Err(Refused { problems, warnings }),
    }
}

impl Reader<'_> {
    /// One of the two stores.
    fn end(&mut self, item: &tree::Item, name: &str, into: &mut Option<Store>) {
        for block in self.blocks(item, 1) {
            self.once(item, "");
            match self.kind(&block, "storage", "storage") {
                Some("inmem") => {
                    self.problem(block.line, "`inmem` ends with its process: nothing can be moved from or to it")
                }
                Some(kind) => *into = self.store_of(&block, kind, name),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Migration, Vec<String>> {
        let source = Source { name: "migrate.hcl".to_owned(), text: text.to_owned() };
        read_migration(&[source]).map_err(|refused| refused.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_file_names_both_ends_as_for_vault() {
        let found = read(
            "storage_source \"sqlite\" {\n  path = \"/a.db\"\n}\n\
             storage_destination \"postgresql\" {\n  connection_url = \"postgres://u:pw@h/d\"\n  table = \"t\"\n}\n\
             cluster_addr = \"https://127.0.0.1:8201\"\n",
        )
        .unwrap();
        assert_eq!(found.source, Store::Sqlite("/a.db".into()));
        assert_eq!(found.destination.shown(), "postgresql, tables that begin with `t`");
        assert!(!format!("{found:?}").contains("pw@"), "no password");
        assert_eq!(found.warnings.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let sqlite = "storage_source \"sqlite\" {\n  path = \"/a.db\"\n}\n";
        for (text, said) in [
            (String::new(), "migrate.hcl: line 1: no `storage_source`"),
            (sqlite.to_owned(), "migrate.hcl: line 1: no `storage_destination`"),
            (format!("{sqlite}{sqlite}"), "migrate.hcl: line 4: `storage_source` is said twice"),
            (format!("{sqlite}storage_destination \"inmem\" {{}}\n"), "line 4: `inmem` ends with its process"),
            (format!("{sqlite}storage_destination \"raft\" {{}}\n"), "line 4: `storage \"raft\"` is not supported"),
            (
                format!("{sqlite}storage_destination \"sqlite\" {{}}\n"),
                "line 4: `storage_destination \"sqlite\"` needs `path`",
            ),
            (
                format!("{sqlite}storage_destinatoin \"sqlite\" {{}}\n"),
                "line 4: unknown block of a migration `storage_destinatoin`: did you mean",
            ),
            (format!("{sqlite}listener \"tcp\" {{}}\n"), "line 4: unknown block of a migration `listener`"),
            ("storage_source {".to_owned(), "not HCL or JSON"),
        ] {
            let found = read(&text).unwrap_err().join("\n");
            assert!(found.contains(said), "{text}: {found}");
        }
    }
}
