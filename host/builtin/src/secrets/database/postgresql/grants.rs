//! Rights on objects that a role was granted, or granted to others: who gave what to whom, and the statement that takes it back.

use super::dial::STATEMENT_MAX;
use super::failure::TargetError;
use super::pool::{Session, with_margin};
use super::sql::{ident, rows};

/// Which grants are looked for.
#[derive(Clone, Copy)]
pub(crate) enum Grants {
    /// To the role.
    To,
    /// By the role, to others.
    By,
}

/// Rights of one role on one object, from one grantor.
pub(crate) struct Grant {
    kind: String,
    identity: String,
    /// As PostgreSQL describes it.
    pub(crate) object: String,
    pub(crate) rights: String,
    pub(crate) grantor: String,
    pub(crate) grantee: String,
}

impl Grant {
    /// What takes it back; `None` of a kind of object that has no such statement.
    pub(crate) fn revoke(&self, role: &str) -> Option<String> {
        let keyword = match self.kind.as_str() {
            "table" | "view" | "materialized view" | "foreign table" | "partitioned table" => "TABLE",
            "sequence" => "SEQUENCE",
            "schema" => "SCHEMA",
            "database" => "DATABASE",
            "function" | "procedure" | "aggregate" | "window function" => "ROUTINE",
            "type" => "TYPE",
            "domain" => "DOMAIN",
            "language" => "LANGUAGE",
            "large object" => "LARGE OBJECT",
            "foreign-data wrapper" => "FOREIGN DATA WRAPPER",
            "server" => "FOREIGN SERVER",
            "tablespace" => "TABLESPACE",
            _ => return None,
        };
        Some(format!("REVOKE ALL PRIVILEGES ON {keyword} {} FROM {} CASCADE", self.identity, ident(role)))
    }
}

/// The catalogues whose objects have rights, and the column with them.
const ACLS: [(&str, &str); 10] = [
    ("pg_class", "relacl"),
    ("pg_namespace", "nspacl"),
    ("pg_proc", "proacl"),
    ("pg_type", "typacl"),
    ("pg_database", "datacl"),
    ("pg_language", "lanacl"),
    ("pg_largeobject_metadata", "lomacl"),
    ("pg_foreign_data_wrapper", "fdwacl"),
    ("pg_foreign_server", "srvacl"),
    ("pg_tablespace", "spcacl"),
];

/// What follows FROM: every right on an object that has something to do with the role, as `g`. `pg_shdepend` names those objects, so
/// that the long catalogues behind it are not read as a whole.
fn rights_about(oid: u32) -> String {
    let about = |class: &str| {
        // Rights on large objects hang on the object itself.
        let class = if class == "pg_largeobject_metadata" { "pg_largeobject" } else { class };
        format!(
            "(SELECT DISTINCT d.classid, d.objid FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass \
             AND d.refobjid = {oid} AND d.deptype = 'a' AND d.classid = '{class}'::regclass \
             AND d.dbid IN (0, (SELECT b.oid FROM pg_database b WHERE b.datname = current_database()))) s"
        )
    };
    let of_columns = format!(
        "SELECT s.classid, s.objid, a.grantor, a.grantee, a.privilege_type FROM {} \
         JOIN pg_attribute o ON o.attrelid = s.objid, LATERAL aclexplode(o.attacl) a",
        about("pg_class")
    );
    let all = ACLS.iter().map(|(class, column)| {
        format!(
            "SELECT s.classid, s.objid, a.grantor, a.grantee, a.privilege_type FROM {} \
             JOIN {class} o ON o.oid = s.objid, LATERAL aclexplode(o.{column}) a",
            about(class)
        )
    });
    format!("({}) g", all.chain([of_columns]).collect::<Vec<_>>().join(" UNION ALL "))
}

/// Of objects in the session's database and of the whole server. The session's search path is `pg_catalog`.
pub(crate) async fn grants(session: &Session, oid: u32, which: Grants) -> Result<Vec<Grant>, TargetError> {
    if !has_dependencies(session, oid, "AND s.deptype = 'a'").await? {
        return Ok(Vec::new());
    }
    let condition = match which {
        Grants::To => format!("g.grantee = {oid}"),
        Grants::By => format!("g.grantor = {oid} AND g.grantee <> {oid}"),
    };
    let sql = format!(
        "SELECT i.type, i.identity, pg_describe_object(g.classid, g.objid, 0), \
         string_agg(DISTINCT g.privilege_type, ', '), coalesce(b.rolname, g.grantor::text), \
         CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE coalesce(t.rolname, g.grantee::text) END \
         FROM {} LEFT JOIN pg_roles b ON b.oid = g.grantor LEFT JOIN pg_roles t ON t.oid = g.grantee, \
         LATERAL pg_identify_object(g.classid, g.objid, 0) i WHERE {condition} \
         GROUP BY i.type, i.identity, g.classid, g.objid, b.rolname, g.grantor, t.rolname, g.grantee",
        rights_about(oid)
    );
    let answer = session.run(&sql, with_margin(STATEMENT_MAX)).await?;
    let one = |row: Vec<Option<&str>>| match row.as_slice() {
        [Some(kind), Some(identity), Some(object), Some(rights), Some(grantor), Some(grantee)] => Some(Grant {
            kind: (*kind).to_owned(),
            identity: (*identity).to_owned(),
            object: (*object).to_owned(),
            rights: (*rights).to_owned(),
            grantor: (*grantor).to_owned(),
            grantee: (*grantee).to_owned(),
        }),
        _ => None,
    };
    Ok(rows(&answer).filter_map(one).collect())
}

/// Whether this database, or the server as a whole, still knows the role.
pub(crate) async fn has_dependencies(session: &Session, oid: u32, condition: &str) -> Result<bool, TargetError> {
    let sql = format!(
        "SELECT 1 FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = {oid} {condition} \
         AND s.dbid IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) LIMIT 1"
    );
    let answer = session.run(&sql, with_margin(STATEMENT_MAX)).await?;
    Ok(rows(&answer).next().is_some())
}
