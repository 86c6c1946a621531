//! Whose file it is, from its first page, before anything of it or beside it is changed.
//!
//! Read as bytes: SQLite itself would make files beside a database in WAL mode, even to read it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// `LHLD`: tells our files from other SQLite databases.
pub(super) const APPLICATION_ID: i32 = 0x4c48_4c44;

/// SQLite's header, and behind it the head of the first page's tree.
/// Source: <https://www.sqlite.org/fileformat.html>, 1.3 and 1.6.
const HEAD: usize = 108;
const MAGIC: &[u8] = b"SQLite format 3\0";
const APPLICATION_ID_AT: usize = 68;
const TREE_AT: usize = 100;
/// A page without pages beneath it.
const LEAF: u8 = 0x0d;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// Nothing there, or nothing in it yet.
    New,
    Ours,
    Foreign,
}

pub(super) fn recognise(path: &Path) -> io::Result<FileKind> {
    let about = match path.metadata() {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FileKind::New),
        Err(error) => return Err(error),
    };
    // Looked at before it is opened: a pipe would keep us waiting.
    if !about.is_file() {
        return Ok(FileKind::Foreign);
    }
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(whose(&head))
}

fn whose(head: &[u8]) -> FileKind {
    if head.is_empty() {
        return FileKind::New;
    }
    let number = |at: usize| head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
    match number(APPLICATION_ID_AT).filter(|_| head.starts_with(MAGIC)) {
        Some(APPLICATION_ID) => FileKind::Ours,
        // Ours looks so between its making and its first table.
        Some(0) if has_no_table(head) => FileKind::New,
        _ => FileKind::Foreign,
    }
}

fn has_no_table(head: &[u8]) -> bool {
    head.get(TREE_AT) == Some(&LEAF) && head.get(TREE_AT + 3..TREE_AT + 5) == Some(&[0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_ours_by_its_mark_and_new_without_tables() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        assert_eq!(recognise(&file).unwrap(), FileKind::New);
        for (text, found) in [
            ("", FileKind::New),
            ("pragma application_id = 7", FileKind::Foreign),
            ("pragma application_id = 0", FileKind::New),
            ("create table theirs (x)", FileKind::Foreign),
            ("pragma application_id = 1279806532", FileKind::Ours),
        ] {
            rusqlite::Connection::open(&file).unwrap().execute_batch(text).unwrap();
            assert_eq!(recognise(&file).unwrap(), found, "{text}");
        }
        assert_eq!(recognise(folder.path()).unwrap(), FileKind::Foreign);
    }
}
