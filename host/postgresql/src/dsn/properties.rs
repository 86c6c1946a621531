//! What holds for every connection URL: asked by the tests with texts that are likely to matter, by the fuzz targets with any.

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::{Dsn, PASSWORD_TAG, USERNAME_TAG, in_quotes, masked};

/// No error and no label shows a password, nor does what is read back; what is read back reads as the same connection.
pub fn any_url_keeps_its_password(url: &str) {
    let nothing = SecretString::from("");
    let (shown, hidden) = masked(url);
    let dsn = match Dsn::parse(url, "", &nothing, false) {
        Ok(dsn) => dsn,
        Err(_) => return,
    };
    let hosts = dsn.hosts.iter().map(|(host, _)| host);
    assert!([&dsn.user, &dsn.database].into_iter().chain(hosts).all(|text| !text.is_empty() && !text.contains('\0')));
    let Some(password) = &dsn.password else { return assert_eq!((shown.as_str(), hidden), (url, false)) };
    let password = password.expose_secret();
    if password.is_empty() || url.contains("{{") {
        return;
    }
    assert!(hidden, "{url:?}");
    // A short password, or one that another part repeats, is found there by chance.
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if password.len() >= 8 && decoded(url).matches(password).count() <= 1 {
        let said = format!("{shown} {} {} {dsn:?}", decoded(&shown), dsn.label());
        assert!(!said.contains(password), "{said:?} shows {password:?}");
    }
    let again = Dsn::parse(&shown, "", &nothing, false);
    let again = again.unwrap_or_else(|error| panic!("{shown:?} does not read back: {error}"));
    assert_eq!((again.label(), again.ssl_mode, again.options), (dsn.label(), dsn.ssl_mode, dsn.options));
    assert_eq!((again.application_name, again.search_path), (dsn.application_name, dsn.search_path));
    assert_eq!(masked(&shown).0, shown);
}

/// A password that is cut in two by what surrounds it is not in the error.
pub fn no_error_shows_what_stands_in_a_password(before: &str, after: &str) {
    const CANARY: &str = "cAn4ry";
    let password = format!("{before}{CANARY}{after}");
    for url in [
        format!("postgres://u:{password}@h/d"),
        format!("postgres://u:{password}@h:5432/d?sslmode=disable&nonsense=1"),
        format!("postgres://h/d?user=u&password={password}"),
        format!("host=h user=u password={password}"),
        format!("host=h user=u password='{password}' dbname=d"),
        password.clone(),
    ] {
        let read = Dsn::parse(&url, "", &SecretString::from(""), false);
        if let Err(error) = read {
            let said = format!("{error} {error:?}");
            assert!(!said.contains(CANARY) && !said.contains(&CANARY.to_ascii_lowercase()), "{url:?}: {said}");
        }
    }
}

/// Whatever a user name and a password hold, the template gives them back whole and nothing else changes.
pub fn a_template_gives_back_what_is_put_in(username: &str, password: &str) {
    let has_tags = [username, password].iter().any(|text| text.contains("{{") || text.contains('\0'));
    if username.is_empty() || password.is_empty() || has_tags {
        return;
    }
    let secret = SecretString::from(password);
    let pairs = format!("host=h user={USERNAME_TAG} password={PASSWORD_TAG} dbname={}", in_quotes("a b"));
    for template in [
        format!("postgresql://{USERNAME_TAG}:{PASSWORD_TAG}@h/a%20b"),
        format!("postgres://h/a%20b?user={USERNAME_TAG}&password={PASSWORD_TAG}"),
        pairs,
    ] {
        let dsn = Dsn::parse(&template, username, &secret, false);
        let dsn = dsn.unwrap_or_else(|error| panic!("{template}: {error}"));
        assert_eq!((dsn.user.as_str(), dsn.database.as_str()), (username, "a b"));
        assert_eq!(dsn.password.as_ref().map(|found| found.expose_secret()), Some(password));
        assert_eq!(dsn.hosts, [("h".to_owned(), 5432)]);
    }
}
