//! Makes the PostgreSQL role of a lease: one transaction that is over before the deadline or never happens.

use std::time::Duration;

use leasehold_core::seams::{EngineContext, LeaseIntent, SecretData, SecretValue};
use leasehold_model::{Timestamp, Ttl};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio_postgres::error::SqlState;

use super::connection::PasswordAuthentication;
use super::effect::Effect;
use super::failure::TargetError;
use super::sql::{ident, literal};
use super::statements::{substitute, touches_shared};
use super::target::{ANSWER_MAX, Session, Target, rows, with_margin};
use super::{credential, orphans, scram};

/// `VALID UNTIL` lies this long behind the lease's end, as in the field: revocation comes first.
pub(super) const GRACE: Ttl = Ttl::from_secs(5);

/// The password, and what goes into the statements in its place.
struct Issued {
    password: SecretString,
    sent: SecretString,
}

/// # Errors
/// Unless it is [`TargetError::Unreached`], whether the role is there is not known then: the caller revokes.
pub(super) async fn issue(
    target: &Target,
    authentication: PasswordAuthentication,
    at: &EngineContext,
    intent: &LeaseIntent,
    effect: &Effect,
    secrets: &[SecretString],
) -> Result<SecretData, TargetError> {
    let issued = credential(at, authentication).await?;
    let expiration = (intent.expires_at + GRACE).postgres();
    let mut statements = Vec::with_capacity(effect.creation.len());
    for statement in &effect.creation {
        let statement = statement.replace(&effect.expiration_at, &expiration);
        let filled = substitute(&statement, &effect.password_at, &issued.sent)
            .map_err(|error| TargetError::Refused(format!("failed to render creation statements: {error}")))?;
        statements.push(filled);
    }
    let comment = orphans::comment(&at.mount.installation, intent.id.random());
    let own = format!("COMMENT ON ROLE {} IS {}", ident(&effect.username), literal(&comment));
    // Of the rendered text: a statement that holds the secret must not be copied about.
    let is_shared = effect.creation.iter().any(|statement| touches_shared(statement, &effect.username));
    let _turn = if is_shared { Some(target.turn(target.database()).await?) } else { None };
    let done = in_one_transaction(target, at, intent.deadline, &statements, &own).await;
    done.map_err(|error| {
        let known: Vec<&SecretString> = secrets.iter().chain([&issued.password, &issued.sent]).collect();
        error.scrubbed(&known)
    })?;
    Ok(SecretData(vec![
        ("password".to_owned(), SecretValue::Secret(issued.password)),
        ("username".to_owned(), SecretValue::Public(Value::String(effect.username.clone()))),
    ]))
}

async fn credential(at: &EngineContext, authentication: PasswordAuthentication) -> Result<Issued, TargetError> {
    let password = credential::password(&*at.entropy);
    match authentication {
        PasswordAuthentication::Password => Ok(Issued { sent: password.clone(), password }),
        PasswordAuthentication::ScramSha256(iterations) => {
            let mut salt = [0_u8; 16];
            at.entropy.fill(&mut salt);
            // Half a millisecond of computing: too long for a thread that answers requests.
            let hashing = tokio::task::spawn_blocking(move || {
                let sent = scram::verifier(&password, &salt, iterations);
                Issued { password, sent }
            });
            hashing.await.map_err(|_| TargetError::Refused("could not compute a password verifier".to_owned()))
        }
    }
}

async fn in_one_transaction(
    target: &Target,
    at: &EngineContext,
    deadline: Timestamp,
    statements: &[SecretString],
    own: &str,
) -> Result<(), TargetError> {
    // However far this came: an open transaction without a statement ends with its session.
    let (session, end) = begin(target, at, deadline).await.map_err(TargetError::before_anything)?;
    // The target's own clock decides whether this still may happen, however long we were stopped in between.
    let guard = format!(
        "SELECT 1 / (CASE WHEN pg_catalog.clock_timestamp() < pg_catalog.to_timestamp({}.{:03}) THEN 1 ELSE 0 END)",
        end.div_euclid(1_000),
        end.rem_euclid(1_000)
    );
    let mut texts: Vec<&str> = statements.iter().map(|statement| statement.expose_secret()).collect();
    texts.extend([own, guard.as_str(), "COMMIT"]);
    let left = deadline.until(at.clock.now());
    let answers = session.pipeline(&texts, with_margin(left)).await?;
    let guard_at = texts.len().saturating_sub(2);
    let mut first = None;
    for (index, answer) in answers.into_iter().enumerate() {
        if let Err(error) = answer {
            let late = index == guard_at && error.is_code(&SqlState::DIVISION_BY_ZERO);
            // What follows the first error only says that there was one.
            let error = if late { too_late() } else { error };
            first.get_or_insert(error);
        }
    }
    match first {
        // The transaction is rolled back by the COMMIT that followed, or by closing the session.
        Some(error) => Err(error),
        None => {
            session.finish();
            Ok(())
        }
    }
}

/// A transaction that ends with its deadline; with that deadline in milliseconds by the target's clock.
async fn begin(target: &Target, at: &EngineContext, deadline: Timestamp) -> Result<(Session, i64), TargetError> {
    let mut again = true;
    loop {
        let session = target.session().await?;
        let left = deadline.until(at.clock.now());
        if left.is_zero() {
            return Err(too_late());
        }
        let limit = left.as_millis().max(1);
        let sql = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL synchronous_commit = on; \
             SELECT (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8",
            limit.min(super::dial::STATEMENT_MAX.as_millis())
        );
        match session.run(&sql, left.min(ANSWER_MAX)).await {
            Ok(answer) => {
                let there = rows(&answer).next().and_then(|row| row.first().copied().flatten()?.parse::<i64>().ok());
                let there =
                    there.ok_or_else(|| TargetError::Refused("the target does not tell its time".to_owned()))?;
                // Read after the answer came: the target's time is older than that, so the end is rather early than late.
                let left = deadline.until(at.clock.now());
                return Ok((session, there.saturating_add(millis(left))));
            }
            // A session of the pool that died unnoticed, as after a restart; nothing has happened on it yet.
            Err(TargetError::Down(_)) if again => again = false,
            Err(error) => return Err(error),
        }
    }
}

fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

fn too_late() -> TargetError {
    TargetError::Refused("the deadline of this request passed before the role was created".to_owned())
}
