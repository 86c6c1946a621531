//! An error and what led to it, in one line for the operator.

use std::error::Error;

/// `could not open storage file `x`: Permission denied (os error 13)`.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let said = next.to_string();
        // Some libraries repeat their cause in their own words.
        if !line.ends_with(&said) {
            line.push_str(": ");
            line.push_str(&said);
        }
        cause = next.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Step {
        said: &'static str,
        source: Option<std::io::Error>,
    }

    #[test]
    fn causes_follow_their_effect_and_none_is_said_twice() {
        let refused = || Some(std::io::Error::other("disk on fire"));
        assert_eq!(with_causes(&Step { said: "no store", source: refused() }), "no store: disk on fire");
        assert_eq!(with_causes(&Step { said: "no: disk on fire", source: refused() }), "no: disk on fire");
        assert_eq!(with_causes(&Step { said: "no store", source: None }), "no store");
    }
}
