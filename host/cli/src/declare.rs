//! How commands and flags are declared.

use clap::{Arg, ArgAction, Command};

use crate::environment::parse_bool;

/// A command that does something.
pub(crate) fn leaf(name: &'static str, about: &'static str, words: &'static str, examples: &'static str) -> Command {
    let command = Command::new(name).about(about).after_help(format!("Examples:\n{examples}"));
    // How many there may be is checked by the command, in Vault's words; the usage line says it (`tree`).
    let taken = Arg::new("words").num_args(0..).hide(true);
    command.arg(if words.is_empty() { taken } else { taken.value_name(words) })
}

/// A command that only has commands beneath it.
pub(crate) fn group(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about)
}

/// `-name=VALUE` or `-name VALUE`.
pub(crate) fn value(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help).allow_hyphen_values(true)
}

/// The same, as often as wanted.
pub(crate) fn values(name: &'static str, value_name: &'static str, help: &'static str) -> Arg {
    value(name, value_name, help).action(ArgAction::Append)
}

/// `-name`, `-name=true`, `-name=false`.
pub(crate) fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_name("BOOL")
        .hide_possible_values(true)
        .value_parser(|text: &str| parse_bool(text).ok_or("must be true or false"))
}
