//! What a leased role owns or was granted, in every database of its server: given away, then taken from it.
//!
//! Never to the admin: a function with SECURITY DEFINER that a leased role left behind would run with the admin's rights.

use tokio_postgres::error::SqlState;

use super::connection::Leftovers;
use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::sql::{ident, literal};
use super::subject::Subject;
use super::target::{ANSWER_MAX, Session, Target, rows, with_margin};

/// More would not make an error clearer.
const BLOCKERS_MAX: usize = 20;

/// Empties the role. Returns in words what could not be taken from it.
pub(super) async fn give_away(
    target: &Target,
    subject: &Subject<'_>,
    oid: u32,
    leftovers: &Leftovers,
) -> Result<Vec<String>, TargetError> {
    let session = target.session().await?;
    let databases = databases(&session, oid, target.database()).await?;
    if databases.is_empty() {
        session.finish();
        return Ok(Vec::new());
    }
    if let Leftovers::To(heir) = leftovers {
        ready_heir(&session, heir, target.user()).await?;
    }
    session.finish();
    let mut blockers = Vec::new();
    for database in databases {
        // Rights on an object are one row of the catalogue: two who change it at once make one of them fail.
        let _turn = target.turn(&database).await?;
        let session = match database == target.database() {
            true => target.session().await?,
            false => target.session_in(&database).await?,
        };
        blockers.extend(empty(&session, subject, oid, leftovers, &database).await?);
        session.finish();
    }
    blockers.truncate(BLOCKERS_MAX);
    Ok(blockers)
}

/// Where the role owns or was granted something; what belongs to the whole server counts as `home`'s.
/// `pg_shdepend` is as long as leased roles made it: to read it may take its time without the target counting as hanging.
async fn databases(session: &Session, oid: u32, home: &str) -> Result<Vec<String>, TargetError> {
    let sql = format!(
        "SELECT DISTINCT coalesce(d.datname, {}) FROM pg_catalog.pg_shdepend s \
         LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid \
         WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = {oid}",
        literal(home)
    );
    let answer = session.ask(&sql, with_margin(STATEMENT_MAX)).await?;
    Ok(rows(&answer).filter_map(|row| row.first().copied().flatten().map(str::to_owned)).collect())
}

/// Makes the role that inherits, if it is not there, and refuses one that could do something with what it gets.
async fn ready_heir(session: &Session, heir: &str, admin: &str) -> Result<(), TargetError> {
    if heir == admin {
        return Err(TargetError::Refused("reassign_owned_to must not name the connection's own user".to_owned()));
    }
    let look = format!(
        "SELECT (r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls \
         OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid)), \
         (r.rolsuper OR r.rolcreaterole), \
         pg_catalog.pg_has_role(r.oid, 'USAGE') FROM pg_catalog.pg_roles r WHERE r.rolname = {}",
        literal(heir)
    );
    let mut answer = session.ask(&look, ANSWER_MAX).await?;
    if rows(&answer).next().is_none() {
        match session.run(&format!("CREATE ROLE {} NOLOGIN", ident(heir)), with_margin(STATEMENT_MAX)).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(error) if error.is_code(&SqlState::DUPLICATE_OBJECT) || error.is_code(&SqlState::UNIQUE_VIOLATION) => {}
            Err(error) => return Err(error),
        }
        answer = session.ask(&look, ANSWER_MAX).await?;
    }
    let row = rows(&answer).next().unwrap_or_default();
    let is = |at: usize| row.get(at).copied().flatten() == Some("t");
    // One that the operator named may have rights, but none with which others could be made.
    let has_too_much = if heir == super::connection::REASSIGN_TO { is(0) } else { is(1) };
    if has_too_much {
        return Err(TargetError::Refused(format!(
            "role {heir:?} must not have rights of its own: what leased roles leave behind would run with them"
        )));
    }
    if !is(2) {
        session.run(&format!("GRANT {} TO CURRENT_USER", ident(heir)), with_margin(STATEMENT_MAX)).await?;
    }
    Ok(())
}

/// One database, one transaction.
async fn empty(
    session: &Session,
    subject: &Subject<'_>,
    oid: u32,
    leftovers: &Leftovers,
    database: &str,
) -> Result<Vec<String>, TargetError> {
    let limit = with_margin(STATEMENT_MAX);
    let name = subject.name;
    session.run(&format!("BEGIN; SET LOCAL search_path = pg_catalog; {}", subject.hold()), limit).await?;
    if let Leftovers::To(heir) = leftovers {
        let (lend, take_back) = rights_to_own(session, name, oid, heir).await?;
        for grant in &lend {
            session.run(grant, limit).await?;
        }
        session.run(&format!("REASSIGN OWNED BY {} TO {}", ident(name), ident(heir)), limit).await?;
        for revoke in &take_back {
            session.run(revoke, limit).await?;
        }
    }
    session.run(&format!("DROP OWNED BY {}", ident(name)), limit).await?;
    let left = blockers(session, oid, database).await?;
    session.run("COMMIT", limit).await?;
    Ok(left)
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

/// What is still there after `DROP OWNED`, with who granted it.
async fn blockers(session: &Session, oid: u32, database: &str) -> Result<Vec<String>, TargetError> {
    // `pg_shdepend` first: usually nothing is left, and the catalogues behind it are long.
    let left = format!(
        "SELECT count(*) FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {oid} \
         AND s.dbid IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))"
    );
    let answer = session.run(&left, with_margin(STATEMENT_MAX)).await?;
    if rows(&answer).next().and_then(|row| row.first().copied().flatten().map(|count| count == "0")) == Some(true) {
        return Ok(Vec::new());
    }
    let acl = |class: &str, column: &str| {
        format!(
            "SELECT '{class}'::regclass AS class, o.oid AS object, a.grantor, a.privilege_type FROM {class} o, \
             LATERAL aclexplode(o.{column}) a WHERE a.grantee = {oid}"
        )
    };
    let all = [
        acl("pg_class", "relacl"),
        acl("pg_namespace", "nspacl"),
        acl("pg_proc", "proacl"),
        acl("pg_type", "typacl"),
        acl("pg_database", "datacl"),
        format!(
            "SELECT 'pg_class'::regclass, o.attrelid, a.grantor, a.privilege_type FROM pg_attribute o, \
             LATERAL aclexplode(o.attacl) a WHERE a.grantee = {oid}"
        ),
    ]
    .join(" UNION ALL ");
    let sql = format!(
        "SELECT string_agg(DISTINCT g.privilege_type, ', '), pg_describe_object(g.class, g.object, 0), \
         coalesce(r.rolname, g.grantor::text) FROM ({all}) g LEFT JOIN pg_roles r ON r.oid = g.grantor \
         GROUP BY g.class, g.object, r.rolname, g.grantor LIMIT {BLOCKERS_MAX}"
    );
    let answer = session.run(&sql, with_margin(STATEMENT_MAX)).await?;
    let said = |row: Vec<Option<&str>>| {
        let text = |at: usize| row.get(at).copied().flatten().unwrap_or("?").to_owned();
        format!("{} on {} granted by {:?} in database {database:?}", text(0), text(1), text(2))
    };
    Ok(rows(&answer).map(said).collect())
}
