//! One change of a password, from what is stored before it to how it ended.
//!
//! Must not know: HTTP, SQL, or in which record a password lies (see [`kept`](super::kept)).
//!
//! Start with [`DatabaseEngine::rotate`]; [`DatabaseEngine::settle`] is what happens after a crash.
//!
//! Invariants: as of [the whole](super). Changes of one password take turns by the version of its record. Nothing is sent to a target for a
//! change that its record no longer has pending. What is not due is left alone by the job, so that however many servers look at the
//! queue, a password changes once.

use leasehold_core::fail;
use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::storage::StorageError;
use secrecy::SecretString;

use super::super::connection::ConnectionRecord;
use super::super::open::Opened;
use super::super::postgresql::failure::TargetError;
use super::super::postgresql::logins::Login;
use super::super::postgresql::set_password::{self, PasswordChange};
use super::super::{AGAIN_MAX, DatabaseEngine, HOSTS_MAX, credential};
use super::kept::{Kept, Record};
use super::queue::Subject;
use super::{Cause, Certainty, Pending, RotationFailed, Taken, is_same, wait_for_other};

/// The statements of one change, with a placeholder for the password.
struct Prepared {
    statements: Vec<String>,
    placeholder: String,
    is_custom: bool,
}

/// A change whose password is stored.
struct Begun {
    kept: Kept,
    prepared: Prepared,
    pending: Pending,
}

enum Next {
    /// The record has changed: it is looked at anew.
    Again,
    Begun(Box<Begun>),
}

/// What logins tell of several passwords.
enum Found {
    /// The user has this one.
    Works(SecretString),
    /// The user has none of them.
    None,
    /// No login tells, from here.
    Unknown,
}

/// How a change ended.
enum Ended {
    /// The target has the new password.
    New(Certainty),
    /// The statements ran, and the target has this one of the former passwords.
    Former(SecretString),
    Failed {
        why: String,
        taken: Taken,
    },
}

const NOT_SET: &str = "the statements ran, but the database takes the former password and not the new one";

impl DatabaseEngine {
    /// Changes one password.
    pub(in super::super) async fn rotate(
        &self,
        at: &EngineContext,
        subject: &Subject,
        cause: Cause,
    ) -> Result<(), RotationFailed> {
        let began = at.clock.steady();
        loop {
            let kept = Kept::load(at, subject).await?.ok_or_else(|| subject.missing())?;
            let now = at.clock.now();
            if kept.rotation().is_under_way(now) {
                if cause == Cause::Due {
                    return Ok(());
                }
                wait_for_other(at, began).await?;
                continue;
            }
            if cause == Cause::Due && kept.rotation().due_at.is_none_or(|due| due > now) {
                return Ok(());
            }
            match self.begin(at, &kept, cause).await {
                Ok(Next::Begun(begun)) => return self.carry_out(at, &begun).await,
                Ok(Next::Again) => {}
                Err(failed) if failed.is_conflict() => {}
                Err(failed) => {
                    if cause == Cause::Due {
                        note_failure(at, kept, &failed).await?;
                    }
                    return Err(failed);
                }
            }
        }
    }

    /// Settles what is open, sees what can be seen, and stores the new password.
    async fn begin(&self, at: &EngineContext, kept: &Kept, cause: Cause) -> Result<Next, RotationFailed> {
        let opened = self.open(at, kept.connection()).await?;
        if kept.is_root() && opened.version != kept.version {
            return Ok(Next::Again);
        }
        let mut kept = kept.clone();
        if !kept.is_where(&opened.record) {
            if cause == Cause::Due || !kept.is_changed_by_an_admin() {
                return Err(RequestError::Engine(elsewhere(&kept)).into());
            }
            self.bind_anew(at, &mut kept, &opened).await?;
        } else if kept.rotation().is_open() && self.settle(at, &mut kept, &opened).await? {
            return Ok(Next::Again);
        }
        let now = at.clock.now();
        if cause == Cause::Due && kept.rotation().pending.is_none() && !kept.rotation().may_happen(now) {
            let seed = kept.subject.seed(at);
            kept.rotation_mut().plan(now, &seed);
            kept.store(at).await?;
            return Ok(Next::Again);
        }
        let prepared = prepare(at, &kept, &opened).await?;
        if let Record::Static(role) = &mut kept.record {
            role.note_place(&opened.record);
        }
        let password = match kept.rotation().repeated_password() {
            Some(pending) => pending,
            None => new_password(at, &kept, &opened).await?,
        };
        let Some(pending) = kept.rotation_mut().begin(password, at.clock.now(), &*at.entropy) else {
            return Err(RequestError::Engine(format!(
                "{}: of so many earlier changes of {} nobody knows how they ended that no other one begins: write the password that \
                 works",
                kept.subject.failed(),
                kept.subject.described()
            ))
            .into());
        };
        kept.store(at).await?;
        Ok(Next::Begun(Box::new(Begun { kept, prepared, pending })))
    }

    /// Finds out which password the target has, after changes that can no longer happen. Returns whether that is stored now; where no
    /// login tells, the pending password is to be set once more.
    async fn settle(&self, at: &EngineContext, kept: &mut Kept, opened: &Opened) -> Result<bool, RotationFailed> {
        let failed = kept.subject.failed();
        let user = kept.user(opened).to_owned();
        let found = find(opened, &user, &kept.passwords()).await;
        match found.map_err(|error| RotationFailed::of(failed, &opened.failed(error.before_anything())))? {
            Found::Works(password) => {
                kept.settle_on(at, &password);
                kept.store(at).await?;
                Ok(true)
            }
            Found::Unknown => Ok(false),
            // The next change gives the user a password that is known, whoever has set another one there.
            Found::None if kept.is_changed_by_an_admin() => {
                kept.rotation_mut().doubt_all();
                Ok(false)
            }
            Found::None => Err(RequestError::Engine(format!(
                "{failed}: the database takes none of the passwords that are stored for user {user:?} of {}, the new one among them: \
                 somebody has changed it there. Set it in PostgreSQL, then write it to {}/{}",
                kept.subject.described(),
                if kept.is_root() { "config" } else { "static-roles" },
                kept.subject.name()
            ))
            .into()),
        }
    }

    /// From the stored pending password to its end.
    async fn carry_out(&self, at: &EngineContext, begun: &Begun) -> Result<(), RotationFailed> {
        let is_root = begun.kept.is_root();
        fail::point(if is_root { "root-rotation-stored" } else { "static-rotation-stored" });
        let done = self.set_pending(at, begun).await;
        fail::point(if is_root { "root-rotation-set" } else { "static-rotation-set" });
        let failed = match done {
            Ok(opened) => {
                let ended = proof(begun, &opened).await;
                let is_new = matches!(ended, Ended::New(_));
                end(at, begun, &ended).await?;
                if is_new {
                    return Ok(());
                }
                let statements = if is_root { "root_rotation_statements" } else { "rotation_statements" };
                let why = format!("{}: {NOT_SET}: see {statements}", begun.kept.subject.failed());
                return Err(RequestError::Engine(why).into());
            }
            Err(failed) => failed,
        };
        let why = failed.error.to_string();
        let taken = match (failed.is_open, begun.prepared.is_custom && !failed.is_down) {
            (true, _) => Taken::Perhaps,
            (false, true) => self.is_refused(at, begun).await,
            (false, false) => Taken::No,
        };
        match end(at, begun, &Ended::Failed { why, taken }).await {
            Err(RotationFailed { error: RequestError::Storage(error), .. }) => {
                tracing::warn!(
                    mount.path = %at.mount.path,
                    %error,
                    "could not store that the password of {} was not changed",
                    begun.kept.subject.described()
                );
            }
            other => other?,
        }
        Err(failed)
    }

    /// The operator's statements failed and were rolled back: whether something of theirs has set the password for all that.
    async fn is_refused(&self, at: &EngineContext, begun: &Begun) -> Taken {
        let Ok(opened) = self.open(at, begun.kept.connection()).await else { return Taken::Hardly };
        if !begun.kept.is_where(&opened.record) || !is_still_pending(at, begun, &opened).await.unwrap_or(false) {
            return Taken::Hardly;
        }
        match opened.target.try_login(begun.kept.user(&opened), &begun.pending.password.0).await {
            Ok(Login::Wrong) => Taken::No,
            _ => Taken::Hardly,
        }
    }

    /// Has the target set the password.
    async fn set_pending(&self, at: &EngineContext, begun: &Begun) -> Result<Opened, RotationFailed> {
        let Begun { kept, prepared, pending } = begun;
        let passwords = kept.passwords();
        let (mut again, mut hosts) = (AGAIN_MAX, HOSTS_MAX);
        loop {
            let opened = self.open(at, kept.connection()).await?;
            // Also after a wait for a turn or a session: the connection may lead elsewhere by now, where another user has this name.
            if !kept.is_where(&opened.record) || !is_still_pending(at, begun, &opened).await? {
                return Err(RequestError::Engine(format!(
                    "{}: {} was configured anew while its password was being changed: it was not changed",
                    kept.subject.failed(),
                    kept.subject.described()
                ))
                .into());
            }
            let authentication = opened.record.password_authentication().map_err(RequestError::Engine)?;
            let mut secrets = opened.record.secrets();
            secrets.extend(passwords.iter().cloned());
            let is_self_managed = matches!(&kept.record, Record::Static(role) if role.is_self_managed);
            let change = PasswordChange {
                username: kept.user(&opened),
                statements: &prepared.statements,
                placeholder: &prepared.placeholder,
                password: &pending.password.0,
                authentication,
                deadline: pending.deadline,
                itself: is_self_managed.then_some(passwords.as_slice()),
            };
            match set_password::set(&opened.target, at, &change, &secrets).await {
                Ok(()) => return Ok(opened),
                Err(TargetError::Reconfigured) if again > 0 => again -= 1,
                // It was rolled back there; the deadline holds for the other host, too.
                Err(error) if error.is_of_standby() && opened.target.may_go_elsewhere(&error, &mut hosts) => {}
                Err(error) => return Err(RotationFailed::of(kept.subject.failed(), &opened.failed(error))),
            }
        }
    }
}

fn elsewhere(kept: &Kept) -> String {
    let name = kept.subject.name();
    let how = if kept.is_changed_by_an_admin() {
        format!(
            "ask for a change with rotate-role/{name}, or write the password that its user has there to static-roles/{name}"
        )
    } else {
        format!("write the password that its user has there to static-roles/{name} as self_managed_password")
    };
    format!(
        "{}: connection {:?} leads elsewhere since the password of {} was set: {how}",
        kept.subject.failed(),
        kept.connection(),
        kept.subject.described()
    )
}

/// Whether `opened` is the connection for which the password of `begun` was stored, and the change is still wanted.
async fn is_still_pending(at: &EngineContext, begun: &Begun, opened: &Opened) -> Result<bool, RequestError> {
    if begun.kept.is_root() {
        return Ok(opened.record.rotation.is_pending(&begun.pending.id));
    }
    let kept = Kept::load(at, &begun.kept.subject).await?;
    Ok(kept.is_some_and(|kept| kept.rotation().is_pending(&begun.pending.id)))
}

/// Which of these the user has, as far as logins tell.
///
/// # Errors
/// The target could not be asked.
async fn find(opened: &Opened, user: &str, passwords: &[SecretString]) -> Result<Found, TargetError> {
    for password in passwords {
        match opened.target.try_login(user, password).await? {
            Login::Right => return Ok(Found::Works(password.clone())),
            Login::Wrong => {}
            Login::Unasked | Login::NotLetIn => return Ok(Found::Unknown),
        }
    }
    Ok(Found::None)
}

/// The statements ran: whether they set what they were to set.
async fn proof(begun: &Begun, opened: &Opened) -> Ended {
    let (kept, new) = (&begun.kept, &begun.pending.password.0);
    let is_ours = !begun.prepared.is_custom;
    // A static role need not be able to log in from here: the target's word on our own statement is enough.
    if is_ours && !kept.is_root() {
        return Ended::New(Certainty::Proved);
    }
    let user = kept.user(opened);
    match opened.target.try_login(user, new).await {
        Ok(Login::Right) => return Ended::New(Certainty::Proved),
        // No login ever tells: the target's word is all that there is.
        Ok(Login::Unasked) if is_ours => return Ended::New(Certainty::Proved),
        Ok(Login::Unasked | Login::NotLetIn) if !kept.is_root() => return Ended::New(Certainty::Proved),
        Ok(Login::Unasked) | Err(_) => return Ended::New(Certainty::ByItsWord),
        Ok(Login::Wrong | Login::NotLetIn) => {}
    }
    let former: Vec<SecretString> = kept.passwords().into_iter().filter(|password| !is_same(password, new)).collect();
    match find(opened, user, &former).await {
        Ok(Found::Works(password)) => Ended::Former(password),
        _ => Ended::New(Certainty::ByItsWord),
    }
}

/// Stores how a change ended. When it was settled by somebody else meanwhile, that stands.
async fn end(at: &EngineContext, begun: &Begun, ended: &Ended) -> Result<(), RotationFailed> {
    let subject = &begun.kept.subject;
    let overtaken = |how: &str| {
        let why =
            format!("{}: {} was {how} while its password was being changed", subject.failed(), subject.described());
        RotationFailed::from(RequestError::Engine(why))
    };
    let is_new = matches!(ended, Ended::New(_));
    loop {
        let Some(mut kept) = Kept::load(at, subject).await? else {
            return if is_new { Err(overtaken("deleted")) } else { Ok(()) };
        };
        if !kept.rotation().is_pending(&begun.pending.id) {
            let is_ours = kept.current().is_some_and(|current| is_same(current, &begun.pending.password.0));
            return if is_new && !is_ours { Err(overtaken("configured anew")) } else { Ok(()) };
        }
        let (now, seed) = (at.clock.now(), subject.seed(at));
        match ended {
            Ended::New(certainty) => {
                if let Some(password) = kept.rotation_mut().succeed(*certainty, now, &seed)
                    && let Some(old) = kept.take_current(password)
                    && *certainty == Certainty::ByItsWord
                {
                    kept.rotation_mut().doubt(old);
                }
            }
            Ended::Former(password) => {
                kept.rotation_mut().fail(NOT_SET, Taken::Hardly, now, &*at.entropy);
                kept.settle_on(at, password);
            }
            Ended::Failed { why, taken } => kept.rotation_mut().fail(why, *taken, now, &*at.entropy),
        }
        match kept.store(at).await {
            Err(StorageError::Conflict(_)) => {}
            stored => {
                stored?;
                fail::point(if kept.is_root() { "root-rotation-ended" } else { "static-rotation-ended" });
                return Ok(());
            }
        }
    }
}

/// Why what was due did not even begin.
async fn note_failure(at: &EngineContext, mut kept: Kept, failed: &RotationFailed) -> Result<(), RotationFailed> {
    let why = failed.error.to_string();
    kept.rotation_mut().fail(&why, Taken::Perhaps, at.clock.now(), &*at.entropy);
    match kept.store(at).await {
        Ok(()) | Err(StorageError::Conflict(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What can be seen before anything is stored.
async fn prepare(at: &EngineContext, kept: &Kept, opened: &Opened) -> Result<Prepared, RequestError> {
    let placeholder = credential::placeholder(&*at.entropy);
    let (user, templates) = match &kept.record {
        Record::Root(record) => {
            let user = record.check_rotatable().map_err(RequestError::Engine)?.user;
            let is_custom = record.has_rotation_statements();
            (user, if is_custom { Some(record.rotation_templates(&*at.templates).await?) } else { None })
        }
        Record::Static(role) => {
            check_static(kept, role.username.as_str(), &opened.record)?;
            let is_custom = !role.statements.texts.is_empty();
            (role.username.clone(), is_custom.then(|| role.statements.clone()))
        }
    };
    let statements = match &templates {
        None => vec![set_password::default_statement(&user, &placeholder)],
        Some(templates) => {
            let values = [("name", user.as_str()), ("username", user.as_str()), ("password", placeholder.as_str())];
            templates.rendered(&*at.templates, &values, "rotation").await?
        }
    };
    Ok(Prepared { statements, placeholder, is_custom: templates.is_some() })
}

/// A password that was never set, by the policy that holds for it.
async fn new_password(at: &EngineContext, kept: &Kept, opened: &Opened) -> Result<SecretString, RequestError> {
    match &kept.record {
        Record::Root(record) => {
            let password = credential::password_by(at, &record.password_policy).await?;
            // A connection that could not log in any more would be lost: this is seen before the database hears of the password.
            record.check_password(&password).map_err(RequestError::Engine)?;
            Ok(password)
        }
        Record::Static(role) => {
            credential::password_by(at, credential::policy(&role.credential_config, &opened.record)).await
        }
    }
}

/// Whether the connection, as it is now, lets this static role have its user.
fn check_static(kept: &Kept, username: &str, connection: &ConnectionRecord) -> Result<(), RequestError> {
    if !connection.allows(kept.subject.name()) {
        return Err(RequestError::Engine(format!("{:?} is not an allowed role", kept.subject.name())));
    }
    if connection.dsn().is_ok_and(|dsn| dsn.user == username) {
        return Err(RequestError::invalid(format!(
            "{username:?} is the user of connection {:?} itself: its password is changed by rotate-root",
            kept.connection()
        )));
    }
    Ok(())
}
