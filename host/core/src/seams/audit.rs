//! Where audit lines go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::seams::error::RequestError;

/// A finished line: secrets in it are HMACs already, unless the operator wants them raw.
pub struct AuditLine(pub String);

impl fmt::Debug for AuditLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditLine({} bytes)", self.0.len())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("audit device `{device}` could not write: {why}")]
pub struct AuditError {
    pub device: String,
    pub why: String,
}

/// Hears, once, whether a line was written.
type Answer = Box<dyn FnOnce(Result<(), AuditError>) + Send>;

/// Answers for one line, once. A receipt that is dropped without an answer says that the line was not written.
pub struct Receipt(Option<Answer>);

impl Receipt {
    #[must_use]
    pub fn new(answer: impl FnOnce(Result<(), AuditError>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    pub fn answer(mut self, written: Result<(), AuditError>) {
        if let Some(answer) = self.0.take() {
            answer(written);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(AuditError { device: String::new(), why: "the device ended without an answer".to_owned() }));
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// What a device writes to. Two devices must not write to the same file: one of them could change its mode, or say what the
/// other must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// As an operator would name it.
    pub name: String,
    /// Device and inode of a file.
    pub file: Option<(u64, u64)>,
}

impl Destination {
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name || (self.file.is_some() && self.file == other.file)
    }
}

/// Writes lines, one after another, in the order in which they were submitted.
#[async_trait]
pub trait AuditDevice: Send + Sync {
    /// Takes a line and returns at once, however long the writing takes. The receipt is answered with `Ok` when the operating
    /// system has the whole line.
    fn submit(&self, line: AuditLine, receipt: Receipt);
    /// Closes and opens again, after a rotation.
    async fn reopen(&self) -> Result<(), AuditError>;
    /// `None`: a device that keeps nothing.
    fn destination(&self) -> Option<Destination>;
}

/// Makes devices of a type from their options; refuses with a text for the client.
#[async_trait]
pub trait AuditDevices: Send + Sync {
    /// `taken` is what other devices write to: it is refused, before anything about it is changed.
    async fn open(
        &self,
        kind: &str,
        options: &BTreeMap<String, String>,
        taken: &[Destination],
    ) -> Result<Arc<dyn AuditDevice>, RequestError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_names_of_one_file_are_one_destination() {
        let at = |name: &str, file| Destination { name: name.to_owned(), file };
        let log = at("/var/log/a", Some((1, 7)));
        for (other, is_same) in [
            (at("/var/log/a", Some((1, 7))), true),
            (at("/var/log/link-to-a", Some((1, 7))), true),
            (at("/var/log/a", Some((1, 8))), true),
            (at("/var/log/a", None), true),
            (at("/var/log/b", Some((1, 8))), false),
            (at("/var/log/b", Some((2, 7))), false),
            (at("/var/log/b", None), false),
        ] {
            assert_eq!((log.is_same(&other), other.is_same(&log)), (is_same, is_same), "{other:?}");
        }
        assert!(!at("stdout", None).is_same(&at("stderr", None)), "no file is not the same file");
    }

    #[test]
    fn a_device_that_ends_without_an_answer_has_not_written() {
        let (sent, told) = std::sync::mpsc::channel();
        drop(Receipt::new(move |outcome| drop(sent.send(outcome))));
        assert!(told.recv().unwrap().is_err());
    }
}
