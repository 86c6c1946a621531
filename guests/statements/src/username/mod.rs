//! Names of leased roles by a `username_template`: Vault's, which is a subset of Go's templates.
//!
//! Must not know: where random bytes and the time come from; both are arguments.
//!
//! Start with [`username`], then [`parse`] (the text), [`evaluate`] (what it makes) and [`functions`].
//!
//! Invariants: a name has at most 63 bytes, for PostgreSQL cuts longer ones without a word, and what makes it one of a kind is whole:
//! display name and role name are cut until it fits. It has no character that means something to SQL.

mod calendar;
mod evaluate;
mod functions;
mod parse;

use evaluate::{Facts, Name};
use parse::Template;

/// What PostgreSQL keeps of a name.
pub const NAME_MAX: usize = 63;
/// Longer templates are refused.
const TEMPLATE_MAX: usize = 4_096;

/// What a name may say.
#[derive(Clone, Copy, Debug)]
pub struct UsernameFacts<'a> {
    pub display_name: &'a str,
    pub role_name: &'a str,
    /// Since the epoch, UTC.
    pub now_millis: u64,
    /// As much as the template draws; 512 bytes are enough for every name that fits.
    pub randomness: &'a [u8],
}

/// A name by a template.
///
/// # Errors
/// Vault's words for what is wrong with the template, ours for a name that cannot be one.
pub fn username(template: &str, facts: &UsernameFacts<'_>) -> Result<String, String> {
    made(&parsed(template)?, facts)
}

/// What to say of a template when it is written.
///
/// # Errors
/// As [`username`], for the longest names of tokens and roles.
pub fn check_username(template: &str) -> Result<Vec<String>, String> {
    let parsed = parsed(template)?;
    let long = "x".repeat(NAME_MAX);
    let by = |byte: u8| {
        let randomness: Vec<u8> = (0..512_u32).map(|n| (n as u8).wrapping_mul(7).wrapping_add(byte) % 248).collect();
        let facts = UsernameFacts {
            display_name: &long,
            role_name: &long,
            now_millis: 1_780_000_000_123,
            randomness: &randomness,
        };
        made(&parsed, &facts)
    };
    let (one, other) = (by(1)?, by(2)?);
    let repeats = "username_template has no random part: two leases of one role can want the same name, and the second is refused";
    Ok(if one == other { vec![repeats.to_owned()] } else { Vec::new() })
}

fn parsed(template: &str) -> Result<Template, String> {
    if template.len() > TEMPLATE_MAX {
        return Err(format!("username_template is longer than {TEMPLATE_MAX} bytes"));
    }
    parse::template(template).map_err(|(line, why)| {
        format!("unable to initialize username template: unable to parse template: template: template:{line}: {why}")
    })
}

fn made(template: &Template, facts: &UsernameFacts<'_>) -> Result<String, String> {
    let (display_name, role_name) = (harmless(facts.display_name), harmless(facts.role_name));
    let within = |most: usize| {
        let cut = |text: &str| text.get(..most.min(text.len())).unwrap_or_default().to_owned();
        let facts = Facts {
            display_name: cut(&display_name),
            role_name: cut(&role_name),
            now_millis: facts.now_millis,
            randomness: facts.randomness,
        };
        evaluate::evaluate(template, &facts).map_err(|failed| {
            format!(
                "invalid username template: unable to apply template: template: template:{}:{}: executing \"template\" at <{}>: {}",
                failed.line, failed.column, failed.source, failed.why
            )
        })
    };
    // What of the random parts shows in a name that has nothing else.
    let bare = within(0)?;
    let kept: Vec<&String> = bare.drawn.iter().filter(|drawn| bare.text.contains(drawn.as_str())).collect();
    let keeps =
        |name: &Name| name.text.len() <= NAME_MAX && kept.iter().all(|drawn| name.text.contains(drawn.as_str()));
    let mut most = display_name.len().max(role_name.len());
    loop {
        let name = within(most)?;
        if keeps(&name) {
            return checked(name.text);
        }
        if most == 0 {
            let length = name.text.len();
            return Err(format!(
                "username_template makes a name of {length} bytes even without display name and role name: PostgreSQL keeps {NAME_MAX}"
            ));
        }
        most -= 1;
    }
}

fn checked(name: String) -> Result<String, String> {
    if name.is_empty() {
        return Err("username_template makes an empty name".to_owned());
    }
    match name.chars().find(|letter| !is_harmless(*letter) && !matches!(letter, '/' | '=' | ':')) {
        Some(letter) => Err(format!(
            "username_template makes names with {letter:?}, which could mean something to SQL: use letters of ASCII, digits and -_.@+/=:"
        )),
        None => Ok(name),
    }
}

fn is_harmless(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '@' | '+')
}

/// Comes from outside. One byte for each character, at most as many as a name has.
fn harmless(text: &str) -> String {
    text.chars().map(|letter| if is_harmless(letter) { letter } else { '_' }).take(NAME_MAX).collect()
}
