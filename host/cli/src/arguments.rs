//! The command line before clap sees it: one dash or two, and the spellings of old.
//!
//! Vault writes `-format=json`; clap wants `--format=json`. Flags may also come after the other arguments. A flag's
//! value never becomes a flag, whatever it begins with.

use std::ffi::OsString;

use clap::{Arg, Command};

/// What Vault's clients called things before they grouped them.
const OLD_SPELLINGS: [(&str, &[&str]); 25] = [
    ("mount", &["secrets", "enable"]),
    ("unmount", &["secrets", "disable"]),
    ("mounts", &["secrets", "list"]),
    ("mount-tune", &["secrets", "tune"]),
    ("remount", &["secrets", "move"]),
    ("auth-enable", &["auth", "enable"]),
    ("auth-disable", &["auth", "disable"]),
    ("renew", &["lease", "renew"]),
    ("revoke", &["lease", "revoke"]),
    ("policies", &["policy", "list"]),
    ("policy-write", &["policy", "write"]),
    ("policy-delete", &["policy", "delete"]),
    ("token-create", &["token", "create"]),
    ("token-lookup", &["token", "lookup"]),
    ("token-renew", &["token", "renew"]),
    ("token-revoke", &["token", "revoke"]),
    ("capabilities", &["token", "capabilities"]),
    ("audit-enable", &["audit", "enable"]),
    ("audit-disable", &["audit", "disable"]),
    ("audit-list", &["audit", "list"]),
    ("init", &["operator", "init"]),
    ("unseal", &["operator", "unseal"]),
    ("seal", &["operator", "seal"]),
    ("rotate", &["operator", "rotate"]),
    ("key-status", &["operator", "key-status"]),
];

/// Rewrites the arguments (the program's name first) so that clap's parser of `tree` understands them.
pub(crate) fn normalised(tree: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let arguments = in_todays_words(tree, arguments);
    let mut normal = Vec::with_capacity(arguments.len());
    let mut rest = arguments.into_iter();
    normal.extend(rest.next());
    let mut command = tree;
    let mut may_be_command = true;
    while let Some(argument) = rest.next() {
        let Some(text) = argument.to_str() else {
            normal.push(argument);
            continue;
        };
        if text == "--" {
            normal.push(argument);
            normal.extend(rest);
            break;
        }
        let Some(flag) = as_flag(text) else {
            match command.find_subcommand(text).filter(|_| may_be_command) {
                Some(found) => command = found,
                None => may_be_command = false,
            }
            normal.push(argument);
            continue;
        };
        let mut long = OsString::from(format!("--{flag}"));
        if !flag.contains('=')
            && takes_value(command, flag)
            && let Some(value) = rest.next()
        {
            long.push("=");
            long.push(value);
        }
        normal.push(long);
    }
    normal
}

/// The flag's name and value without its dashes.
pub(crate) fn as_flag(text: &str) -> Option<&str> {
    let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    if !bare.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    Some(if bare == "h" { "help" } else { bare })
}

pub(crate) fn takes_value(command: &Command, name: &str) -> bool {
    let is_it =
        |arg: &&Arg| arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name));
    let found = command.get_arguments().find(is_it);
    found.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
}

fn in_todays_words(tree: &Command, mut arguments: Vec<OsString>) -> Vec<OsString> {
    let texts: Vec<&str> = arguments.iter().skip(1).map(|argument| argument.to_str().unwrap_or_default()).collect();
    let words: &[&str] = match texts.as_slice() {
        ["-v" | "-version" | "--version"] => &["version"],
        ["policies", name, ..] if !name.starts_with('-') => &["policy", "read"],
        // `auth` is a group today and was what `login` is.
        ["auth", "-methods" | "--methods", ..] => &["auth", "list"],
        ["auth", next, ..] if is_old_login(tree, next) => &["login"],
        [first, ..] if tree.find_subcommand(first).is_none() => {
            OLD_SPELLINGS.iter().find(|(old, _)| old == first).map_or(&[], |(_, words)| *words)
        }
        _ => &[],
    };
    if words.is_empty() {
        return arguments;
    }
    let replaced = if words == ["auth", "list"] && texts.first() == Some(&"auth") { 3 } else { 2 };
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    arguments.splice(1..replaced.min(arguments.len()), words);
    arguments
}

fn is_old_login(tree: &Command, next: &str) -> bool {
    let auth = tree.find_subcommand("auth");
    let is_todays = auth.is_some_and(|auth| auth.find_subcommand(next).is_some());
    !is_todays && !matches!(next, "help" | "-h" | "-help" | "--help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(line: &str) -> String {
        let tree = crate::command();
        let arguments = std::iter::once("leasehold").chain(line.split(' ')).map(OsString::from).collect();
        let words: Vec<_> =
            normalised(&tree, arguments).into_iter().skip(1).map(|word| word.into_string().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn one_dash_and_two_are_the_same_before_and_after_other_arguments() {
        for line in
            ["read -format=json -field x a/b", "read --format=json --field=x a/b", "read a/b -format json -field x"]
        {
            let mut words: Vec<_> = normal(line).split(' ').map(str::to_owned).collect();
            words.sort();
            assert_eq!(words.join(" "), "--field=x --format=json a/b read", "{line}");
        }
    }

    #[test]
    fn a_value_never_becomes_a_flag() {
        assert_eq!(normal("secrets tune -description -force db"), "secrets tune --description=-force db");
        assert_eq!(normal("write a/b - x=-y"), "write a/b - x=-y");
        assert_eq!(normal("write a/b -- -x=y"), "write a/b -- -x=y");
        assert_eq!(normal("write -f a/b"), "write --f a/b");
    }

    #[test]
    fn old_spellings_are_todays_commands() {
        for (old, new) in [
            ("renew a/b 3600", "lease renew a/b 3600"),
            ("mount -path=db database", "secrets enable --path=db database"),
            ("unmount db", "secrets disable db"),
            ("revoke -prefix=true a", "lease revoke --prefix=true a"),
            ("policies", "policy list"),
            ("policies apps", "policy read apps"),
            ("auth s.token", "login s.token"),
            ("auth -method=userpass username=x", "login --method=userpass username=x"),
            ("auth -methods", "auth list"),
            ("auth list", "auth list"),
            ("-version", "version"),
            ("status", "status"),
        ] {
            assert_eq!(normal(old), new, "{old}");
        }
    }

    #[test]
    fn every_old_spelling_leads_to_a_command_that_is_there() {
        let tree = crate::command();
        for (old, words) in OLD_SPELLINGS {
            let found = words.iter().try_fold(&tree, |command, word| command.find_subcommand(word));
            assert!(found.is_some(), "{old}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_command_line_is_taken_or_refused(words in proptest::collection::vec(word(), 0..6)) {
            crate::properties::any_command_line_is_taken_or_refused(&words);
        }
    }

    /// Words of commands and flags, old and new, and what is near them.
    fn word() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        const KNOWN: &[&str] = &[
            "read",
            "write",
            "secrets",
            "enable",
            "tune",
            "auth",
            "list",
            "login",
            "policies",
            "renew",
            "revoke",
            "token",
            "-field",
            "--field",
            "-format=json",
            "-f",
            "-force",
            "-h",
            "-help",
            "-v",
            "--",
            "-",
            "-methods",
            "-method=x",
            "-path",
            "a=b",
            "",
            "-1",
        ];
        prop_oneof![6 => proptest::sample::select(KNOWN).prop_map(str::to_owned), 1 => any::<String>()]
    }
}
