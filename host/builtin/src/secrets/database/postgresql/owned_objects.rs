//! What a leased role owns or was granted, in every database of its server: given away, then taken from it.
//!
//! Never to the admin: a function with SECURITY DEFINER that a leased role left behind would run with the admin's rights.

use std::time::Duration;

use super::super::connection::Leftovers;
use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
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

/// Empties the role. Returns in words what could not be taken from it.
pub(crate) async fn give_away(
    target: &ConnectionPool,
    subject: &RoleIdentity<'_>,
    oid: u32,
    leftovers: &Leftovers,
) -> Result<Vec<String>, TargetError> {
    let session = target.session().await?;
    let databases = databases(&session, oid, target.database()).await?;
    let heir = match databases.is_empty() {
        true => None,
        false => reassign_owner::ready(&session, leftovers, target.user(), oid).await?,
    };
    session.finish();
    let mut blockers = Vec::new();
    for database in databases {
        loop {
            // Rights on an object are one row of the catalogue: two who change it at once make one of them fail.
            let _turn = target.turn(&database, PATIENCE).await?;
            let session = target.session_at(&database).await?;
            let emptied = empty(&session, subject, oid, heir.as_deref(), &database).await?;
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

/// How far one transaction came in one database.
enum Emptied {
    /// There is more.
    InPart,
    Wholly {
        left: Vec<String>,
    },
}

/// One transaction in one database.
async fn empty(
    session: &Session,
    subject: &RoleIdentity<'_>,
    oid: u32,
    heir: Option<&str>,
    database: &str,
) -> Result<Emptied, TargetError> {
    let limit = with_margin(STATEMENT_MAX);
    let name = subject.name;
    let begin = format!(
        "BEGIN; SET LOCAL search_path = pg_catalog; SET LOCAL lock_timeout = {}; {}",
        PATIENCE.as_millis(),
        subject.hold()
    );
    session.run(&begin, limit).await?;
    let portion = portion(session, oid, heir).await?;
    if let Some(heir) = heir {
        let (lend, take_back) = rights_to_own(session, name, oid, heir).await?;
        for grant in &lend {
            session.run(grant, limit).await?;
        }
        let all = format!("REASSIGN OWNED BY {} TO {}", ident(name), ident(heir));
        session.run(portion.as_ref().unwrap_or(&all), limit).await?;
        for revoke in &take_back {
            session.run(revoke, limit).await?;
        }
    } else if let Some(portion) = &portion {
        session.run(portion, limit).await?;
    }
    let emptied = match portion {
        Some(_) => Emptied::InPart,
        None => {
            session.run(&format!("DROP OWNED BY {}", ident(name)), limit).await?;
            Emptied::Wholly { left: blockers(session, oid, database).await? }
        }
    };
    session.run("COMMIT", limit).await?;
    Ok(emptied)
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
        "SELECT pg_describe_object(s.classid, s.objid, 0), string_agg(DISTINCT g.privilege_type, ', '), \
         string_agg(DISTINCT '\"' || coalesce(r.rolname, g.grantor::text) || '\"', ', ') \
         FROM (SELECT DISTINCT d.classid, d.objid FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass \
         AND d.refobjid = {oid} AND d.dbid IN (0, (SELECT b.oid FROM pg_database b WHERE b.datname = current_database()))) s \
         LEFT JOIN ({all}) g ON g.class = s.classid AND g.object = s.objid LEFT JOIN pg_roles r ON r.oid = g.grantor \
         GROUP BY s.classid, s.objid LIMIT {BLOCKERS_MAX}"
    );
    let answer = session.run(&sql, with_margin(STATEMENT_MAX)).await?;
    let said = |row: Vec<Option<&str>>| {
        let object = row.first().copied().flatten().unwrap_or("?");
        match row.as_slice() {
            [_, Some(rights), Some(grantors)] => {
                format!("{rights} on {object} granted by {grantors} in database {database:?}")
            }
            _ => format!("{object} in database {database:?}"),
        }
    };
    Ok(rows(&answer).map(said).collect())
}
