//! One password policy: what its text says, and passwords that follow it.
//!
//! Start with [`PasswordPolicy::parse`] and [`PasswordPolicy::generate`].
//!
//! Invariant: what was parsed can make a password. Every password that follows the policy is as likely as every other one, but for
//! policies that so few of them follow that none is met in [`TRIES`] draws; there each character of each rule is.

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::TEXT_MAX;
use super::tree::{self, Value};
use crate::near::nearest;
use crate::seams::host::Entropy;

const LENGTH_MIN: i64 = 4;
const LENGTH_MAX: i64 = 100;
/// As many as a person reads.
const MISSPELT_MAX: usize = 5;
/// How many passwords are drawn before one is put together.
const TRIES: usize = 64;

/// So many characters of a charset must be there.
#[derive(Debug)]
struct Rule {
    /// Sorted; each character once.
    charset: Vec<char>,
    at_least: usize,
}

#[derive(Debug)]
pub struct PasswordPolicy {
    length: usize,
    /// Of all rules; sorted, each character once, never empty.
    charset: Vec<char>,
    /// Those that ask for a character at all. Together they ask for no more than the length.
    rules: Vec<Rule>,
}

/// Why a text is no password policy, in Vault's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(String);

impl PasswordPolicy {
    /// # Errors
    /// The text is not HCL, or no password can follow it.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > TEXT_MAX {
            return Err(PolicyError(format!("invalid password policy: it is longer than {TEXT_MAX} bytes")));
        }
        let policy = read(text).map_err(|why| PolicyError(format!("invalid password policy: {why}")))?;
        let length = i64::try_from(policy.length).unwrap_or(i64::MAX);
        if (LENGTH_MIN..=LENGTH_MAX).contains(&length) {
            Ok(policy)
        } else {
            Err(PolicyError(format!("passwords must be between {LENGTH_MIN} and {LENGTH_MAX} characters")))
        }
    }

    /// A new password, in bounded time.
    #[must_use]
    pub fn generate(&self, entropy: &dyn Entropy) -> SecretString {
        let mut draw = Draw::new(entropy);
        let mut password = Zeroizing::new(vec!['\0'; self.length]);
        let is_found = (0..TRIES).any(|_| {
            password.iter_mut().for_each(|c| *c = draw.of(&self.charset));
            self.rules.iter().all(|rule| rule.is_kept_by(&password))
        });
        if !is_found {
            self.put_together(&mut draw, &mut password);
        }
        let text: Zeroizing<String> = Zeroizing::new(password.iter().collect());
        SecretString::from(text.as_str())
    }

    /// What each rule asks for, then any others, in an order of chance.
    fn put_together(&self, draw: &mut Draw<'_>, password: &mut [char]) {
        let wanted = self.rules.iter().flat_map(|rule| std::iter::repeat_n(&rule.charset, rule.at_least));
        let charsets = wanted.chain(std::iter::repeat(&self.charset));
        password.iter_mut().zip(charsets).for_each(|(c, charset)| *c = draw.of(charset));
        for last in (1..password.len()).rev() {
            password.swap(last, draw.below(last + 1));
        }
    }
}

impl Rule {
    fn is_kept_by(&self, password: &[char]) -> bool {
        password.iter().filter(|c| self.charset.binary_search(c).is_ok()).count() >= self.at_least
    }
}

/// Numbers of equal likelihood.
struct Draw<'a> {
    entropy: &'a dyn Entropy,
    bytes: Zeroizing<[u8; 256]>,
    next: usize,
}

impl<'a> Draw<'a> {
    fn new(entropy: &'a dyn Entropy) -> Self {
        Self { entropy, bytes: Zeroizing::new([0; 256]), next: 256 }
    }

    fn number(&mut self) -> u32 {
        if self.next >= self.bytes.len() {
            self.entropy.fill(self.bytes.as_mut_slice());
            self.next = 0;
        }
        let number = self.bytes.get(self.next..self.next + 4).and_then(|bytes| bytes.try_into().ok());
        self.next += 4;
        u32::from_le_bytes(number.unwrap_or_default())
    }

    /// Less than `end`, which is at most the length of a policy.
    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(1).max(1);
        // Larger numbers would favour the first results.
        let whole = (1_u64 << 32) / end * end;
        let mut number = u64::from(self.number());
        // More than half of all numbers will do: that none comes is less likely than to guess the password.
        for _ in 0..256 {
            if number < whole {
                break;
            }
            number = u64::from(self.number());
        }
        usize::try_from(number % end).unwrap_or_default()
    }

    fn of(&mut self, charset: &[char]) -> char {
        charset.get(self.below(charset.len())).copied().unwrap_or_default()
    }
}

/// Keys of a text that mean nothing, as in Vault, and what may have been meant by them.
pub(super) fn misspelt(text: &str) -> Vec<String> {
    let items = if text.len() > TEXT_MAX { Vec::new() } else { tree::parse(text).unwrap_or_default() };
    let mut said = Vec::new();
    say_unknown(&items, &["length", "rule"], &mut said);
    let rules = items.iter().filter(|(key, _)| key == "rule").filter_map(|(_, value)| objects(value)).flatten();
    for (kind, value) in rules.flatten() {
        match kind.as_str() {
            "charset" => {
                let blocks = objects(value).unwrap_or_default();
                blocks.into_iter().for_each(|block| say_unknown(block, &["charset", "min-chars"], &mut said));
            }
            other => said.extend(not_known(other, &["charset"])),
        }
    }
    said.sort();
    said.dedup();
    said.truncate(MISSPELT_MAX);
    said
}

fn say_unknown(items: &[(String, Value)], known: &[&'static str], said: &mut Vec<String>) {
    let unknown = items.iter().filter(|(key, _)| !known.iter().any(|known| key.eq_ignore_ascii_case(known)));
    said.extend(unknown.filter_map(|(key, _)| not_known(key, known)));
}

fn not_known(word: &str, known: &[&'static str]) -> Option<String> {
    let near = nearest(word, known.iter().copied())?;
    Some(format!("`{word}` is not known in a password policy: did you mean `{near}`?"))
}

fn read(text: &str) -> Result<PasswordPolicy, String> {
    let items = tree::parse(text).map_err(|why| format!("unable to decode: {why}"))?;
    let length = match field(&items, "length") {
        None => 0,
        Some(value) => int("length", value).map_err(|why| format!("failed to decode configuration: {why}"))?,
    };
    let mut rules = Vec::new();
    for value in items.iter().filter(|(key, _)| key == "rule").map(|(_, value)| value) {
        let blocks = objects(value).ok_or_else(|| format!("unable to retrieve rules: {}", no_list("", value)))?;
        for block in blocks {
            for (kind, value) in block {
                rules.push(rule(kind, value).map_err(|why| format!("unable to parse rules: {why}"))?);
            }
        }
    }
    checked(length, rules)
}

fn rule(kind: &str, value: &Value) -> Result<(Vec<char>, i64), String> {
    let blocks = objects(value);
    let blocks =
        blocks.ok_or_else(|| format!("unable to get rule info: unable to get rule data: {}", no_list("", value)))?;
    let data = *blocks.first().ok_or("unable to get rule info: rule info cannot be empty")?;
    let failed = |why: String| format!("unable to parse rule {kind}: {why}");
    if kind != "charset" {
        return Err(failed(format!("unrecognized rule type {kind}")));
    }
    let restriction = |why: String| failed(format!("failed to parse charset restriction: {why}"));
    let charset = match field(data, "charset") {
        None => Vec::new(),
        Some(Value::Text(text)) => text.chars().collect(),
        Some(Value::List(items)) => {
            let kind = items.first().map_or("string", Value::type_name);
            let why = format!("'charset[0]' expected type 'int32', got unconvertible type '{kind}'");
            return Err(restriction(decoding(&why)));
        }
        Some(other) => return Err(restriction(decoding(&no_list("charset", other)))),
    };
    let at_least = match field(data, "min-chars") {
        None => 0,
        Some(value) => int("min-chars", value).map_err(restriction)?,
    };
    Ok((charset, at_least))
}

/// What Vault checks of a policy as a whole.
fn checked(length: i64, rules: Vec<(Vec<char>, i64)>) -> Result<PasswordPolicy, String> {
    let mut wrong = Vec::new();
    let needed = rules.iter().fold(0_i64, |sum, (_, at_least)| sum.saturating_add((*at_least).max(0)));
    if length <= 0 {
        wrong.push("length must be > 0".to_owned());
    } else if length < needed {
        wrong.push(format!("specified rules require at least {needed} characters but {length} is specified"));
    }
    let charset = sorted(rules.iter().flat_map(|(charset, _)| charset.iter().copied()).collect());
    if charset.is_empty() {
        wrong.push("no charset specified".to_owned());
    } else if !charset.iter().copied().all(is_printable) {
        wrong.push("non-printable character in charset".to_owned());
    }
    let mut kept = Vec::new();
    for (charset, at_least) in rules {
        match usize::try_from(at_least) {
            Ok(at_least) if at_least > 0 => kept.push(Rule { charset: sorted(charset), at_least }),
            _ => {}
        }
    }
    // Vault takes it, and then no password is ever made.
    if kept.iter().any(|rule| rule.charset.is_empty()) && wrong.is_empty() {
        wrong.push("a rule with min-chars has no charset".to_owned());
    }
    match wrong.as_slice() {
        [] => Ok(PasswordPolicy { length: usize::try_from(length).unwrap_or(usize::MAX), charset, rules: kept }),
        [one] => Err(format!("1 error occurred:\n\t* {one}\n\n")),
        several => Err(format!("{} errors occurred:\n\t* {}\n\n", several.len(), several.join("\n\t* "))),
    }
}

fn sorted(mut charset: Vec<char>) -> Vec<char> {
    charset.sort_unstable();
    charset.dedup();
    charset
}

/// As Go's `unicode.IsPrint`: letters, marks, numbers, signs, and of all spaces the ASCII one.
fn is_printable(c: char) -> bool {
    // Behind a letter, only what is not printable is escaped by its number.
    let escaped = ['a', c].iter().collect::<String>().escape_debug().to_string();
    !c.is_control() && !escaped.starts_with("a\\u{")
}

/// The last one of its name: as it is written, or else in letters of another case.
fn field<'v>(items: &'v [(String, Value)], name: &str) -> Option<&'v Value> {
    let exact = items.iter().rev().find(|(key, _)| key == name);
    let found = exact.or_else(|| items.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)));
    found.map(|(_, value)| value)
}

fn int(name: &str, value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(int) => Ok(*int),
        // Go cuts it as well.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float that is too large saturates, and is refused as a length"
        )]
        Value::Float(float) => Ok(*float as i64),
        other => {
            let why = format!("'{name}' expected type 'int', got unconvertible type '{}'", other.type_name());
            Err(decoding(&why))
        }
    }
}

fn decoding(why: &str) -> String {
    format!("decoding failed due to the following error(s):\n\n{why}")
}

fn no_list(name: &str, value: &Value) -> String {
    format!("'{name}' source data must be an array or slice, got {}", value.type_name())
}

/// A block, or a list of blocks.
fn objects(value: &Value) -> Option<Vec<&Vec<(String, Value)>>> {
    fn object(value: &Value) -> Option<&Vec<(String, Value)>> {
        match value {
            Value::Object(items) => Some(items),
            _ => None,
        }
    }
    match value {
        Value::List(values) => values.iter().map(object).collect(),
        other => object(other).map(|items| vec![items]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;
    use crate::testing::CountingEntropy;

    fn rules(length: usize, rules: &[(&str, i64)]) -> String {
        let mut text = format!("length = {length}\n");
        for (charset, at_least) in rules {
            text += &format!("rule \"charset\" {{\n  charset = {charset:?}\n  min-chars = {at_least}\n}}\n");
        }
        text
    }

    #[test]
    fn a_misspelt_key_is_told_from_one_that_means_something() {
        let said = |text: &str| {
            let said = misspelt(text);
            said.iter()
                .map(|said| said.replace(" is not known in a password policy: did you mean", ""))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(&rules(20, &[("abc", 1)])), [""; 0]);
        assert_eq!(said("Length = 20\nRULE \"charset\" { Charset = \"a\" Min-Chars = 1 }"), [""; 0]);
        assert_eq!(said("lenght = 20\nrul \"charset\" { }"), ["`lenght` `length`?", "`rul` `rule`?"]);
        assert_eq!(
            said("length = 20\nrule \"charst\" { }\nrule \"charset\" { min_chars = 1\nchar = \"a\" }"),
            ["`charst` `charset`?", "`min_chars` `min-chars`?"]
        );
        assert_eq!(
            said("{\"rule\": [{\"charset\": [{\"min_chars\": 1}, {\"min_chars\": 2}]}]}"),
            ["`min_chars` `min-chars`?"]
        );
        for nothing in ["", "{", "rule = 5", "rule \"charset\" = 5", "colour = 1"] {
            assert_eq!(said(nothing), [""; 0], "{nothing}");
        }
    }

    /// Vault draws passwords until one follows the policy: of this one it never finds any.
    #[test]
    fn a_policy_that_few_passwords_follow_makes_them_too() {
        let texts: Vec<String> = ('a'..='j').map(String::from).collect();
        let ten: Vec<(&str, i64)> = texts.iter().map(|text| (text.as_str(), 10)).collect();
        let policy = PasswordPolicy::parse(&rules(100, &ten)).unwrap();
        let entropy = CountingEntropy::default();
        let passwords: Vec<SecretString> = (0..20).map(|_| policy.generate(&entropy)).collect();
        for password in &passwords {
            let text = password.expose_secret();
            assert!(('a'..='j').all(|c| text.matches(c).count() == 10), "{text}");
            assert!(!text.starts_with("aaaaaaaaaa"), "{text} is not shuffled");
        }
    }

    /// A remainder would favour the first of 96 characters by a half, were a byte drawn.
    #[test]
    fn every_character_is_as_likely_as_every_other() {
        let charset: String = ('\u{4e00}'..).take(96).collect();
        let policy = PasswordPolicy::parse(&rules(100, &[(&charset, 0), ("\u{4e00}\u{4e00}\u{4e01}", 1)])).unwrap();
        let entropy = CountingEntropy::default();
        let mut counts: BTreeMap<char, usize> = BTreeMap::new();
        for _ in 0..2_000 {
            for c in policy.generate(&entropy).expose_secret().chars() {
                *counts.entry(c).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 96);
        // 2083 on average, with a deviation of 45.
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(*least > 1_800 && *most < 2_400, "{least} {most}");
    }

    #[test]
    fn what_is_drawn_never_waits_for_entropy_that_does_not_come() {
        struct Constant;
        impl Entropy for Constant {
            fn fill(&self, bytes: &mut [u8]) {
                bytes.fill(0xff);
            }
        }
        let policy = PasswordPolicy::parse(&rules(20, &[("abc", 20)])).unwrap();
        assert_eq!(policy.generate(&Constant).expose_secret().len(), 20);
    }

    #[test]
    fn what_is_printable_is_as_in_go() {
        assert!(" aä€'\"\\$\u{301}字".chars().all(is_printable));
        assert!(!"\n\t\u{7f}\u{a0}\u{200b}\u{ad}\u{2028}\u{e000}\u{378}".chars().any(is_printable));
    }

    proptest! {
        /// Whatever policy is taken, each of its passwords follows it.
        #[test]
        fn passwords_follow_their_policy(
            length in 1_usize..110,
            wanted in proptest::collection::vec(("[ -~äöü€]{0,12}", -2_i64..30), 0..6),
        ) {
            let wanted: Vec<(&str, i64)> = wanted.iter().map(|(text, n)| (text.as_str(), *n)).collect();
            let Ok(policy) = PasswordPolicy::parse(&rules(length, &wanted)) else { return Ok(()) };
            prop_assert!((4..=100).contains(&length));
            let password = policy.generate(&CountingEntropy::default());
            let password = password.expose_secret();
            prop_assert_eq!(password.chars().count(), length);
            for (charset, at_least) in &wanted {
                let found = password.chars().filter(|c| charset.contains(*c)).count();
                prop_assert!(i64::try_from(found).unwrap() >= *at_least);
            }
            prop_assert!(password.chars().all(|c| wanted.iter().any(|(charset, _)| charset.contains(c))));
        }
    }
}
