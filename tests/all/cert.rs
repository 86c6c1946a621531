//! cert: clients log in with the certificate of their TLS connection.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::auth::enable;
use crate::support::{Durable, Server, free_port, leaf_certificate};

const PATIENCE: Duration = Duration::from_secs(60);
/// `openssl` makes a key and what is signed with it.
const NEW_KEY: [&str; 6] = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
const REFUSED: &str = "invalid certificate or no client certificate supplied";

/// Certificates of a test: authorities and what they make out.
struct Papers(TempDir);

impl Papers {
    fn new() -> Self {
        let papers = Self(TempDir::new().unwrap());
        leaf_certificate(papers.folder(), "server");
        papers
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder()).output().expect("openssl");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn authority(&self, name: &str) {
        let (key, file, subject) = (format!("{name}.key"), format!("{name}.crt"), format!("/CN={name}"));
        let own = ["-x509", "-days", "2", "-subj", &subject, "-keyout", &key, "-out", &file];
        self.openssl(&[&NEW_KEY[..], &own].concat());
    }

    fn issue(&self, name: &str, by: &str, subject: &str, extensions: &str) {
        let [key, request, file, extended] = ["key", "csr", "crt", "ext"].map(|kind| format!("{name}.{kind}"));
        fs::write(self.folder().join(&extended), extensions).unwrap();
        self.openssl(&[&NEW_KEY[..], &["-subj", subject, "-keyout", &key, "-out", &request]].concat());
        let (ca, ca_key) = (format!("{by}.crt"), format!("{by}.key"));
        let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2"];
        self.openssl(&[&sign[..], &["-extfile", &extended, "-out", &file]].concat());
    }

    /// A client of an authority, with `extendedKeyUsage` and these names.
    fn client(&self, name: &str, by: &str, names: &str) {
        let names = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
        self.issue(
            name,
            by,
            &format!("/O=x/OU=ops/CN={name}"),
            &format!("extendedKeyUsage=clientAuth\nsubjectKeyIdentifier=hash\n{names}"),
        );
    }

    fn revoked(&self, by: &str, name: &str) -> String {
        fs::write(self.folder().join("index.txt"), "").unwrap();
        fs::write(self.folder().join("crlnumber"), "01\n").unwrap();
        let config = "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=2\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n";
        fs::write(self.folder().join("ca.cnf"), config).unwrap();
        let (ca, key, file) = (format!("{by}.crt"), format!("{by}.key"), format!("{name}.crt"));
        let base = ["ca", "-config", "ca.cnf", "-keyfile", &key, "-cert", &ca];
        self.openssl(&[&base[..], &["-revoke", &file]].concat());
        self.openssl(&[&base[..], &["-gencrl", "-out", "crl.pem"]].concat());
        self.pem("crl.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.crt"))
    }

    fn pem(&self, file: &str) -> String {
        fs::read_to_string(self.folder().join(file)).unwrap()
    }
}

/// A server with a TLS listener besides its plain one, and the method enabled.
struct Fixture {
    papers: Papers,
    server: Server,
    port: u16,
}

impl Fixture {
    fn start(settings: &str) -> Self {
        let (papers, port) = (Papers::new(), free_port());
        papers.authority("ca");
        let server = Server::prepared(&Durable::default());
        let folder = papers.folder().display();
        let settings = settings.replace("FOLDER", &folder.to_string());
        server.write_config(&format!(
            "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_cert_file = \"{folder}/server.crt\"\n  tls_key_file = \"{folder}/server.key\"\n  {settings}\n}}\n\
             audit \"file\" \"file\" {{\n  options = {{ file_path = \"{}/audit/audit.log\" }}\n}}\n",
            server.home().display()
        ));
        server.start();
        server.init(1, 1);
        server.unseal();
        enable(&server, "cert", "cert");
        Self { papers, server, port }
    }

    fn store(&self, name: &str, body: Value) {
        let mut all = json!({ "certificate": self.papers.pem("ca.crt"), "token_policies": "apps" });
        for (field, value) in body.as_object().unwrap() {
            all[field] = value.clone();
        }
        self.server.root().post(&format!("auth/cert/certs/{name}"), all).assert_status(204);
    }

    /// Status and answer of a request over TLS, with the certificates of these files.
    fn ask(&self, shown: &[&str], path: &str, token: Option<&str>, body: Value) -> (u16, Value) {
        self.ask_as(&self.client(shown), path, token, body).0
    }

    /// Whoever has these certificates, and what they remember of one connection for the next.
    fn client(&self, shown: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.papers.path("server")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown.first() {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let chain =
                    shown.iter().map(|name| CertificateDer::from_pem_file(self.papers.path(name)).unwrap()).collect();
                let key = PrivateKeyDer::from_pem_file(self.papers.folder().join(format!("{leaf}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Arc::new(config)
    }

    /// The answer, and how the handshake went.
    fn ask_as(
        &self,
        client: &Arc<ClientConfig>,
        path: &str,
        token: Option<&str>,
        body: Value,
    ) -> ((u16, Value), Option<HandshakeKind>) {
        let connection = ClientConnection::new(Arc::clone(client), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let token = token.map(|token| format!("X-Vault-Token: {token}\r\n")).unwrap_or_default();
        let body = body.to_string();
        let head = format!(
            "POST /v1/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        self.server.secrets().tell(body["auth"]["client_token"].as_str().unwrap_or_default());
        ((status, body), stream.conn.handshake_kind())
    }

    fn log_in(&self, shown: &[&str]) -> (u16, Value) {
        self.ask(shown, "auth/cert/login", None, json!({}))
    }

    #[track_caller]
    fn token(&self, shown: &[&str]) -> String {
        let (status, answer) = self.log_in(shown);
        assert_eq!(status, 200, "{shown:?}: {answer}");
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn refuses(&self, shown: &[&str], reason: &str) {
        let (status, answer) = self.log_in(shown);
        assert_eq!((status, &answer["errors"]), (400, &json!([REFUSED])), "{shown:?}");
        let audit = self.server.audit_text();
        assert!(audit.lines().last().unwrap().contains(reason), "{reason}\n{}", audit.lines().last().unwrap());
    }
}

#[test]
fn a_client_whose_certificate_an_authority_made_logs_in_and_others_do_not() {
    let at = Fixture::start("");
    at.papers.authority("other");
    at.papers.client("app", "ca", "DNS:app.example,URI:spiffe://a/app");
    at.papers.client("stranger", "other", "DNS:app.example");
    at.papers.issue("web", "ca", "/CN=web", "extendedKeyUsage=serverAuth\n");
    at.refuses(&["app"], "no stored certificate vouches");
    at.store("Apps", json!({ "token_ttl": "1h", "display_name": "machines" }));
    let (status, answer) = at.log_in(&["app"]);
    assert_eq!(status, 200, "{answer}");
    let auth = &answer["auth"];
    assert_eq!(auth["policies"], json!(["apps", "default"]), "{auth}");
    assert_eq!(
        (&auth["metadata"]["cert_name"], &auth["metadata"]["common_name"]),
        (&json!("apps"), &json!("app")),
        "{auth}"
    );
    assert_eq!((&auth["lease_duration"], &auth["orphan"]), (&json!(3600), &json!(true)), "{auth}");
    let client = at.server.as_token(auth["client_token"].as_str().unwrap());
    client.get("auth/token/lookup-self").assert_at("/data/display_name", "cert-machines");

    at.refuses(&["stranger"], "does not vouch for the client's certificate");
    // An authority that the client brings along is nobody that anybody trusts.
    at.refuses(&["stranger", "other"], "does not vouch for the client's certificate");
    at.refuses(&["web"], "does not vouch for the client's certificate");
    let (status, answer) = at.log_in(&[]);
    assert_eq!((status, &answer["errors"]), (400, &json!(["no client certificate found"])));
    // Neither does a plain connection have one.
    at.server.nobody().post("auth/cert/login", json!({})).assert_error(400, "no client certificate found");
    // A stored certificate that is named is the only one that is tried.
    at.store("none", json!({ "allowed_names": "nobody" }));
    assert_eq!(at.ask(&["app"], "auth/cert/login", None, json!({ "name": "APPS" })).0, 200);
    assert_eq!(at.ask(&["app"], "auth/cert/login", None, json!({ "name": "none" })).0, 400);
    assert_eq!(at.ask(&["app"], "auth/cert/login", None, json!({ "name": "nope" })).0, 400);
    // The client's own certificate may be stored, too.
    at.server.root().delete("auth/cert/certs/apps").assert_status(204);
    at.store("apps", json!({ "certificate": at.papers.pem("stranger.crt") }));
    at.token(&["stranger"]);
    at.refuses(&["app"], "");
}

#[test]
fn a_client_logs_in_with_its_certificate_on_the_command_line() {
    let at = Fixture::start("");
    at.papers.client("app", "ca", "");
    at.store("apps", json!({}));
    let person = at.server.cli().without_token();
    let file = |name: &str| at.papers.folder().join(name).display().to_string();
    let connection = format!("-address=https://127.0.0.1:{} -ca-cert={}", at.port, file("server.crt"));
    let shown = format!("-client-cert={} -client-key={}", file("app.crt"), file("app.key"));
    let made = person.line(&format!("login -method=cert {connection} {shown} -token-only name=apps")).assert_status(0);
    at.server.as_token(made.stdout.trim()).get("auth/token/lookup-self").assert_status(200);
    person
        .line(&format!("login -method=cert {connection}"))
        .assert_status(2)
        .assert_stderr("no client certificate found");
    at.server.cli().line("auth help cert").assert_status(0).assert_stdout("login -method=cert");
}

#[test]
fn names_units_and_extensions_are_judged() {
    let at = Fixture::start("");
    let extensions = "extendedKeyUsage=clientAuth\nsubjectAltName=DNS:a.example,email:me@a.example,URI:spiffe://a/b\n1.3.6.1.4.1.99999.1=ASN1:UTF8String:blue\n";
    at.papers.issue("app", "ca", "/OU=ops/CN=app", extensions);
    for (rule, is_met) in [
        (json!({ "allowed_names": "x,*.example" }), true),
        (json!({ "allowed_names": "other" }), false),
        (json!({ "allowed_common_names": "ap*" }), true),
        (json!({ "allowed_common_names": "a.example" }), false),
        (json!({ "allowed_dns_sans": "a.example" }), true),
        (json!({ "allowed_dns_sans": "app" }), false),
        (json!({ "allowed_email_sans": "*@a.example" }), true),
        (json!({ "allowed_email_sans": "*@b.example" }), false),
        (json!({ "allowed_uri_sans": "spiffe://a/*" }), true),
        (json!({ "allowed_uri_sans": "spiffe://b/*" }), false),
        (json!({ "allowed_organizational_units": "dev,ops" }), true),
        (json!({ "allowed_organizational_units": "dev" }), false),
        (json!({ "required_extensions": "1.3.6.1.4.1.99999.1:bl*" }), true),
        (json!({ "required_extensions": "1.3.6.1.4.1.99999.1:red" }), false),
        (json!({ "required_extensions": "1.3.6.1.4.1.99999.2:*" }), false),
    ] {
        let name = "rule";
        at.server.root().delete(&format!("auth/cert/certs/{name}")).assert_status(204);
        at.store(name, rule.clone());
        assert_eq!(at.log_in(&["app"]).0 == 200, is_met, "{rule}");
    }
}

/// Policies may be written about what a certificate says, once the mount says so.
#[test]
fn what_a_certificate_says_is_metadata_of_token_and_alias() {
    let at = Fixture::start("");
    let root = at.server.root();
    let extensions = "extendedKeyUsage=clientAuth\n1.3.6.1.4.1.99999.1=ASN1:UTF8String:blue\n\
                      1.3.6.1.4.1.99999.2=ASN1:UTF8String:secret\n1.3.6.1.4.1.99999.3=ASN1:INTEGER:3\n";
    at.papers.issue("app", "ca", "/CN=app", extensions);
    let (team, number) = ("1-3-6-1-4-1-99999-1", "1-3-6-1-4-1-99999-3");
    let listed = "1.3.6.1.4.1.99999.1,1.3.6.1.4.1.99999.3,1.3.6.1.4.1.99999.4";
    at.store("apps", json!({ "allowed_metadata_extensions": listed }));
    let stored = root.get("auth/cert/certs/apps").at("/data/allowed_metadata_extensions");
    assert_eq!(stored.as_array().unwrap().len(), 3);
    let mount = root.get("sys/auth").text("/data/cert~1/accessor");
    let rule = format!(
        "path \"secret/{{{{identity.entity.aliases.{mount}.metadata.{team}}}}}\" {{\n capabilities = [\"read\"]\n}}"
    );
    root.post("sys/policies/acl/apps", json!({ "policy": rule })).assert_status(204);
    let log_in = || {
        let (status, answer) = at.log_in(&["app"]);
        assert_eq!(status, 200, "{answer}");
        let auth = &answer["auth"];
        let metadata = &auth["metadata"];
        assert_eq!((&metadata[team], &metadata[number]), (&json!("blue"), &json!("")), "{metadata}");
        assert_eq!(metadata.as_object().unwrap().len(), 7, "{metadata}");
        let client = at.server.as_token(auth["client_token"].as_str().unwrap());
        let may = client.post("sys/capabilities-self", json!({ "path": "secret/blue" })).at("/data/capabilities");
        let entity = auth["entity_id"].as_str().unwrap();
        let alias = root.get(&format!("identity/entity/id/{entity}")).at("/data/aliases/0/metadata");
        (may, alias == *metadata)
    };
    root.get("auth/cert/config").assert_at("/data/enable_identity_alias_metadata", false);
    assert_eq!(log_in(), (json!(["deny"]), false));
    root.post("auth/cert/config", json!({ "enable_identity_alias_metadata": true })).assert_status(204);
    root.post("auth/cert/config", json!({ "disable_binding": true })).assert_status(204);
    root.get("auth/cert/config").assert_at("/data/enable_identity_alias_metadata", true);
    assert_eq!(log_in(), (json!(["read"]), true));
    // It is taken back with the next login.
    root.post("auth/cert/config", json!({ "enable_identity_alias_metadata": false })).assert_status(204);
    assert_eq!(log_in(), (json!(["deny"]), false));
}

/// A list counts from the next login on, also after a restart (GHSA-9mh8-9j64-443f).
#[test]
fn a_certificate_that_was_taken_back_is_refused_also_after_a_restart() {
    let at = Fixture::start("");
    at.papers.client("good", "ca", "");
    at.papers.client("bad", "ca", "");
    at.store("apps", json!({}));
    let held = at.token(&["bad"]);
    let list = at.papers.revoked("ca", "bad");
    let root = at.server.root();
    root.post("auth/cert/crls/x", json!({})).assert_error(400, "one of 'crl' or 'url' must be provided");
    root.post("auth/cert/crls/x", json!({ "crl": "zz" })).assert_error_has(400, "failed to parse CRL");
    root.post("auth/cert/crls/Ours", json!({ "crl": list })).assert_status(204);
    root.list("auth/cert/crls").assert_status(200).assert_at("/data/keys", json!(["ours"]));
    at.refuses(&["bad"], "revoked");
    at.token(&["good"]);
    at.server.crash_and_restart();
    at.refuses(&["bad"], "revoked");
    at.token(&["good"]);
    let (status, answer) = at.ask(&["bad"], "auth/token/renew-self", Some(&held), json!({}));
    assert_eq!(status, 500, "{answer}");
    let root = at.server.root();
    root.get("auth/cert/crls/nope").assert_error(400, "no such CRL nope");
    root.delete("auth/cert/crls/ours").assert_status(204);
    at.token(&["bad"]);
    // The certificate itself may be stored, and taken back all the same.
    root.delete("auth/cert/certs/apps").assert_status(204);
    at.store("pinned", json!({ "certificate": at.papers.pem("bad.crt") }));
    at.token(&["bad"]);
    root.post("auth/cert/crls/ours", json!({ "crl": list })).assert_status(204);
    at.refuses(&["bad"], "revoked");
}

/// CVE-2026-39388: a token that was taken from its client must not be kept alive by others.
#[test]
fn a_token_is_renewed_only_with_the_certificate_that_it_was_made_for() {
    let at = Fixture::start("");
    for name in ["app", "other"] {
        at.papers.client(name, "ca", "");
    }
    at.store("apps", json!({ "token_ttl": "1h" }));
    let token = at.token(&["app"]);
    let renew = |shown: &[&str]| at.ask(shown, "auth/token/renew-self", Some(&token), json!({}));
    assert_eq!(renew(&["app"]).0, 200);
    for shown in [&["other"][..], &[]] {
        let (status, answer) = renew(shown);
        assert_eq!(status, 500, "{answer}");
        assert!(answer["errors"][0].as_str().unwrap().contains("failed to renew entry"), "{answer}");
    }
    at.server
        .as_token(&token)
        .post("auth/token/renew-self", json!({}))
        .assert_error_has(500, "no client certificate found");
    // Nobody else renews it in its name, over any connection.
    let body = json!({ "token": token });
    assert_eq!(at.ask(&["other"], "auth/token/renew", Some(&at.server.root_token()), body).0, 500);
    // It must still be good.
    at.store("apps", json!({ "allowed_common_names": "nobody" }));
    assert_eq!(renew(&["app"]).0, 500);
    at.store("apps", json!({ "allowed_common_names": "app", "token_ttl": "1m" }));
    let (status, answer) = renew(&["app"]);
    assert_eq!((status, &answer["auth"]["lease_duration"]), (200, &json!(60)));
    at.server.root().post("auth/cert/config", json!({ "disable_binding": true })).assert_status(204);
    at.server.root().get("auth/cert/config").assert_at("/data/disable_binding", true);
    assert_eq!(renew(&["other"]).0, 200);
    at.server.root().delete("auth/cert/certs/apps").assert_status(204);
    assert_eq!(renew(&["app"]).0, 500);
    at.server.root().delete("sys/auth/cert").assert_status(204);
    at.server.as_token(&token).get("auth/token/lookup-self").assert_error(403, "permission denied");
}

/// A session that is taken up again is still its client's, and nobody else's.
#[test]
fn a_resumed_session_has_the_certificate_of_the_first_handshake() {
    let at = Fixture::start("");
    at.papers.client("app", "ca", "");
    at.store("apps", json!({}));
    let (app, nobody) = (at.client(&["app"]), at.client(&[]));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
        let ((status, answer), handshake) = at.ask_as(&app, "auth/cert/login", None, json!({}));
        assert_eq!((status, handshake), (200, Some(kind)), "{answer}");
        assert_eq!(at.ask_as(&nobody, "auth/cert/login", None, json!({})).0.0, 400);
    }
    let list = at.papers.revoked("ca", "app");
    at.server.root().post("auth/cert/crls/ours", json!({ "crl": list })).assert_status(204);
    let ((status, answer), handshake) = at.ask_as(&app, "auth/cert/login", None, json!({}));
    assert_eq!((status, handshake), (400, Some(HandshakeKind::Resumed)), "{answer}");
}

#[test]
fn the_listener_decides_whether_certificates_are_asked_for() {
    let at = Fixture::start("tls_disable_client_certs = true");
    at.papers.client("app", "ca", "");
    at.store("apps", json!({}));
    let (status, answer) = at.log_in(&["app"]);
    assert_eq!((status, &answer["errors"]), (400, &json!(["no client certificate found"])), "{answer}");

    let at = Fixture::start("tls_require_and_verify_client_cert = true\n  tls_client_ca_file = \"FOLDER/ca.crt\"");
    at.papers.authority("other");
    at.papers.client("app", "ca", "");
    at.papers.client("stranger", "other", "");
    at.store("all", json!({ "certificate": at.papers.pem("ca.crt") + &at.papers.pem("other.crt") }));
    at.token(&["app"]);
    // Another authority vouches for it, but the listener lets it in no further than the handshake.
    assert_eq!(at.log_in(&["stranger"]).0, 0);
    assert_eq!(at.log_in(&[]).0, 0);
}

#[test]
fn stored_certificates_are_written_read_listed_and_deleted() {
    let at = Fixture::start("");
    let root = at.server.root();
    root.list("auth/cert/certs").assert_errors(404, &[]);
    root.get("auth/cert/certs/a").assert_errors(404, &[]);
    for body in [json!({}), json!({ "certificate": "zz" })] {
        root.post("auth/cert/certs/a", body).assert_error(400, "failed to parse certificate");
    }
    let pem = at.papers.pem("ca.crt");
    for (body, why) in [
        (json!({ "certificate": pem, "required_extensions": "1.2.3" }), "required_extensions"),
        (json!({ "certificate": pem, "ocsp_enabled": true }), "'ocsp_enabled' is not offered"),
        (json!({ "certificate": pem, "allowed_metadata_extensions": "1.2.3,blue" }), "\"blue\" is not an OID"),
    ] {
        root.post("auth/cert/certs/a", body).assert_error_has(400, why);
    }
    let old = json!({ "certificate": pem, "allowed_common_names": "a*", "policies": "p" });
    root.post("auth/cert/certs/A", old).assert_status(204);
    root.get("auth/cert/certs/a")
        .assert_status(200)
        .assert_at("/data/certificate", pem)
        .assert_at("/data/allowed_common_names", json!(["a*"]))
        .assert_at("/data/allowed_names", Value::Null)
        .assert_at("/data/display_name", "a")
        .assert_at("/data/policies", json!(["p"]))
        .assert_at("/data/token_policies", json!(["p"]));
    root.list("auth/cert/certs").assert_at("/data/keys", json!(["a"]));
    root.delete("auth/cert/certs/a").assert_status(204);
    root.get("auth/cert/certs/a").assert_errors(404, &[]);
}
