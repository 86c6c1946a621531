//! One HTTP answer, with assertions that show it whole when they fail.

use serde_json::Value;

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub asked: String,
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The body as JSON; null when it is empty or no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The value at a JSON pointer such as `/data/password`; null when there is none.
    pub fn at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }

    /// The text at a JSON pointer.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> String {
        match self.at(pointer) {
            Value::String(text) => text,
            other => panic!("no text at {pointer}, but {other}\n{self}"),
        }
    }

    /// The whole number at a JSON pointer.
    #[track_caller]
    pub fn number(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or_else(|| panic!("no whole number at {pointer}\n{self}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn assert_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self}");
        self
    }

    #[track_caller]
    pub fn assert_empty(self) -> Self {
        assert_eq!(self.body.trim_end(), "", "{self}");
        self
    }

    /// `{"errors":[…]}` with exactly these texts.
    #[track_caller]
    pub fn assert_errors(self, status: u16, errors: &[&str]) -> Self {
        assert_eq!(self.status, status, "{self}");
        assert_eq!(self.json(), serde_json::json!({ "errors": errors }), "{self}");
        self
    }

    /// `{"errors":["text"]}`: `E(text)` of the reference.
    #[track_caller]
    pub fn assert_error(self, status: u16, text: &str) -> Self {
        self.assert_errors(status, &[text])
    }

    /// The multi-error form: `M(text)` of the reference.
    #[track_caller]
    pub fn assert_multi(self, status: u16, text: &str) -> Self {
        let wrapped = format!("1 error occurred:\n\t* {text}\n\n");
        self.assert_errors(status, &[&wrapped])
    }

    /// An error whose text contains this.
    #[track_caller]
    pub fn assert_error_has(self, status: u16, part: &str) -> Self {
        assert_eq!(self.status, status, "{self}");
        let errors = self.at("/errors");
        let found = errors.as_array().into_iter().flatten().filter_map(Value::as_str).any(|text| text.contains(part));
        assert!(found, "no error with `{part}`\n{self}");
        self
    }

    #[track_caller]
    pub fn assert_at(self, pointer: &str, wanted: impl Into<Value>) -> Self {
        assert_eq!(self.at(pointer), wanted.into(), "at {pointer}\n{self}");
        self
    }

    /// A warning that contains this.
    #[track_caller]
    pub fn assert_warning(self, part: &str) -> Self {
        let warnings = self.at("/warnings");
        let found = warnings.as_array().into_iter().flatten().filter_map(Value::as_str).any(|text| text.contains(part));
        assert!(found, "no warning with `{part}`\n{self}");
        self
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n  answered {} {}", self.asked, self.status, self.body)
    }
}
