//! What a client gets: a username that says where it comes from, and a random password.

use std::collections::BTreeMap;

use leasehold_core::random;
use leasehold_core::seams::engine::EngineContext;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::Entropy;
use leasehold_core::seams::sandbox::{SandboxError, UsernameError, UsernameFacts};
use leasehold_model::Timestamp;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::connection::ConnectionRecord;

/// PostgreSQL cuts longer names without a word.
pub(super) const NAME_MAX: usize = 63;
/// Bytes for the random parts of a name.
const RANDOMNESS: usize = 512;
const PASSWORD_LEN: usize = 24;
/// 63 characters in 24 places: 143 bits, of which the rules below cost fewer than 3.
const PASSWORD_ALPHABET: &[u8; 63] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-";

/// `v-<display name>-<role>-<20 random>-<unix time>`, as Vault's default template makes it.
///
/// What could mean something to SQL in the display name becomes `_`. At most 8 + 8 bytes come from outside, so the random part is always
/// whole and the name has 51 bytes at most.
pub(super) fn username(display_name: &str, role: &str, now: Timestamp, entropy: &dyn Entropy) -> String {
    let name = format!(
        "v-{}-{}-{}-{}",
        harmless(display_name, 8),
        harmless(role, 8),
        random::base62(entropy, 20),
        now.as_secs()
    );
    debug_assert!(name.len() <= NAME_MAX);
    name
}

/// Vault's default, which is made [here](username) without asking anybody.
const DEFAULT_TEMPLATE: &str = "{{ printf \"v-%s-%s-%s-%s\" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}";

/// Whether names are made as by Vault's default.
fn is_default(template: &str) -> bool {
    let template = template.trim();
    template.is_empty() || template == DEFAULT_TEMPLATE
}

/// What a write is told of its `username_template`.
///
/// # Errors
/// In Vault's words: what is wrong with it.
pub(super) async fn check_template(at: &EngineContext, template: &str) -> Result<Vec<String>, RequestError> {
    if is_default(template) {
        return Ok(Vec::new());
    }
    at.templates.check_username(template).await.map_err(|error| match error {
        UsernameError::Refused(why) => RequestError::Invalid(why),
        // A template that cannot be read within bounds is whoever's who wrote it.
        UsernameError::Sandbox(SandboxError::Fuel | SandboxError::Memory) => {
            RequestError::invalid("username_template takes too much to be read")
        }
        UsernameError::Sandbox(error) => error.into(),
    })
}

/// A name by a template.
///
/// # Errors
/// What is wrong with the template, with these facts.
pub(super) async fn named(
    at: &EngineContext,
    template: &str,
    display_name: &str,
    role_name: &str,
) -> Result<String, RequestError> {
    let now = at.clock.now();
    if is_default(template) {
        return Ok(username(display_name, role_name, now, &*at.entropy));
    }
    let mut randomness = [0_u8; RANDOMNESS];
    at.entropy.fill(&mut randomness);
    let facts = UsernameFacts { display_name, role_name, now, randomness: &randomness };
    let name = at.templates.username(template, &facts).await.map_err(|error| match error {
        UsernameError::Refused(why) => RequestError::Engine(format!("failed to generate username: {why}")),
        UsernameError::Sandbox(error) => error.into(),
    })?;
    // Whatever made it: a name goes into statements.
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+' | '/' | '=' | ':');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_name) {
        return Err(RequestError::Engine("failed to generate username: what was made cannot be a name".to_owned()));
    }
    Ok(name)
}

fn harmless(text: &str, len: usize) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+');
    text.chars().map(|c| if allowed(c) { c } else { '_' }).take(len).collect()
}

/// The name of the policy that passwords of a role follow: its own, or else its connection's. Empty: none.
pub(super) fn policy<'r>(config: &'r BTreeMap<String, String>, connection: &'r ConnectionRecord) -> &'r String {
    let own = config.get("password_policy").filter(|policy| !policy.is_empty());
    own.unwrap_or(&connection.password_policy)
}

/// # Errors
/// In Vault's words: there is no such policy, or the store did not tell.
pub(super) async fn check_policy(at: &EngineContext, policy: &str) -> Result<(), RequestError> {
    if policy.is_empty() || at.passwords.text(policy).await?.is_some() { Ok(()) } else { Err(no_policy()) }
}

/// What a write is told that names a policy which is not there: it may come later, as in Vault.
pub(super) async fn advise_policy(at: &EngineContext, policy: &str) -> Result<Option<String>, RequestError> {
    let is_there = policy.is_empty() || at.passwords.text(policy).await?.is_some();
    Ok((!is_there).then(|| {
        format!(
            "\"password_policy\" names a policy that is not there: no password is made before somebody writes \
             sys/policies/password/{policy}"
        )
    }))
}

fn no_policy() -> RequestError {
    RequestError::Engine("failed to generate password: no password policy found".to_owned())
}

/// A password by this policy; where its name is empty, by [our own rules](password).
///
/// # Errors
/// As [`check_policy`].
pub(super) async fn password_by(at: &EngineContext, policy: &str) -> Result<SecretString, RequestError> {
    if policy.is_empty() {
        return Ok(password(&*at.entropy));
    }
    at.passwords.generate(policy).await?.ok_or_else(no_policy)
}

/// 24 of `[A-Za-z0-9-]` with at least one of each class. Neither begins nor ends with `-` nor holds `--`, so that no place in SQL
/// can take it for a comment.
pub(super) fn password(entropy: &dyn Entropy) -> SecretString {
    let mut bytes = Zeroizing::new([0_u8; 64]);
    let mut text = Zeroizing::new(String::with_capacity(PASSWORD_LEN));
    loop {
        text.clear();
        while text.len() < PASSWORD_LEN {
            entropy.fill(bytes.as_mut_slice());
            // 252 = 4 × 63: larger bytes would favour the first characters.
            for byte in bytes.iter().filter(|byte| **byte < 252) {
                if text.len() < PASSWORD_LEN
                    && let Some(c) = PASSWORD_ALPHABET.get(usize::from(byte % 63))
                {
                    text.push(char::from(*c));
                }
            }
        }
        if is_good(&text) {
            return SecretString::from(text.as_str());
        }
    }
}

fn is_good(text: &str) -> bool {
    let has = |class: fn(&u8) -> bool| text.as_bytes().iter().any(class);
    has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit)
        && has(|byte| *byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.contains("--")
}

/// Stands in rendered statements where a value will be put: letters and digits that no operator wrote.
pub(super) fn placeholder(entropy: &dyn Entropy) -> String {
    format!("L{}", random::base62(entropy, 24))
}

#[cfg(test)]
mod tests {
    use leasehold_core::testing::CountingEntropy;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_username_names_who_asked_for_what_and_when() {
        let name = username(
            "token-My-App",
            "a-very-long.role",
            Timestamp::from_secs(1_795_394_223),
            &CountingEntropy::default(),
        );
        let (head, rest) = name.split_at("v-token-My-a-very-l-".len());
        assert_eq!(head, "v-token-My-a-very-l-");
        let (random, time) = rest.split_once('-').unwrap();
        assert_eq!((random.len(), time), (20, "1795394223"));
    }

    #[test]
    fn a_hostile_display_name_brings_no_sql_into_a_username() {
        let name =
            username("a\"';--\0", "r", Timestamp::from_secs(i64::MAX / 2_000_000_000), &CountingEntropy::default());
        assert!(name.starts_with("v-a___--_-r-"), "{name}");
        let long = username(&"ü".repeat(99), &"r".repeat(99), Timestamp::NEVER, &CountingEntropy::default());
        assert!(long.len() <= NAME_MAX, "{long}");
    }

    #[test]
    fn every_password_has_each_class_and_none_looks_like_a_comment() {
        let entropy = CountingEntropy::default();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let password = password(&entropy);
            let text = password.expose_secret();
            assert_eq!(text.len(), PASSWORD_LEN);
            assert!(is_good(text), "{text}");
            assert!(seen.insert(text.to_owned()));
        }
    }

    #[test]
    fn what_begins_a_comment_or_lacks_a_class_is_no_password() {
        for text in ["-aA1", "aA1-", "a--A1", "aA1", "AB-1", "ab-1", "aB-c"] {
            assert!(!is_good(text), "{text}");
        }
        assert!(is_good("aA-1"));
    }
}
