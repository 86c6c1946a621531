//! `KEY=VALUE` words: what `write`, `patch`, `login` and the like take.
//!
//! `key=@file` reads a file, `key=-` standard input, `@file.json` and `-` a whole JSON object, `key=\@text` a text that
//! begins with an at sign. The same key twice makes a list. What is read is bounded by [`INPUT_MAX`].

use std::io::Read;

use serde_json::{Map, Value};

use crate::environment::Environment;
use crate::failure::Failure;

/// No request of more than 32 MiB is taken by a server, so nothing larger is read.
pub(crate) const INPUT_MAX: u64 = 33 << 20;

/// Gathers the words into one object. `None` when there are no words: the request then carries `null`.
///
/// # Errors
/// [`Failure::Local`] names the word (its key only where a value could be secret) and what is wrong with it.
pub(crate) fn gather(
    env: &mut Environment,
    words: &[String],
    no_stdin: bool,
) -> Result<Option<Map<String, Value>>, Problem> {
    let mut gathered = None;
    let mut stdin_read = false;
    for word in words {
        let object = gathered.get_or_insert_with(Map::new);
        read_word(env, word, object, &mut stdin_read, no_stdin).map_err(|why| Problem { word: shown(word), why })?;
    }
    Ok(gathered)
}

/// What is wrong with one word.
#[derive(Debug, thiserror::Error)]
#[error("invalid key/value pair \"{word}\": {why}")]
pub(crate) struct Problem {
    word: String,
    why: String,
}

impl Problem {
    pub(crate) fn local(self, what: &str) -> Failure {
        Failure::Local(format!("{what}: {self}"))
    }
}

/// A word without a value that might be secret: file names stay.
fn shown(word: &str) -> String {
    match word.split_once('=') {
        Some((_, value)) if value.starts_with('@') || value == "-" => word.to_owned(),
        Some((key, _)) => format!("{key}=…"),
        None => word.to_owned(),
    }
}

fn read_word(
    env: &mut Environment,
    word: &str,
    object: &mut Map<String, Value>,
    stdin_read: &mut bool,
    no_stdin: bool,
) -> Result<(), String> {
    if word == "-" {
        let text = read_stdin(env, stdin_read, no_stdin)?;
        return merge(object, &text);
    }
    if let Some(path) = word.strip_prefix('@') {
        let text = read_file(env, path)?;
        return merge(object, &text);
    }
    let Some((key, value)) = word.split_once('=') else {
        return Err("format must be key=value".to_owned());
    };
    let value = if let Some(path) = value.strip_prefix('@') {
        utf8(read_file(env, path)?)?
    } else if let Some(text) = value.strip_prefix("\\@") {
        format!("@{text}")
    } else if value == "-" {
        utf8(read_stdin(env, stdin_read, no_stdin)?)?
    } else {
        value.to_owned()
    };
    insert(object, key.to_owned(), Value::String(value));
    Ok(())
}

fn merge(object: &mut Map<String, Value>, text: &[u8]) -> Result<(), String> {
    let read: Map<String, Value> = serde_json::from_slice(text).map_err(|error| {
        format!("not a JSON object, line {} column {}: {}", error.line(), error.column(), kind(&error))
    })?;
    for (key, value) in read {
        insert(object, key, value);
    }
    Ok(())
}

/// The kind of a JSON error, without the text of the document, which may be secret.
fn kind(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "it is something else",
        _ => "syntax error",
    }
}

fn insert(object: &mut Map<String, Value>, key: String, value: Value) {
    match object.remove(&key) {
        None => {
            object.insert(key, value);
        }
        Some(Value::Array(mut list)) => {
            list.push(value);
            object.insert(key, Value::Array(list));
        }
        Some(first) => {
            object.insert(key, Value::Array(vec![first, value]));
        }
    }
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    // JSON carries text only; Vault puts the replacement character where a file is not text.
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn read_stdin(env: &mut Environment, stdin_read: &mut bool, no_stdin: bool) -> Result<Vec<u8>, String> {
    if *stdin_read {
        return Err("stdin already consumed".to_owned());
    }
    *stdin_read = true;
    if no_stdin {
        return Ok(Vec::new());
    }
    read_bounded(&mut env.stdin).map_err(|error| format!("error reading stdin: {error}"))
}

fn read_file(env: &Environment, path: &str) -> Result<Vec<u8>, String> {
    let full = env.expand_home(path);
    std::fs::File::open(&full)
        .and_then(|mut file| read_bounded(&mut file))
        .map_err(|error| format!("error reading file: {}", opening(path, &error)))
}

/// Reads everything up to [`INPUT_MAX`]; more is an error, not a truncated value.
pub(crate) fn read_bounded(from: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(INPUT_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > INPUT_MAX {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "more than 33 MiB"));
    }
    Ok(bytes)
}

/// `open PATH: no such file or directory`, as Vault words it.
pub(crate) fn opening(path: &str, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    format!("open {path}: {why}")
}

/// The same words as texts: numbers and switches in their JSON spelling. For query strings and login options.
pub(crate) fn as_texts(object: Map<String, Value>) -> Vec<(String, String)> {
    object
        .into_iter()
        .flat_map(|(key, value)| match value {
            Value::Array(list) => list.into_iter().map(|one| (key.clone(), text_of(one))).collect::<Vec<_>>(),
            one => vec![(key, text_of(one))],
        })
        .collect()
}

fn text_of(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        Value::Bool(true) => "1".to_owned(),
        Value::Bool(false) => "0".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::quiet;

    #[test]
    fn an_error_names_the_key_and_never_the_value() {
        let mut env = quiet(&[]);
        let refused = gather(&mut env, &["password=hunter2".into(), "hunter3=".into(), "bare".into()], false);
        let said = refused.unwrap_err().to_string();

        assert_eq!(said, "invalid key/value pair \"bare\": format must be key=value");
        assert_eq!(shown("password=hunter2"), "password=…");
    }

    #[test]
    fn a_broken_document_is_not_quoted() {
        let mut env = quiet(&[]);
        env.stdin = Box::new(&b"{\"password\": hunter2}"[..]);
        let said = gather(&mut env, &["-".into()], false).unwrap_err().to_string();

        assert!(said.contains("line 1 column") && !said.contains("hunter2"), "{said}");
    }

    #[test]
    fn standard_input_is_read_once() {
        let mut env = quiet(&[]);
        env.stdin = Box::new(&b"x"[..]);
        let said = gather(&mut env, &["a=-".into(), "b=-".into()], false).unwrap_err().to_string();

        assert!(said.ends_with("stdin already consumed"), "{said}");
    }

    proptest::proptest! {
        #[test]
        fn any_words_are_gathered(pairs in proptest::collection::vec(("[ab=@\\-]{0,3}", "[a=@\\\\é-]{0,4}"), 0..6), stdin in "[{}\":a, ]{0,12}") {
            crate::properties::any_words_are_gathered(&pairs, stdin.as_bytes());
        }
    }
}
