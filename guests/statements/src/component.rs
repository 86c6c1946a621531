//! The glue: WIT types in, plain Rust, WIT types out. Compiled for WebAssembly only.

// Exporting the world's functions is what `unsafe` names in the code that the macro writes.
#![allow(unsafe_code, unreachable_pub, missing_debug_implementations)]

use exports::leasehold::statements::templates as wit;

wit_bindgen::generate!({ path: "../../wit/statements", world: "statements" });

struct Templates;

export!(Templates);

impl wit::Guest for Templates {
    fn check(statements: Vec<String>, purpose: wit::Purpose, wished: wit::Dialect) -> wit::Report {
        let report = crate::check(&statements, purpose.into(), wished.into());
        wit::Report {
            dialect: report.dialect.into(),
            diagnostics: report.diagnostics.into_iter().map(Into::into).collect(),
        }
    }

    fn render(
        statements: Vec<String>,
        dialect: wit::Dialect,
        values: Vec<(String, String)>,
    ) -> Result<Vec<String>, wit::Diagnostic> {
        crate::render(&statements, dialect.into(), &values).map_err(Into::into)
    }

    fn check_username(template: String) -> Result<Vec<String>, String> {
        crate::check_username(&template)
    }

    fn username(template: String, facts: wit::UsernameFacts) -> Result<String, String> {
        let wit::UsernameFacts { display_name, role_name, now_millis, randomness } = &facts;
        let (now_millis, randomness) = (*now_millis, randomness.as_slice());
        crate::username(&template, &crate::UsernameFacts { display_name, role_name, now_millis, randomness })
    }
}

impl From<wit::Purpose> for crate::Purpose {
    fn from(purpose: wit::Purpose) -> Self {
        match purpose {
            wit::Purpose::Creation => Self::Creation,
            wit::Purpose::Renewal => Self::Renewal,
            wit::Purpose::Revocation => Self::Revocation,
            wit::Purpose::Rollback => Self::Rollback,
            wit::Purpose::Rotation => Self::Rotation,
        }
    }
}

impl From<wit::Dialect> for crate::Dialect {
    fn from(dialect: wit::Dialect) -> Self {
        match dialect {
            wit::Dialect::Handlebars => Self::Handlebars,
            wit::Dialect::Plain => Self::Plain,
        }
    }
}

impl From<crate::Dialect> for wit::Dialect {
    fn from(dialect: crate::Dialect) -> Self {
        match dialect {
            crate::Dialect::Handlebars => Self::Handlebars,
            crate::Dialect::Plain => Self::Plain,
        }
    }
}

impl From<crate::Diagnostic> for wit::Diagnostic {
    fn from(diagnostic: crate::Diagnostic) -> Self {
        Self {
            severity: match diagnostic.severity {
                crate::Severity::Warning => wit::Severity::Warning,
                crate::Severity::Hint => wit::Severity::Hint,
            },
            code: diagnostic.code.to_owned(),
            message: diagnostic.message,
            statement: diagnostic.statement,
            line: diagnostic.line,
            column: diagnostic.column,
            help: diagnostic.help,
        }
    }
}
