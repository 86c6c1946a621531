//! What came of trying the statements of a role, as `write -verify` shows it.
//!
//! Start with [`verification`].

use serde_json::Value;

use super::{plain, table, warnings};
use crate::client::Secret;
use crate::environment::Environment;
use crate::failure::Failure;

/// Prints the report in an answer, by statement.
pub(crate) fn verification(env: &mut Environment, secret: &Secret, report: &Value) -> Result<(), Failure> {
    warnings(env, secret);
    let rows = rows_of(report);
    if !rows.is_empty() {
        env.say(&table(&["Statements", "Statement", "Result"], &rows))?;
        env.say("")?;
    }
    Ok(env.say(of_role(&report["role"]))?)
}

fn rows_of(report: &Value) -> Vec<Vec<String>> {
    let of_step = |step: &Value| {
        let place = format!("{} of {}", plain(&step["statement"]), plain(&step["of"]));
        let result = match &step["error"] {
            Value::Null => plain(&step["result"]),
            error => format!("{}: {}", plain(&step["result"]), plain(error)),
        };
        vec![plain(&step["list"]), place, result]
    };
    report["statements"].as_array().into_iter().flatten().map(of_step).collect()
}

fn of_role(role: &Value) -> &'static str {
    if role.is_null() {
        return "The statements created no role of the lease's name. Everything was rolled back.";
    }
    match (role["can_login"] == true, role["valid_until"] == true) {
        (true, true) => "The role could log in and had an end (VALID UNTIL). Everything was rolled back.",
        (true, false) => "The role could log in and had no end (VALID UNTIL). Everything was rolled back.",
        (false, true) => "The role could not log in and had an end (VALID UNTIL). Everything was rolled back.",
        (false, false) => "The role could not log in and had no end (VALID UNTIL). Everything was rolled back.",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_statement_has_a_row_with_its_error() {
        let report = json!({ "statements": [
            { "list": "creation_statements", "statement": 1, "of": 2, "result": "ok" },
            { "list": "creation_statements", "statement": 2, "of": 2, "result": "failed", "error": "no such table" },
            { "list": "revocation_statements", "statement": 1, "of": 1, "result": "not run" },
        ]});
        let lines = [
            ["creation_statements", "1 of 2", "ok"],
            ["creation_statements", "2 of 2", "failed: no such table"],
            ["revocation_statements", "1 of 1", "not run"],
        ];
        assert_eq!(rows_of(&report), lines.map(|line| line.map(str::to_owned).to_vec()).to_vec());
        assert_eq!(rows_of(&json!({})), Vec::<Vec<String>>::new());
    }
}
