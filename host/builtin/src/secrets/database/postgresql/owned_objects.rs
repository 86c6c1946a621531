//! What a leased role owns or was granted, in every database of its server: given away, then taken from it.
//!
//! Never to the admin: a function with SECURITY DEFINER that a leased role left behind would run with the admin's rights.
//!
//! Invariant: what the role owns is dropped only where the connection says so, never because it could not be given away.

use std::time::Duration;

use super::super::connection::Leftovers;
use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::grants::{Grant, Grants, grants, has_dependencies};
use super::locks;
use super::membership::Membership;
use super::pool::{ANSWER_MAX, ConnectionPool, Session, with_margin};
use super::reassign_owner;
use super::role_identity::RoleIdentity;
use super::sql::{ident, literal, rows};

/// More would not make an error clearer.
const BLOCKERS_MAX: usize = 20;
/// Objects that change hands in one transaction: each takes locks of which a server has some thousand.
const PORTION: usize = 500;
/// How long for a turn, and in it for a lock: what must wait longer is done again later, and others go first meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);

/// What becomes of what the role owns.
enum Estate {
    /// It owns nothing, or what it owns is dropped with its rights.
    Dropped,
    Goes(String),
    /// Nobody can inherit, for this reason.
    Stays(TargetError),
}

/// Empties the role. Returns in words what could not be taken from it.
///
/// # Errors
/// Not when the target refuses a step: then the next way is tried, and what is left in the end is in the list.
pub(crate) async fn give_away(
    target: &ConnectionPool,
    subject: &RoleIdentity<'_>,
    oid: u32,
    leftovers: &Leftovers,
    membership: &Membership,
) -> Result<Vec<String>, TargetError> {
    let session = target.session().await?;
    let databases = databases(&session, oid, target.database()).await?;
    // Who has only rights needs no heir.
    let owns = databases.iter().any(|(_, owns)| *owns);
    let estate = match owns {
        false => Estate::Dropped,
        true => match reassign_owner::ready(&session, leftovers, target.user(), oid).await {
            Ok(Some(heir)) => Estate::Goes(heir),
            Ok(None) => Estate::Dropped,
            Err(error) if error.is_refusal() => Estate::Stays(error),
            Err(error) => return Err(error),
        },
    };
    session.finish();
    let mut blockers = Vec::new();
    for (database, _) in databases {
        loop {
            // Rights on an object are one row of the catalogue: two who change it at once make one of them fail.
            let _turn = target.turn(&database, PATIENCE).await?;
            let session = target.session_at(&database).await?;
            let us = locks::process(&session).await?;
            let work = Emptying { session: &session, subject, oid, membership, database: &database };
            let emptied = locks::naming_blocker(target, us.as_deref(), work.carry_out(&estate)).await?;
            session.finish();
            match emptied {
                Emptied::InPart => {}
                Emptied::Wholly { left } => {
                    blockers.extend(left);
                    break;
                }
            }
        }
    }
    blockers.truncate(BLOCKERS_MAX);
    Ok(blockers)
}

/// Where the role owns or was granted something, and whether it owns something there; what belongs to the whole server counts as
/// `home`'s. `pg_shdepend` is as long as leased roles made it: to read it may take its time without the target counting as hanging.
async fn databases(session: &Session, oid: u32, home: &str) -> Result<Vec<(String, bool)>, TargetError> {
    let sql = format!(
        "SELECT coalesce(d.datname, {}), bool_or(s.deptype = 'o') FROM pg_catalog.pg_shdepend s \
         LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid \
         WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = {oid} GROUP BY 1",
        literal(home)
    );
    let answer = session.ask(&sql, with_margin(STATEMENT_MAX)).await?;
    let one = |row: Vec<Option<&str>>| match row.as_slice() {
        [Some(name), owns] => Some(((*name).to_owned(), *owns == Some("t"))),
        _ => None,
    };
    Ok(rows(&answer).filter_map(one).collect())
}

/// How far one transaction came in one database.
enum Emptied {
    /// There is more.
    InPart,
    Wholly {
        left: Vec<String>,
    },
}

/// One transaction in one database.
struct Emptying<'a> {
    session: &'a Session,
    subject: &'a RoleIdentity<'a>,
    oid: u32,
    membership: &'a Membership,
    database: &'a str,
}

impl Emptying<'_> {
    async fn carry_out(&self, estate: &Estate) -> Result<Emptied, TargetError> {
        let limit = with_margin(STATEMENT_MAX);
        let (session, oid) = (self.session, self.oid);
        let begin = format!(
            "BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = {}; {}",
            PATIENCE.as_millis(),
            self.subject.hold()
        );
        session.run(&begin, limit).await?;
        let mut left = Vec::new();
        let heir = match estate {
            Estate::Goes(heir) => Some(heir.as_str()),
            _ => None,
        };
        let portion = match estate {
            Estate::Stays(_) => None,
            _ => portion(session, oid, heir).await?,
        };
        let failed = match (estate, &portion) {
            (Estate::Goes(heir), _) => self.give_to(heir, portion.as_deref()).await?,
            (Estate::Stays(error), _) => Some(error.to_string()),
            (Estate::Dropped, Some(portion)) => attempt(session, portion).await?.map(|error| error.to_string()),
            (Estate::Dropped, None) => None,
        };
        if portion.is_some() && failed.is_none() {
            session.run("COMMIT", limit).await?;
            return Ok(Emptied::InPart);
        }
        // What could not be given away must not be dropped.
        let stays = match (&failed, estate) {
            (Some(why), Estate::Goes(_) | Estate::Stays(_)) if self.still_owns().await? => {
                left.push(format!("what it owns in database {:?} could not be given away: {why}", self.database));
                true
            }
            _ => false,
        };
        if !stays {
            self.drop_owned().await?;
        }
        self.take_back_rights().await?;
        left.extend(blockers(session, oid, self.database).await?);
        session.run("COMMIT", limit).await?;
        Ok(Emptied::Wholly { left })
    }

    /// Gives all, or the portion, to the heir. Says why that was not possible.
    async fn give_to(&self, heir: &str, portion: Option<&str>) -> Result<Option<String>, TargetError> {
        let (name, limit) = (self.subject.name, with_margin(STATEMENT_MAX));
        let all = format!("REASSIGN OWNED BY {} TO {}", ident(name), ident(heir));
        let give = portion.unwrap_or(&all);
        let (lend, take_back) = rights_to_own(self.session, name, self.oid, heir).await?;
        // As the role itself, which our user may become although it does not inherit from it.
        let as_role = (
            format!("GRANT {} TO {}", ident(heir), ident(name)),
            format!("SET LOCAL ROLE {}; {give}; RESET ROLE", ident(name)),
            format!("REVOKE {} FROM {}", ident(heir), ident(name)),
        );
        let ways: &[(&str, &str, &str)] = match self.membership {
            Membership::BySetRole => &[("", give, ""), (&as_role.0, &as_role.1, &as_role.2)],
            _ => &[("", give, "")],
        };
        let mut failed = None;
        for (before, give, after) in ways {
            self.session.run("SAVEPOINT leasehold_giving", limit).await?;
            let mut lent = Vec::new();
            for (grant, revoke) in lend.iter().zip(&take_back) {
                // The right may not be needed, or not be ours to lend: giving shows it.
                if attempt(self.session, grant).await?.is_none() {
                    lent.push(revoke.as_str());
                }
            }
            let steps = [*before, give, after].into_iter().chain(lent).filter(|step| !step.is_empty());
            match attempt(self.session, &steps.collect::<Vec<_>>().join("; ")).await? {
                None => return Ok(None),
                Some(error) => {
                    // Nothing that was lent may stay.
                    self.session.run("ROLLBACK TO SAVEPOINT leasehold_giving", limit).await?;
                    failed.get_or_insert(error.to_string());
                }
            }
        }
        Ok(failed)
    }

    /// Whether something is left that would have to go to an heir. Default privileges and user mappings are nobody's data.
    async fn still_owns(&self) -> Result<bool, TargetError> {
        let sql = format!(
            "SELECT 1 FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {} AND s.deptype = 'o' \
             AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass) \
             AND s.dbid IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) LIMIT 1",
            self.oid
        );
        let answer = self.session.run(&sql, with_margin(STATEMENT_MAX)).await?;
        Ok(rows(&answer).next().is_some())
    }

    async fn drop_owned(&self) -> Result<(), TargetError> {
        let going = grants(self.session, self.oid, Grants::By).await?;
        let drop_owned = format!("DROP OWNED BY {}", ident(self.subject.name));
        let mut refused = attempt(self.session, &drop_owned).await?;
        if refused.is_some() && matches!(self.membership, Membership::BySetRole) {
            let as_role = format!("SET LOCAL ROLE {}; {drop_owned}; RESET ROLE", ident(self.subject.name));
            refused = attempt(self.session, &as_role).await?;
        }
        if let Some(error) = refused {
            tracing::debug!(role = self.subject.name, %error, "DROP OWNED was refused: rights are taken back one by one");
            return Ok(());
        }
        for Grant { rights, object, grantee, .. } in going.iter().take(BLOCKERS_MAX) {
            tracing::warn!(
                role = self.subject.name,
                database = self.database,
                "{rights} on {object} went from {grantee:?}, to whom leased role {:?} had granted it: it ended with the lease",
                self.subject.name
            );
        }
        Ok(())
    }

    /// Takes back right by right what `DROP OWNED` left: what others granted, or everything if it was refused.
    async fn take_back_rights(&self) -> Result<(), TargetError> {
        for grant in grants(self.session, self.oid, Grants::To).await? {
            let Some(revoke) = grant.revoke(self.subject.name) else { continue };
            // A right is taken back by whoever granted it; our user may become that role, or has granted it itself.
            let by_grantor = format!("SET LOCAL ROLE {}; {revoke}; RESET ROLE", ident(&grant.grantor));
            if attempt(self.session, &by_grantor).await?.is_some() {
                drop(attempt(self.session, &revoke).await?);
            }
        }
        Ok(())
    }
}

/// Runs `sql` in the open transaction. Says what was refused; the transaction is then as it was before.
async fn attempt(session: &Session, sql: &str) -> Result<Option<TargetError>, TargetError> {
    let limit = with_margin(STATEMENT_MAX);
    let text = format!("SAVEPOINT leasehold; {sql}; RELEASE SAVEPOINT leasehold");
    match session.run(&text, limit).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_refusal() => {
            session.run("ROLLBACK TO SAVEPOINT leasehold; RELEASE SAVEPOINT leasehold", limit).await?;
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

/// Statements for some of the objects, when there are too many for one transaction: of tables and large objects alone there may be
/// any number.
async fn portion(session: &Session, oid: u32, heir: Option<&str>) -> Result<Option<String>, TargetError> {
    let sql = format!(
        "SELECT i.type, i.identity FROM (SELECT s.classid, s.objid FROM pg_shdepend s \
         LEFT JOIN pg_class c ON s.classid = 'pg_class'::regclass AND c.oid = s.objid \
         WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {oid} AND s.deptype = 'o' \
         AND s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) \
         AND (s.classid = 'pg_largeobject'::regclass OR c.relkind IN ('r', 'p', 'v', 'm', 'f')) LIMIT {PORTION} + 1) o, \
         LATERAL pg_identify_object(o.classid, o.objid, 0) i"
    );
    let answer = session.run(&sql, with_margin(STATEMENT_MAX)).await?;
    let found: Vec<(String, String)> = rows(&answer)
        .filter_map(|row| match row.as_slice() {
            [Some(kind), Some(identity)] => Some(((*kind).to_owned(), (*identity).to_owned())),
            _ => None,
        })
        .collect();
    if found.len() <= PORTION {
        return Ok(None);
    }
    let moves = found.iter().map(|(kind, identity)| match (heir, kind.as_str()) {
        (Some(heir), _) => format!("ALTER {kind} {identity} OWNER TO {}", ident(heir)),
        (None, "large object") => format!("SELECT lo_unlink({identity})"),
        (None, _) => format!("DROP {kind} IF EXISTS {identity} CASCADE"),
    });
    Ok(Some(moves.collect::<Vec<_>>().join("; ")))
}

/// PostgreSQL lets an object in a schema go only to a role that may create there. The heir may do so for as long as this
/// transaction lasts, by the rights that the leased role had; nobody sees it.
async fn rights_to_own(
    session: &Session,
    name: &str,
    oid: u32,
    heir: &str,
) -> Result<(Vec<String>, Vec<String>), TargetError> {
    let schemas = format!(
        "SELECT DISTINCT n.nspname, has_schema_privilege(n.oid, 'CREATE WITH GRANT OPTION') OR n.nspowner = {oid} \
         FROM pg_shdepend s, LATERAL pg_identify_object(s.classid, s.objid, s.objsubid) o, pg_namespace n \
         WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {oid} AND s.deptype = 'o' \
         AND s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) \
         AND quote_ident(n.nspname) = o.schema AND NOT has_schema_privilege({}, n.oid, 'CREATE')",
        literal(heir)
    );
    let answer = session.run(&schemas, with_margin(STATEMENT_MAX)).await?;
    let (mut lend, mut take_back) = (Vec::new(), Vec::new());
    let mut needs_groups = false;
    for row in rows(&answer) {
        match row.as_slice() {
            [Some(schema), Some("t")] => {
                lend.push(format!("GRANT CREATE ON SCHEMA {} TO {}", ident(schema), ident(heir)));
                take_back.push(format!("REVOKE CREATE ON SCHEMA {} FROM {}", ident(schema), ident(heir)));
            }
            _ => needs_groups = true,
        }
    }
    if needs_groups {
        let groups = format!(
            "SELECT DISTINCT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = {oid} \
             AND g.rolname <> CURRENT_USER \
             AND NOT EXISTS (SELECT FROM pg_auth_members h JOIN pg_roles r ON r.oid = h.member \
             WHERE h.roleid = m.roleid AND r.rolname = {})",
            literal(heir)
        );
        let answer = session.run(&groups, ANSWER_MAX).await?;
        for group in rows(&answer).filter_map(|row| row.first().copied().flatten()).filter(|group| *group != name) {
            lend.push(format!("GRANT {} TO {}", ident(group), ident(heir)));
            take_back.push(format!("REVOKE {} FROM {}", ident(group), ident(heir)));
        }
    }
    if owns_outside_schemas(session, oid).await? {
        lend.push(format!("GRANT {} TO {}", ident(name), ident(heir)));
        take_back.push(format!("REVOKE {} FROM {}", ident(name), ident(heir)));
    }
    Ok((lend, take_back))
}

/// A publication goes only to who may create in its database, a foreign server to who may use its wrapper: rights that the leased
/// role had, from whoever it had them.
async fn owns_outside_schemas(session: &Session, oid: u32) -> Result<bool, TargetError> {
    let sql = format!(
        "SELECT 1 FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {oid} AND s.deptype = 'o' \
         AND s.dbid = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) \
         AND s.classid IN ('pg_publication'::regclass, 'pg_foreign_server'::regclass) LIMIT 1"
    );
    let answer = session.run(&sql, with_margin(STATEMENT_MAX)).await?;
    Ok(rows(&answer).next().is_some())
}

/// What is still there in the end, with who granted it and who could take it back.
async fn blockers(session: &Session, oid: u32, database: &str) -> Result<Vec<String>, TargetError> {
    // Usually nothing is left.
    if !has_dependencies(session, oid, "").await? {
        return Ok(Vec::new());
    }
    let mut left: Vec<String> = grants(session, oid, Grants::To)
        .await?
        .into_iter()
        .map(|Grant { rights, object, grantor, .. }| {
            format!(
                "{rights} on {object} granted by {grantor:?} in database {database:?} \
                 (role {grantor:?} or a superuser acting as it can REVOKE that)"
            )
        })
        .collect();
    let others = format!(
        "SELECT pg_describe_object(s.classid, s.objid, 0) FROM pg_shdepend s \
         WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {oid} AND s.deptype <> 'a' \
         AND s.dbid IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) LIMIT {BLOCKERS_MAX}"
    );
    let answer = session.run(&others, with_margin(STATEMENT_MAX)).await?;
    let others = rows(&answer).filter_map(|row| row.first().copied().flatten().map(str::to_owned));
    left.extend(others.map(|object| format!("{object} in database {database:?}")));
    Ok(left)
}
