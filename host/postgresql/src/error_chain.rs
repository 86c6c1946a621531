//! Errors of the client library in one line.

use std::error::Error as _;

/// An error and its causes in one line; causes that the text already ends with are left out.
#[must_use]
pub fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = next.source();
    }
    text
}
