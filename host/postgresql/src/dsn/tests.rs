use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

fn read(url: &str) -> Result<Dsn, DsnError> {
    Dsn::parse(url, "ro@ot", &SecretString::from("p/w:@'%&=+"), false)
}

fn password(dsn: &Dsn) -> &str {
    dsn.password.as_ref().map_or("", |password| password.expose_secret())
}

#[test]
fn the_guides_url_is_read_with_prefer() {
    let dsn = read("postgresql://root:rootpassword@localhost:5432/myapp").unwrap();
    assert_eq!((dsn.user.as_str(), password(&dsn), dsn.database.as_str()), ("root", "rootpassword", "myapp"));
    assert_eq!((dsn.hosts.as_slice(), dsn.ssl_mode), (&[("localhost".to_owned(), 5432)][..], SslMode::Prefer));
    assert_eq!(dsn.label(), "`user=root database=myapp`: localhost:5432");
}

#[test]
fn templates_are_replaced_whole_whatever_they_hold() {
    for url in [
        "postgres://{{username}}:{{password}}@h/d?sslmode=disable",
        "user={{username}} password={{password}} host=h dbname=d sslmode=disable",
        "postgres://h/d?user={{username}}&password={{password}}&sslmode=disable",
    ] {
        let dsn = read(url).unwrap();
        assert_eq!((dsn.user.as_str(), password(&dsn)), ("ro@ot", "p/w:@'%&=+"), "{url}");
        assert_eq!((dsn.hosts.as_slice(), dsn.ssl_mode), (&[("h".to_owned(), 5432)][..], SslMode::Disable));
    }
    let raw = Dsn::parse("postgres://{{username}}:{{password}}@h/d", "u", &SecretString::from("a%40b"), true).unwrap();
    assert_eq!(password(&raw), "a@b");
}

#[test]
fn several_hosts_sockets_and_addresses_are_read() {
    let dsn = read("postgres://u@a:1,b,[::1]:3/d?connect_timeout=7&application_name=x%20y&TimeZone=UTC").unwrap();
    let hosts = [("a", 1), ("b", 5432), ("::1", 3)].map(|(host, port)| (host.to_owned(), port));
    assert_eq!((dsn.hosts.as_slice(), dsn.connect_timeout.as_secs()), (&hosts[..], 7));
    assert_eq!(dsn.application_name, "x y");
    assert_eq!(read("postgres://u@%2Frun%2Fpg/d").unwrap().hosts, [("/run/pg".to_owned(), 5432)]);
    assert_eq!(read("postgres://u@h").unwrap().database, "u");
}

#[test]
fn an_option_is_obeyed_or_refused_by_name() {
    let said = |url: &str| read(url).map(drop).unwrap_err().to_string();
    assert_eq!(
        said("postgres://u@h/d?ssl_mode=require"),
        "connection_url option \"ssl_mode\" is not known; did you mean \"sslmode\"?"
    );
    for far in ["zzzzzzzzzzz", "roles_of", "work", "zz"] {
        assert_eq!(
            said(&format!("postgres://u@h/d?{far}=1")),
            format!(
                "connection_url option {far:?} is not known; a setting of the server goes into options, as in options=-c%20name=value"
            )
        );
    }
    assert!(said("postgres://u@h/d?sslmode=maybe").contains("verify-full"));
    assert!(said("postgres://u@h/d?sslcert=x").contains("together with sslkey"));
    assert!(said("postgres://u@h/d?sslcrl=x").contains("is not supported: revocation lists"));
    assert_eq!(read("postgres://u@h:99999/d").unwrap_err(), DsnError::Port);
    assert_eq!(read("postgres:///d?user=u").unwrap_err(), DsnError::Host);
    assert_eq!(read("postgres://h/d").unwrap_err(), DsnError::User);
    assert_eq!(read("").unwrap_err(), DsnError::Host);
}

#[test]
fn no_error_quotes_a_password() {
    for url in [
        "postgres://u:can%ary@h/d",
        "mysql://u:canary@h/d",
        "postgres://u:canary@h:x/d",
        "password='canary",
        "user=u canary",
        "password=canary host=h port=canary user=u",
        // Passwords with signs in them that end them.
        "postgres://u:12?canary7@h/d",
        "postgres://u:12/canary7@h/d?user=x",
        "postgres://u:x@y?canary@h/d",
        "postgres://u:x@y/canary@h/d",
        "postgres://h/d?user=u&password=x&can7ary",
        "password=x can7ary= user=u host=h",
        "password=x can7ary='",
    ] {
        let error = read(url).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("ary"), "{error}");
    }
    let shown = format!("{:?}", read("postgres://u:canary@h/d").unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn a_password_in_the_url_is_masked() {
    for (url, shown, hidden) in [
        ("postgresql://u:sec@h/d", "postgresql://u:xxxxx@h/d", true),
        ("postgresql://{{username}}:{{password}}@h/d", "postgresql://{{username}}:{{password}}@h/d", false),
        ("postgresql://u:s/e?c@h/d", "postgresql://u:xxxxx@h/d", true),
        ("postgresql://u@h/d?password=sec&sslmode=disable", "postgresql://u@h/d?password=xxxxx&sslmode=disable", true),
        ("host=h password='s e\\'c' user=u", "host=h password=xxxxx user=u", true),
        ("host=h user=u", "host=h user=u", false),
        ("postgresql://h/d?user=u&application_name=a:b@c", "postgresql://h/d?user=u&application_name=a:b@c", false),
        ("postgresql://u@h/d?PassWord=sec", "postgresql://u@h/d?PassWord=xxxxx", true),
        ("postgresql://u@h/d?pass%77ord=sec", "postgresql://u@h/d?pass%77ord=xxxxx", true),
        (
            "host=h PASSWORD=sec user=u application_name='a \\'b'",
            "host=h PASSWORD=xxxxx user=u application_name='a \\'b'",
            true,
        ),
        ("password='sec", "xxxxx", true),
        ("PASSWORD='sec", "xxxxx", true),
        ("postgresql://h/d", "postgresql://h/d", false),
    ] {
        assert_eq!(masked(url), (shown.to_owned(), hidden), "{url}");
    }
}

/// Text in which everything that cuts a URL is likely.
fn odd() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "/",
        "?",
        "&",
        "@",
        ":",
        "%",
        "%40",
        "%2",
        "#",
        "=",
        "'",
        "\\",
        " ",
        "\0",
        ",",
        "[",
        "]",
        "12",
        "s3cret-word",
        "password",
        "PASSWORD=",
        "pass%77ord=",
        "password='",
        "user=u ",
        "host=h ",
        "dbname=d ",
        "é",
        "{{password}}",
    ];
    prop_oneof![6 => vec(select(PIECES), 0..10).prop_map(|pieces| pieces.concat()), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_url_keeps_its_password(front in select(&["", "postgres://", "postgres://u:s3cret-word@h/d?", "host=h user=u "][..]), rest in odd()) {
        properties::any_url_keeps_its_password(&format!("{front}{rest}"));
    }

    #[test]
    fn no_error_shows_what_stands_in_a_password(before in odd(), after in odd()) {
        properties::no_error_shows_what_stands_in_a_password(&before, &after);
    }

    #[test]
    fn a_template_gives_back_what_is_put_in(username in odd(), password in odd()) {
        properties::a_template_gives_back_what_is_put_in(&username, &password);
    }
}

/// It is stored, as a digest: a text that changes with a version would part static roles from their servers.
#[test]
fn the_text_of_a_place_stays_the_same_over_versions() {
    let dsn =
        read("postgres://u@a:1,b/d?hostaddr=127.0.0.1,127.0.0.2&sslmode=verify-full&sslrootcert=/ca.pem").unwrap();
    assert_eq!(
        dsn.place(),
        "(([(\"a\", 1), (\"b\", 5432)], [Some(127.0.0.1), Some(127.0.0.2)]), (VerifyFull, Some(\"/ca.pem\"), Both, true), Prefer, \
         Logins(255))"
    );
    for same in ["postgres://other@h/d", "postgres://u@h/other", "postgres://u@h/d?application_name=x"] {
        assert_eq!(read(same).unwrap().place(), read("postgres://u@h/d").unwrap().place(), "{same}");
    }
    for other in
        ["postgres://u@i/d", "postgres://u@h:1/d", "postgres://u@h/d?sslmode=disable", "postgres://u@h/d?sslsni=0"]
    {
        assert_ne!(read(other).unwrap().place(), read("postgres://u@h/d").unwrap().place(), "{other}");
    }
}
