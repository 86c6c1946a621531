//! With certificates that openssl makes.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::roots::certificates;

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl");
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, `NAME.crt` and `NAME.key`.
fn authority(folder: &Path, name: &str) {
    authority_with(folder, name, "2", &[]);
}

/// One that is valid for so many days and says this besides.
fn authority_with(folder: &Path, name: &str, days: &str, extensions: &[&str]) {
    let added: Vec<&str> = extensions.iter().flat_map(|extension| ["-addext", *extension]).collect();
    let subject = format!("/CN={name}");
    let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
    let arguments = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        days,
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &certificate,
    ];
    openssl(folder, &[&arguments[..], &added].concat());
}

/// A certificate by an authority, with these extensions.
fn issued(folder: &Path, name: &str, by: &str, subject: &str, extensions: &str) {
    let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
    let file = format!("{name}.ext");
    std::fs::write(folder.join(&file), extensions).unwrap();
    openssl(
        folder,
        &[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            subject,
            "-keyout",
            &key,
            "-out",
            &request,
        ],
    );
    let (ca, ca_key) = (format!("{by}.crt"), format!("{by}.key"));
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            "10",
            "-extfile",
            &file,
            "-out",
            &certificate,
        ],
    );
}

fn read(folder: &Path, name: &str) -> Vec<CertificateDer<'static>> {
    certificates(&std::fs::read(folder.join(format!("{name}.crt"))).unwrap()).unwrap()
}

fn chain(folder: &Path, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| read(folder, name)[0].to_vec()).collect()
}

#[expect(clippy::disallowed_methods, reason = "openssl dates certificates by the time of day")]
fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn what_a_certificate_says_is_read() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    authority(folder, "ca");
    let extensions = "subjectAltName=DNS:a.example,DNS:*.b.example,email:me@a.example,URI:spiffe://a/b,IP:127.0.0.1\n\
                      1.3.6.1.4.1.99999.1=ASN1:UTF8String:hello\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    issued(folder, "leaf", "ca", "/O=x/OU=one/OU=two/CN=me", extensions);
    let facts = client_facts(&read(folder, "leaf")[0]).unwrap();
    assert_eq!(facts.common_name, "me");
    assert_eq!(facts.organizational_units, ["one", "two"]);
    assert_eq!(facts.dns_names, ["a.example", "*.b.example"]);
    assert_eq!(facts.emails, ["me@a.example"]);
    assert_eq!(facts.uris, ["spiffe://a/b"]);
    assert!(!facts.is_authority && !facts.serial.is_empty());
    let extension = facts.extensions.iter().find(|(id, _)| id == "1.3.6.1.4.1.99999.1").unwrap();
    assert_eq!(extension.1, b"\x0c\x05hello");
    let ca = client_facts(&read(folder, "ca")[0]).unwrap();
    assert!(ca.is_authority);
    assert_eq!(facts.authority_key_id, ca.subject_key_id);
    assert_eq!(facts.authority_key_id.len(), 20);
    assert!(client_facts(b"x").is_none());
}

#[test]
fn an_authority_vouches_for_its_clients_and_a_certificate_for_itself() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    for name in ["ca", "other"] {
        authority(folder, name);
    }
    issued(folder, "middle", "ca", "/CN=middle", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n");
    issued(folder, "leaf", "ca", "/CN=leaf", "extendedKeyUsage=clientAuth\n");
    issued(folder, "deep", "middle", "/CN=deep", "extendedKeyUsage=clientAuth\n");
    issued(folder, "server", "ca", "/CN=server", "extendedKeyUsage=serverAuth\n");
    // Signed by a certificate that is no authority.
    issued(folder, "child", "leaf", "/CN=child", "extendedKeyUsage=clientAuth\n");
    let trusts = |shown: &[&str], trusted: &[&str], at: u64| {
        let trusted: Vec<_> = trusted.iter().flat_map(|name| read(folder, name)).collect();
        verify_client(&chain(folder, shown), &trusted, at)
    };
    for (shown, trusted, wanted) in [
        (&["leaf"][..], &["ca"][..], true),
        (&["leaf"], &["other", "ca"], true),
        (&["leaf"], &["other"], false),
        (&["leaf"], &[], false),
        (&["leaf"], &["leaf"], true),
        (&["leaf", "ca"], &["ca"], true),
        (&["leaf", "ca"], &["other"], false),
        (&["deep", "middle"], &["ca"], true),
        (&["deep"], &["ca"], false),
        (&["deep"], &["middle"], true),
        (&["server"], &["ca"], false),
        (&["child"], &["leaf"], false),
        (&["child", "leaf"], &["ca"], false),
        (&["ca"], &["ca"], true),
        (&[], &["ca"], false),
    ] {
        assert_eq!(trusts(shown, trusted, now() + 60), wanted, "{shown:?} {trusted:?}");
    }
    for at in [0, now() + 11 * 86_400] {
        assert!(!trusts(&["leaf"], &["ca"], at) && !trusts(&["leaf"], &["leaf"], at), "{at}");
    }
    // The authority's own time is over, the client's is not.
    let later = now() + 3 * 86_400;
    assert!(!trusts(&["leaf"], &["ca"], later) && trusts(&["leaf"], &["leaf"], later));
    assert!(!verify_client(&[b"x".to_vec()], &read(folder, "ca"), now()));
}

/// The limits that a stored authority sets itself hold, although it is trusted.
#[test]
fn a_trusted_authority_vouches_within_its_own_limits_only() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let short = "basicConstraints=critical,CA:TRUE,pathlen:0";
    for (name, extensions) in [
        ("short", &[short][..]),
        ("servers", &["extendedKeyUsage=serverAuth"]),
        ("clients", &["extendedKeyUsage=critical,clientAuth"]),
        ("named", &["nameConstraints=critical,permitted;DNS:a.example"]),
        ("unknown", &["1.3.6.1.4.1.99999.1=critical,ASN1:NULL"]),
        ("mute", &["keyUsage=critical,digitalSignature"]),
    ] {
        authority_with(folder, name, "2", extensions);
        issued(folder, &format!("of-{name}"), name, "/CN=leaf", "subjectAltName=DNS:b.a.example\n");
    }
    issued(folder, "elsewhere", "named", "/CN=leaf", "subjectAltName=DNS:b.example\n");
    issued(
        folder,
        "middle",
        "short",
        "/CN=middle",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n",
    );
    issued(folder, "deep", "middle", "/CN=deep", "extendedKeyUsage=clientAuth\n");
    let trusts =
        |shown: &[&str], trusted: &str| verify_client(&chain(folder, shown), &read(folder, trusted), now() + 60);
    for (shown, trusted, wanted) in [
        (&["of-short"][..], "short", true),
        (&["deep", "middle"], "short", false),
        (&["deep"], "middle", true),
        (&["of-servers"], "servers", false),
        (&["of-clients"], "clients", true),
        (&["of-named"], "named", true),
        (&["elsewhere"], "named", false),
        (&["of-unknown"], "unknown", false),
        (&["of-mute"], "mute", false),
    ] {
        assert_eq!(trusts(shown, trusted), wanted, "{shown:?} {trusted}");
    }
    for (name, why) in [
        ("short", None),
        ("clients", None),
        ("named", None),
        ("servers", Some("clientAuth")),
        ("unknown", Some("critical extension")),
        ("mute", Some("keyCertSign")),
        ("of-short", Some("no authority")),
    ] {
        let found = vouches_for_none(&read(folder, name)[0]);
        assert_eq!(found.is_some(), why.is_some(), "{name}: {found:?}");
        assert!(found.unwrap_or_default().contains(why.unwrap_or_default()), "{name}: {found:?}");
    }
}

/// libpq takes a self-signed certificate of version 1 for an authority of servers. Of clients it is none.
#[test]
fn a_certificate_of_version_1_vouches_for_no_other_client() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let request = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=old"];
    openssl(folder, &[&request[..], &["-keyout", "old.key", "-out", "old.csr"]].concat());
    let sign = ["x509", "-req", "-in", "old.csr", "-signkey", "old.key", "-days", "2", "-out", "old.crt"];
    openssl(folder, &sign);
    let old = read(folder, "old");
    assert_eq!(Certificate::read(&old[0]).unwrap().version, 1, "openssl makes version 1 without extensions");
    issued(folder, "leaf", "old", "/CN=admin", "extendedKeyUsage=clientAuth\n");
    assert!(!verify_client(&chain(folder, &["leaf"]), &old, now() + 60));
    assert!(verify_client(&chain(folder, &["old"]), &old, now() + 60));
}

#[test]
fn an_extension_with_a_huge_number_is_left_out() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    authority(folder, "ca");
    let extensions = "2.25.340282366920938463463374607431768211455=ASN1:NULL\n1.3.6.1.4.1.99999.1=ASN1:NULL\n";
    issued(folder, "leaf", "ca", "/CN=me", extensions);
    let facts = client_facts(&read(folder, "leaf")[0]).unwrap();
    assert!(facts.extensions.iter().any(|(id, _)| id == "1.3.6.1.4.1.99999.1"));
    assert!(!facts.extensions.iter().any(|(id, _)| id.starts_with("2.25")));
}

#[test]
fn a_list_of_the_issuer_takes_certificates_back() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    for name in ["ca", "other"] {
        authority(folder, name);
    }
    for name in ["good", "bad"] {
        issued(folder, name, "ca", &format!("/CN={name}"), "extendedKeyUsage=clientAuth\n");
    }
    std::fs::write(folder.join("index.txt"), "").unwrap();
    std::fs::write(folder.join("crlnumber"), "01\n").unwrap();
    let config = "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=2\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n";
    std::fs::write(folder.join("ca.cnf"), config).unwrap();
    let ca = ["ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.crt"];
    openssl(folder, &[&ca[..], &["-revoke", "bad.crt"]].concat());
    openssl(folder, &[&ca[..], &["-gencrl", "-out", "crl.pem"]].concat());
    let list = RevocationList::read(&std::fs::read(folder.join("crl.pem")).unwrap()).unwrap();
    assert!(list.has_revoked(&read(folder, "bad")[0]));
    assert!(!list.has_revoked(&read(folder, "good")[0]));
    assert!(!list.has_revoked(&read(folder, "other")[0]), "another issuer's");
    assert!(list.has_revoked(b"x"));
    // A second list in the same text would not count.
    let text = std::fs::read_to_string(folder.join("crl.pem")).unwrap();
    assert!(RevocationList::read(format!("{text}{text}").as_bytes()).unwrap_err().contains("more than one list"));
    for text in ["", "x", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"] {
        assert!(RevocationList::read(text.as_bytes()).is_err(), "{text}");
    }
}

/// Whoever connects may show anything.
#[test]
fn no_change_of_a_byte_makes_a_certificate_good_or_the_reader_panic() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    authority(folder, "ca");
    issued(folder, "leaf", "ca", "/O=x/OU=one/CN=me", "extendedKeyUsage=clientAuth\nsubjectAltName=DNS:a.example\n");
    let (trusted, leaf) = (read(folder, "ca"), read(folder, "leaf")[0].to_vec());
    let at = now() + 60;
    assert!(verify_client(std::slice::from_ref(&leaf), &trusted, at));
    for place in 0..leaf.len() {
        for bit in [0x01, 0x80] {
            let mut changed = leaf.clone();
            changed[place] ^= bit;
            let _ = client_facts(&changed);
            assert!(!verify_client(&[changed], &trusted, at), "byte {place}");
        }
        assert!(client_facts(&leaf[..place]).is_none(), "cut at {place}");
    }
}
