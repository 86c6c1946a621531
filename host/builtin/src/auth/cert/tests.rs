//! With certificates that openssl makes, at a mount without a server.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use leasehold_core::testing::ManualClock;
use tempfile::TempDir;

use super::*;
use crate::auth::testing;

/// Authorities and what they make out, in files `NAME.crt` and `NAME.key`.
struct Papers(TempDir);

impl Papers {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(self.folder()).output().expect("openssl");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn request(&self, name: &str, more: &[&str]) {
        let (key, subject) = (format!("{name}.key"), format!("/CN={name}"));
        let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", &key];
        self.openssl(&[&new[..], &["-subj", &subject], more].concat());
    }

    fn authority(&self, name: &str) {
        self.request(name, &["-x509", "-days", "2", "-out", &format!("{name}.crt")]);
    }

    fn issue(&self, name: &str, by: &str, extensions: &str) {
        let [csr, crt, ext] = ["csr", "crt", "ext"].map(|kind| format!("{name}.{kind}"));
        let [ca, ca_key] = ["crt", "key"].map(|kind| format!("{by}.{kind}"));
        std::fs::write(self.folder().join(&ext), extensions).unwrap();
        self.request(name, &["-out", &csr]);
        let sign = ["x509", "-req", "-in", &csr, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2"];
        self.openssl(&[&sign[..], &["-extfile", &ext, "-out", &crt]].concat());
    }

    /// A list of an authority's that takes this certificate back.
    fn list(&self, by: &str, name: &str) -> Vec<u8> {
        let config = "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=2\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n";
        for (file, text) in [("index.txt", ""), ("crlnumber", "01\n"), ("ca.cnf", config)] {
            std::fs::write(self.folder().join(file), text).unwrap();
        }
        let [ca, ca_key] = ["crt", "key"].map(|kind| format!("{by}.{kind}"));
        let base = ["ca", "-config", "ca.cnf", "-keyfile", &ca_key, "-cert", &ca];
        self.openssl(&[&base[..], &["-revoke", &format!("{name}.crt")]].concat());
        self.openssl(&[&base[..], &["-gencrl", "-out", "crl.pem"]].concat());
        std::fs::read(self.folder().join("crl.pem")).unwrap()
    }

    fn pem(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder().join(format!("{name}.crt"))).unwrap()
    }

    fn chain(&self, names: &[&str]) -> Vec<Vec<u8>> {
        let read = |name: &&str| leasehold_tls::certificates(self.pem(name).as_bytes()).unwrap()[0].to_vec();
        names.iter().map(read).collect()
    }
}

struct Fixture {
    papers: Papers,
    at: AuthContext,
    method: Cert,
}

impl Fixture {
    fn new() -> Self {
        let papers = Papers::new();
        papers.authority("ca");
        papers.issue("app", "ca", "extendedKeyUsage=clientAuth\n");
        Self { papers, at: testing::mount("auth/cert/", &Arc::new(ManualClock::at(now() + 60))), method: Cert::new() }
    }

    async fn store(&self, name: &str, certificate: &str, token: Value) {
        let entry = json!({ "certificate": certificate, "token": token });
        self.at.storage.put(&format!("cert/{name}"), encode(&entry).unwrap(), Expect::Anything).await.unwrap();
    }

    /// The name of the stored certificate that the login met, else why it was refused.
    async fn log_in(&self, names: &[&str]) -> Result<String, String> {
        let client = "192.0.2.7".parse().ok();
        let request = testing::login(&self.at, client, Some(self.papers.chain(names)));
        match self.method.log_in(&request).await.unwrap() {
            AuthOutcome::Login(plan) => Ok(plan.metadata["cert_name"].clone()),
            AuthOutcome::Refused(refusal) => {
                assert_eq!(refusal.said, REFUSED);
                Err(refusal.reason)
            }
            other => panic!("{other:?}"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "openssl dates certificates by the time of day")]
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

#[test]
fn serial_numbers_are_shown_in_decimal_and_key_ids_in_hex() {
    for (bytes, wanted) in [
        (&[][..], "0"),
        (&[0], "0"),
        (&[0, 255], "255"),
        (&[0x3b, 0x9a, 0xca, 0x00], "1000000000"),
        (&[1, 0, 0, 0, 0, 0, 0, 0, 0], "18446744073709551616"),
        (&[0xff; 20], "1461501637330902918203684832716283019655932542975"),
    ] {
        assert_eq!(decimal(bytes), wanted);
    }
    assert_eq!(colons(&[0, 0xab, 9]), "00:ab:09");
}

/// Otherwise whoever holds a token keeps rights that were taken from its entry, for as long as they renew it.
#[tokio::test]
async fn a_token_whose_entry_has_other_policies_now_is_not_renewed() {
    let this = Fixture::new();
    let (chain, metadata) = (this.papers.chain(&["app"]), BTreeMap::new());
    let certificate = ClientCertificate { chain };
    let shown = Shown::of(&certificate).unwrap();
    let internal = json!({ "cert_name": "a", "fingerprint": shown.fingerprint() });
    let policies = ["apps".to_owned(), "default".to_owned()];
    let token =
        LoginToken { metadata: &metadata, internal: &internal, policies: &policies, certificate: Some(&certificate) };
    for (stored, is_renewed) in [(json!(["apps"]), true), (json!([]), false), (json!(["apps", "more"]), false)] {
        this.store("a", &this.papers.pem("ca"), json!({ "policies": stored })).await;
        let found = this.method.renew(&this.at, &token).await;
        assert_eq!(found.is_ok(), is_renewed, "{stored}: {found:?}");
        if let Err(error) = found {
            assert!(error.to_string().contains("policies have changed, not renewing"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_entry_for_other_addresses_refuses_as_others_do_and_stops_no_other() {
    let this = Fixture::new();
    this.store("a", &this.papers.pem("ca"), json!({ "bound_cidrs": ["10.0.0.0/8"] })).await;
    let refused = this.log_in(&["app"]).await.unwrap_err();
    assert!(refused.contains("token_bound_cidrs"), "{refused}");
    this.store("b", &this.papers.pem("ca"), json!({ "bound_cidrs": ["192.0.2.0/24"] })).await;
    assert_eq!(this.log_in(&["app"]).await, Ok("b".to_owned()));
}

/// The client need not send an authority that is stored itself.
#[tokio::test]
async fn a_stored_authority_that_was_taken_back_vouches_for_nobody() {
    let this = Fixture::new();
    let authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
    this.papers.issue("middle", "ca", authority);
    this.papers.issue("deep", "middle", "extendedKeyUsage=clientAuth\n");
    let both = this.papers.pem("ca") + &this.papers.pem("middle");
    this.store("a", &both, json!({})).await;
    for shown in [&["deep"][..], &["deep", "middle"], &["app"]] {
        assert!(this.log_in(shown).await.is_ok(), "{shown:?}");
    }
    let list = this.papers.list("ca", "middle");
    this.at.storage.put("crl/x", list, Expect::Absent).await.unwrap();
    for shown in [&["deep"][..], &["deep", "middle"]] {
        let refused = this.log_in(shown).await.unwrap_err();
        assert!(refused.contains("revoked"), "{shown:?}: {refused}");
    }
    assert!(this.log_in(&["app"]).await.is_ok());
}

#[tokio::test]
async fn lists_are_fetched_once_for_a_request_and_read_once_for_a_text() {
    let this = Fixture::new();
    this.papers.authority("other");
    let certificate = ClientCertificate { chain: this.papers.chain(&["app"]) };
    let shown = Shown::of(&certificate).unwrap();
    let list = this.papers.list("ca", "app");
    this.at.storage.put("crl/x", list.clone(), Expect::Absent).await.unwrap();
    let mut judge = Judge::new(&this.method, &this.at, &shown);
    let entry = |pem: String| serde_json::from_value::<Entry>(json!({ "certificate": pem })).unwrap();
    assert!(judge.judge(&entry(this.papers.pem("other"))).await.unwrap().is_err());
    assert!(judge.lists.is_none(), "nobody vouches for the client so far");
    assert!(judge.judge(&entry(this.papers.pem("ca"))).await.unwrap().is_err());
    this.at.storage.delete("crl/x").await.unwrap();
    let both = this.papers.pem("ca") + &this.papers.pem("other");
    assert!(judge.judge(&entry(both)).await.unwrap().is_err(), "the request has its lists already");
    let texts = [("x".to_owned(), list), ("y".to_owned(), this.papers.list("other", "app"))];
    let lists = crls::Lists::default();
    let (one, two) = (lists.read(&texts).unwrap(), lists.read(&texts).unwrap());
    assert!(one.iter().zip(&two).all(|(one, two)| Arc::ptr_eq(one, two)));
    assert!(!Arc::ptr_eq(&one[0], &one[1]));
    assert!(lists.read(&[("x".to_owned(), b"x".to_vec())]).is_err(), "the name of a list is not its text");
}
