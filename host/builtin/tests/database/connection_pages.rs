//! The tables of `host/docs/connection-strings.md` and `connection-fields.md`, row by row, against a real server.

use std::sync::Arc;

use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::request::LogicalResponse;
use leasehold_core::seams::error::RequestError;
use leasehold_devpg::Options;
use serde_json::{Value, json};

use crate::certificates::Certificates;
use crate::support::{World, own_server};

/// Option or field, answer, example and note of each row whose answer is one of the three.
fn rows(page: &str) -> Vec<[String; 4]> {
    let cells = |line: &str| -> Vec<String> {
        line.trim().trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| <[String; 4]>::try_from(cells(line)).ok())
        .filter(|[_, answer, ..]| ["works", "warning", "refused"].contains(&answer.as_str()))
        .collect()
}

/// Whether the outcome is what the page says of `name`.
fn check(name: &str, answer: &str, done: &Result<LogicalResponse, RequestError>, what: &str) {
    let quoted = format!("{name:?}");
    let told = |answer: &LogicalResponse| {
        answer.warnings.iter().any(|warning| warning.contains(&quoted) || warning.starts_with(name))
    };
    let is_so = match (answer, done) {
        ("works", Ok(answer)) => !told(answer),
        ("warning", Ok(answer)) => told(answer),
        ("refused", Err(RequestError::Invalid(said))) => said.contains(name) || said.contains(&name.replace('_', " ")),
        _ => false,
    };
    assert!(is_so, "{what}: the page says {answer}, but {done:?}");
}

struct Place {
    world: World,
    made: Certificates,
    version: u32,
}

fn place() -> Place {
    let made = Certificates::new();
    made.signed("server", "localhost", Some("basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost\n"), "-days 2");
    made.signed("client", "leasehold_admin", Some("basicConstraints=CA:FALSE\n"), "-days 2");
    let options = Options { tls: Some(made.server("server", false)), max_connections: 300, ..Options::default() };
    let mut world = World::on(Arc::new(own_server(options)));
    world.engine = DatabaseEngine::with_files(Some(made.path().to_owned()));
    world.pg.psql("CREATE ROLE deployer CREATEROLE; GRANT deployer TO leasehold_admin; GRANT readonly TO deployer WITH ADMIN OPTION").unwrap();
    let version = world.pg.psql("SHOW server_version_num").unwrap().parse::<u32>().unwrap() / 10_000;
    Place { world, made, version }
}

impl Place {
    fn body(&self, url: String) -> Value {
        json!({
            "plugin_name": "postgresql-database-plugin", "connection_url": url, "allowed_roles": "*",
            "username": self.world.pg.admin_user(), "password": self.world.pg.admin_password(),
            "tls_ca": self.made.text("ca.pem"),
        })
    }

    /// A row of an option, as `key=value` and as a URL.
    fn urls(&self, example: &str) -> [String; 2] {
        let (port, user) = (self.world.pg.port().to_string(), self.world.pg.admin_user());
        let filled =
            example.replace("PORT", &port).replace("USER", user).replace("PASSWORD", self.world.pg.admin_password());
        let pairs: Vec<(&str, &str)> = filled.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        let base = [
            ("host", "localhost"),
            ("port", port.as_str()),
            ("user", "{{username}}"),
            ("password", "{{password}}"),
            ("dbname", "myapp"),
        ];
        let base = base.into_iter().filter(|(name, _)| pairs.iter().all(|(given, _)| given != name));
        let all: Vec<(&str, &str)> = base.chain(pairs.iter().copied()).collect();
        let quoted = |value: &str| if value.starts_with("{{") { value.to_owned() } else { format!("'{value}'") };
        let listed = all.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect::<Vec<_>>().join(" ");
        let escaped = |value: &str| value.replace('%', "%25").replace(' ', "%20").replace('&', "%26");
        let query = all.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>().join("&");
        [listed, format!("postgresql:///?{query}")]
    }
}

#[tokio::test]
async fn every_option_of_the_page_has_the_answer_that_stands_there() {
    let place = place();
    let page = include_str!("../../../docs/connection-strings.md");
    let rows = rows(page);
    assert!(rows.len() > 100, "the tables were not found");
    for [name, answer, example, note] in rows {
        let needs =
            note.split_once("From PostgreSQL ").and_then(|(_, rest)| rest.trim_end_matches('.').parse::<u32>().ok());
        for url in place.urls(&example) {
            let done = place.world.write("config/row", place.body(url.clone())).await;
            if needs.is_some_and(|needs| place.version < needs) {
                // It reached the server, which is too old for it.
                let said = format!("{done:?}");
                assert!(said.contains("unrecognized configuration parameter"), "{url}: {said}");
                continue;
            }
            check(&name, &answer, &done, &url);
        }
    }
}

/// What libpq 18 documents, and what pgx does: no option of theirs may be missing from the page.
#[test]
fn no_option_that_others_document_is_missing_from_the_page() {
    const KNOWN: &str = "host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding \
        options application_name fallback_application_name keepalives keepalives_idle keepalives_interval keepalives_count \
        tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert sslkey sslkeylogfile \
        sslpassword sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version ssl_max_protocol_version \
        min_protocol_version max_protocol_version krbsrvname gsslib gssdelegation scram_client_key scram_server_key service \
        target_session_attrs load_balance_hosts oauth_issuer oauth_client_id oauth_client_secret oauth_scope \
        krbspn servicefile default_query_exec_mode statement_cache_capacity description_cache_capacity pool_max_conns pool_min_conns \
        pool_min_idle_conns pool_max_conn_lifetime pool_max_conn_lifetime_jitter pool_max_conn_idle_time pool_health_check_period";
    let rows = rows(include_str!("../../../docs/connection-strings.md"));
    for known in KNOWN.split_whitespace() {
        assert!(rows.iter().any(|[name, ..]| name == known), "{known} has no row");
    }
}

#[tokio::test]
async fn settings_of_the_url_hold_while_statements_run() {
    let place = place();
    let options = "statement_timeout=5s&lock_timeout=2s&work_mem=8MB&role=deployer&timezone=Europe/Berlin&options=-c geqo=off&jit=off";
    let seen = "DO $$ BEGIN RAISE EXCEPTION 'seen % % % % % %', current_setting('lock_timeout'), current_setting('work_mem'), \
                current_setting('geqo'), current_setting('jit'), current_setting('timezone'), current_user; END $$";
    for url in place.urls(options) {
        let mut body = place.body(url.clone());
        body["plugin_name"] = json!("postgresql-database-plugin");
        place.world.write("config/pg", body).await.unwrap();
        place.world.role("seen", seen, json!({})).await;
        let said = place.world.issue_fails("seen").await;
        assert!(said.contains("seen 2s 8MB off off Europe/Berlin deployer"), "{url}: {said}");
        place.world.role("made", crate::support::MEMBER, json!({})).await;
        let issued = place.world.issue("made").await;
        place.world.revoke(&issued).await.unwrap();
        // The session goes back to the role that the URL names, not to the user who logged in.
        let said = place.world.issue_fails("seen").await;
        assert!(said.contains("Europe/Berlin deployer"), "{url}: {said}");
    }
}

#[tokio::test]
async fn every_field_of_the_page_has_the_answer_that_stands_there() {
    let place = place();
    let rows = rows(include_str!("../../../docs/connection-fields.md"));
    assert!(rows.len() > 40, "the table was not found");
    let policy = "length = 20\nrule \"charset\" {\n charset = \"abc\"\n}\n";
    place.world.context.passwords.write("mine", policy).await.unwrap();
    for [name, answer, example, _] in rows {
        let mut body = place.body(place.urls("sslmode=prefer")[1].clone());
        body["tls_ca"] = json!("");
        body[&name] = match example.strip_prefix("PEM:") {
            Some(file) => json!(place.made.text(&format!("{file}.pem"))),
            None => serde_json::from_str(&example).unwrap(),
        };
        if example == "PEM:client" {
            body["private_key"] = json!(place.made.text("client.key"));
        }
        if example == "PEM:ca" {
            body["connection_url"] = json!(place.urls("sslmode=verify-full")[1]);
        }
        // Written as a whole: what a row before has left does not count.
        drop(place.world.answer(leasehold_model::Operation::Delete, "config/row", json!({})).await);
        let done = place.world.write("config/row", body).await;
        let named = if name == "tls_private_key" { "private_key" } else { &name };
        check(named, &answer, &done, &name);
        if answer == "warning" && name != "root_rotation_statements" {
            let read = place.world.read("config/row").await.unwrap();
            let kept = read["connection_details"].get(&name).or_else(|| read.get(&name));
            assert!(kept.is_some(), "{name} is kept: {read}");
        }
    }
}
