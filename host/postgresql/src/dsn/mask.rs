//! A connection URL as it may be read back: without its password.

use secrecy::SecretString;

use super::{Dsn, PASSWORD_TAG, decoded, in_quotes, is_password, pairs, scheme};

fn is_url(url: &str) -> bool {
    Dsn::parse(url, "u", &SecretString::from("p"), true).is_ok()
}

/// `url` as it may be read back, and whether a password was hidden in it.
pub fn masked(url: &str) -> (String, bool) {
    const MASK: &str = "xxxxx";
    let hides = |password: &str| !password.is_empty() && password != PASSWORD_TAG;
    let (mut shown, mut found) = (url.to_owned(), false);
    if let Some(scheme) = scheme(url) {
        let rest = url.get(scheme.len()..).unwrap_or("");
        let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // A password with an unescaped `/` or `?` in it makes no URL: everything up to the last `@` is hidden then.
        let (login, place) = match (authority.rsplit_once('@'), rest.rsplit_once('@')) {
            (Some((login, host)), _) => (login, format!("{host}{after}")),
            (None, Some((login, place))) if !is_url(url) => (login, place.to_owned()),
            (None, _) => ("", rest.to_owned()),
        };
        if let Some((user, password)) = login.split_once(':')
            && hides(password)
        {
            (shown, found) = (format!("{scheme}{user}:{MASK}@{place}"), true);
        }
        let (head, query) = shown.split_once('?').map_or((shown.as_str(), None), |(head, query)| (head, Some(query)));
        if let Some(query) = query {
            let pairs: Vec<String> = query
                .split('&')
                .map(|pair| match pair.split_once('=') {
                    Some((name, value))
                        if hides(value) && decoded(name, "options").is_ok_and(|name| is_password(&name)) =>
                    {
                        found = true;
                        format!("{name}={MASK}")
                    }
                    _ => pair.to_owned(),
                })
                .collect();
            shown = format!("{head}?{}", pairs.join("&"));
        }
        return (shown, found);
    }
    match pairs(url) {
        Ok(pairs) if pairs.iter().any(|(key, value)| is_password(key) && hides(value)) => {
            let one = |(key, value): &(String, String)| match is_password(key) {
                true => format!("{key}={MASK}"),
                false => format!("{key}={}", quoted(value)),
            };
            (pairs.iter().map(one).collect::<Vec<_>>().join(" "), true)
        }
        Ok(_) => (shown, found),
        // Not readable, so nobody knows where its password is.
        Err(_) if url.to_ascii_lowercase().contains("password") => (MASK.to_owned(), true),
        Err(_) => (shown, found),
    }
}

/// As [`pairs`] reads it back: bare where it can be.
fn quoted(value: &str) -> String {
    if value.is_empty() || value.contains(|letter: char| letter.is_whitespace() || matches!(letter, '\'' | '\\')) {
        return in_quotes(value);
    }
    value.to_owned()
}
