//! What holds for every command line, `key=value` word and length of time: asked by the tests with texts that are
//! likely to matter, by the fuzz targets with any.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;

use serde_json::Value;

use crate::duration::{Span, human_seconds};
use crate::environment::Environment;
use crate::{arguments, data};

fn quiet(stdin: &[u8]) -> Environment {
    Environment {
        variables: BTreeMap::new(),
        stdin: Box::new(io::Cursor::new(stdin.to_vec())),
        stdout: Box::new(io::sink()),
        stderr: Box::new(io::sink()),
        stdout_is_terminal: false,
        stderr_is_terminal: false,
    }
}

/// A command line in today's words stays as it is, what stands behind `--` always does, and clap takes or refuses it.
pub fn any_command_line_is_taken_or_refused(words: &[String]) {
    let tree = crate::command();
    let line: Vec<OsString> =
        std::iter::once("leasehold").chain(words.iter().map(String::as_str)).map(OsString::from).collect();
    let normal = arguments::normalised(&tree, line);
    assert_eq!(arguments::normalised(&tree, normal.clone()), normal);
    let behind = |words: &[OsString]| words.iter().position(|word| word == "--").map(|at| words[at..].to_vec());
    if let Some(kept) = behind(&normal) {
        let given: Vec<OsString> = words.iter().map(OsString::from).collect();
        assert!(given.ends_with(&kept), "{normal:?}");
    }
    let _ = tree.try_get_matches_from(normal);
}

/// Every value is in the object under its key, in order; what is wrong is said without a value.
pub fn any_words_are_gathered(pairs: &[(String, String)], stdin: &[u8]) {
    const CANARY: &str = "cAn4ry";
    let mut words = Vec::new();
    let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in pairs {
        // These name files and standard input.
        if key.is_empty() || key.starts_with('@') || key.contains('=') || value.starts_with(['@', '\\']) || value == "-"
        {
            continue;
        }
        words.push(format!("{key}={value}"));
        words.push(format!("{key}=\\@{value}"));
        wanted.entry(key.clone()).or_default().extend([value.clone(), format!("@{value}")]);
    }
    let gathered = data::gather(&mut quiet(b""), &words, false).unwrap_or_else(|problem| panic!("{problem}"));
    let found: BTreeMap<String, Vec<String>> = gathered
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| (key, data::as_texts([(String::new(), value)].into_iter().collect())))
        .map(|(key, texts)| (key, texts.into_iter().map(|(_, text)| text).collect()))
        .collect();
    assert_eq!(found, wanted);

    let document = [stdin, CANARY.as_bytes()].concat();
    words.extend([format!("secret={CANARY}"), "-".to_owned()]);
    if let Err(problem) = data::gather(&mut quiet(&document), &words, false) {
        assert!(!problem.to_string().contains(CANARY), "{problem}");
    }
    let read = data::gather(&mut quiet(stdin), &["-".to_owned()], false);
    let is_object = serde_json::from_slice::<Value>(stdin).is_ok_and(|value| value.is_object());
    assert_eq!(read.is_ok(), is_object);
}

/// What is read is printed as Go prints it, and that reads as the same.
pub fn any_length_of_time_reads_back(text: &str) {
    let Some(span) = Span::parse(text) else { return };
    let printed = span.to_go();
    assert_eq!(Span::parse(&printed), Some(span), "{text:?} is {printed}");
    let seconds = span.whole_seconds();
    let shown = human_seconds(seconds);
    assert_eq!(Span::parse(&shown).map(Span::whole_seconds), Some(seconds), "{seconds} s are {shown}");
}

/// The whole seconds in a length of time, for comparing with the server's reading. `None`: none, or a negative one.
pub fn whole_seconds(text: &str) -> Option<i64> {
    let span = Span::parse(text)?;
    (!text.starts_with('-')).then(|| span.whole_seconds())
}
