//! Tries the statements of a role on the real database, in one transaction that is rolled back: a role is created, looked at, renewed and
//! revoked, and nothing of it stays.
//!
//! Invariants: statements that could end the transaction are refused before anything is sent. The session is closed afterwards, so that
//! locks and settings of the session go with it. What a statement does outside of the database (`dblink`, a sequence's next number, a file)
//! no transaction can undo.

use leasehold_core::seams::engine::EngineContext;
use leasehold_model::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::super::connection::PasswordAuthentication;
use super::super::effect::{Effect, valid_until};
use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::issue;
use super::pool::{ANSWER_MAX, ConnectionPool, Session, WAIT_MAX, with_margin};
use super::sql::{ident, literal, rows};
use super::statements::{ends_transaction, touches_shared};

/// What came of one statement.
enum Outcome {
    Done,
    Failed(TargetError),
    /// One before it had failed.
    NotRun,
}

struct Step {
    /// The field of the role.
    list: &'static str,
    index: usize,
    count: usize,
    outcome: Outcome,
}

/// What a dry run found.
#[derive(Default)]
pub(crate) struct Report {
    steps: Vec<Step>,
    /// What is odd, though no statement failed.
    pub(crate) warnings: Vec<String>,
    role: Option<Seen>,
}

struct Seen {
    can_login: bool,
    has_end: bool,
}

impl Report {
    /// Every statement with what came of it.
    pub(crate) fn to_json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|Step { list, index, count, outcome }| {
                let mut step = json!({ "list": list, "statement": index + 1, "of": count });
                match outcome {
                    Outcome::Done => step["result"] = json!("ok"),
                    Outcome::Failed(error) => {
                        step["result"] = json!("failed");
                        step["error"] = json!(error.to_string());
                    }
                    Outcome::NotRun => step["result"] = json!("not run"),
                }
                step
            })
            .collect();
        let role = self.role.as_ref().map(|seen| json!({ "can_login": seen.can_login, "valid_until": seen.has_end }));
        json!({ "statements": steps, "role": role, "rolled_back": true })
    }

    /// In words, when a statement of the operator's failed: which ones, and which have not been tried because of that.
    pub(crate) fn failure(&self) -> Option<String> {
        let failed: Vec<String> = self
            .steps
            .iter()
            .filter_map(|step| match &step.outcome {
                Outcome::Failed(error) => Some(error.to_string()),
                _ => None,
            })
            .collect();
        let not_run = self.steps.iter().filter(|step| matches!(step.outcome, Outcome::NotRun)).count();
        let rest = match not_run {
            0 => String::new(),
            1 => "; 1 statement after that was not run".to_owned(),
            more => format!("; {more} statements after that were not run"),
        };
        (!failed.is_empty()).then(|| failed.join("; ") + &rest)
    }

    fn scrubbed(mut self, secrets: &[&SecretString], names: &[&str]) -> Self {
        for step in &mut self.steps {
            step.outcome = match std::mem::replace(&mut step.outcome, Outcome::NotRun) {
                Outcome::Failed(error) => Outcome::Failed(error.scrubbed(secrets, names)),
                other => other,
            };
        }
        self
    }
}

/// Statements of one list, as they are sent.
struct List<'a> {
    field: &'static str,
    purpose: &'static str,
    texts: Vec<&'a str>,
}

/// Runs everything once, for a role that would end at `expires_at`.
///
/// # Errors
/// When the target cannot be asked, or a statement may not be tried: nothing has happened then. What single statements met is in the
/// report.
pub(crate) async fn run(
    target: &ConnectionPool,
    authentication: PasswordAuthentication,
    at: &EngineContext,
    effect: &Effect,
    renew: &[String],
    expires_at: Timestamp,
    secrets: &[SecretString],
) -> Result<Report, TargetError> {
    let every = effect.creation.iter().chain(renew).chain(&effect.revocation);
    if let Some(statement) = every.clone().find(|statement| ends_transaction(statement)) {
        let verb: String = statement.chars().take_while(|letter| letter.is_ascii_alphabetic()).collect();
        return Err(TargetError::Refused(format!(
            "{verb} ends the transaction in which statements are tried and rolled back: leave it out, it is not needed"
        )));
    }
    let issued = issue::credential(at, authentication, &effect.password_policy).await?;
    let creation = issue::filled(effect, &valid_until(expires_at), &issued)?;
    let is_shared = every.clone().any(|statement| touches_shared(statement, &effect.username));
    let _turn = if is_shared { Some(target.turn(target.database(), WAIT_MAX).await?) } else { None };
    let trial = Trial { session: target.session().await?, name: &effect.username };
    let lists = [
        List {
            field: "creation_statements",
            purpose: "creation",
            texts: creation.iter().map(ExposeSecret::expose_secret).collect(),
        },
        List { field: "renew_statements", purpose: "renew", texts: renew.iter().map(String::as_str).collect() },
        List {
            field: "revocation_statements",
            purpose: "revocation",
            texts: effect.revocation.iter().map(String::as_str).collect(),
        },
    ];
    let tried = tokio::time::timeout(STATEMENT_MAX, trial.carry_out(&lists, &valid_until(expires_at))).await;
    let known: Vec<&SecretString> = secrets.iter().chain(issued.secrets()).collect();
    // The session is dropped here, whatever state it is in: what is open in it is rolled back.
    match tried {
        Ok(Ok(report)) => Ok(report.scrubbed(&known, &target.names())),
        Ok(Err(error)) => Err(error.scrubbed(&known, &target.names())),
        Err(_) => Err(TargetError::Refused(format!(
            "the statements take longer than {} s; nothing of them stays",
            STATEMENT_MAX.as_secs()
        ))),
    }
}

struct Trial<'a> {
    session: Session,
    name: &'a str,
}

impl Trial<'_> {
    async fn carry_out(&self, lists: &[List<'_>], expiration: &str) -> Result<Report, TargetError> {
        let mut report = Report::default();
        self.session.run("BEGIN", ANSWER_MAX).await?;
        let mut goes_on = true;
        for list in lists {
            self.session_run_if(goes_on, "SAVEPOINT leasehold_trial").await?;
            if goes_on && list.purpose == "revocation" && report.role.is_some() {
                self.prepare_revocation().await?;
            }
            let is_fine = self.try_list(list, goes_on, &mut report).await?;
            if list.purpose == "creation" {
                goes_on = is_fine;
                self.session_run_if(goes_on, "SET SESSION AUTHORIZATION DEFAULT; RESET ROLE").await?;
                if goes_on {
                    report.role = self.look().await?;
                    self.judge(&mut report);
                }
            } else if goes_on && !is_fine {
                self.session.run("ROLLBACK TO SAVEPOINT leasehold_trial", ANSWER_MAX).await?;
            }
            if goes_on && is_fine && list.texts.is_empty() && report.role.is_some() {
                self.try_default(list.purpose, expiration, &mut report).await?;
            }
        }
        self.session.run("ROLLBACK", ANSWER_MAX).await?;
        Ok(report)
    }

    async fn session_run_if(&self, goes_on: bool, sql: &str) -> Result<(), TargetError> {
        if goes_on { self.session.run(sql, ANSWER_MAX).await.map(drop) } else { Ok(()) }
    }

    /// Whether all went well.
    async fn try_list(&self, list: &List<'_>, goes_on: bool, report: &mut Report) -> Result<bool, TargetError> {
        let count = list.texts.len();
        let mut is_fine = goes_on;
        for (index, text) in list.texts.iter().enumerate() {
            let outcome = if is_fine {
                match self.session.run(text, with_margin(STATEMENT_MAX)).await {
                    Ok(_) => Outcome::Done,
                    Err(error @ (TargetError::Sql(_) | TargetError::Refused(_))) => {
                        is_fine = false;
                        Outcome::Failed(error.in_statement(list.purpose, index, count, text))
                    }
                    Err(error) => return Err(error),
                }
            } else {
                Outcome::NotRun
            };
            report.steps.push(Step { list: list.field, index, count, outcome });
        }
        Ok(is_fine)
    }

    async fn look(&self) -> Result<Option<Seen>, TargetError> {
        let sql = format!(
            "SELECT r.rolcanlogin, r.rolvaliduntil IS NOT NULL AND pg_catalog.isfinite(r.rolvaliduntil) \
             FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) {}",
            literal(self.name)
        );
        let answer = self.session.run(&sql, ANSWER_MAX).await?;
        let is = |row: &[Option<&str>], at: usize| row.get(at).copied().flatten() == Some("t");
        Ok(rows(&answer).next().map(|row| Seen { can_login: is(&row, 0), has_end: is(&row, 1) }))
    }

    fn judge(&self, report: &mut Report) {
        let said = match &report.role {
            None => {
                "no PostgreSQL role named {{name}} stands after the creation statements: nobody can log in with the credential"
            }
            Some(Seen { can_login: false, .. }) => "the PostgreSQL role cannot log in: write CREATE ROLE … LOGIN",
            Some(Seen { has_end: false, .. }) => {
                "the PostgreSQL role has no VALID UNTIL: PostgreSQL itself would never end the password"
            }
            Some(_) => return,
        };
        report.warnings.push(format!("creation_statements, tried on the database: {said}"));
    }

    /// What is done where the role has no statements. A revocation has more ways than this one, so that a failure is only told.
    async fn try_default(&self, purpose: &str, expiration: &str, report: &mut Report) -> Result<(), TargetError> {
        let role = ident(self.name);
        let sql = match purpose {
            "renew" => format!("ALTER ROLE {role} VALID UNTIL {}", literal(expiration)),
            "revocation" => format!("DROP OWNED BY {role}; DROP ROLE {role}"),
            _ => return Ok(()),
        };
        match self.session.run(&sql, with_margin(STATEMENT_MAX)).await {
            Ok(_) => {}
            Err(error @ TargetError::Sql(_)) => {
                self.session.run("ROLLBACK TO SAVEPOINT leasehold_trial", ANSWER_MAX).await?;
                let why =
                    format!("{purpose}_statements are empty, and the default was refused when it was tried: {error}");
                report.warnings.push(why);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// As before a real revocation: the login goes, and our user becomes a member of the role. Where it may not, the statements show
    /// whether they need that.
    async fn prepare_revocation(&self) -> Result<(), TargetError> {
        let role = ident(self.name);
        for sql in [format!("ALTER ROLE {role} NOLOGIN"), format!("GRANT {role} TO CURRENT_USER")] {
            let text = format!("SAVEPOINT leasehold_step; {sql}; RELEASE SAVEPOINT leasehold_step");
            match self.session.run(&text, with_margin(STATEMENT_MAX)).await {
                Ok(_) => {}
                Err(TargetError::Sql(_)) => {
                    self.session.run("ROLLBACK TO SAVEPOINT leasehold_step", ANSWER_MAX).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
