//! What a shell asks for while somebody types: commands, flags, and paths that the server has.
//!
//! A shell says what has been typed in `COMP_LINE`, and where the cursor stands in `COMP_POINT`: `complete -o nospace -C leasehold leasehold`
//! of bash does so, and so do the scripts of `leasehold completion`.
//!
//! Start with [`asked`], then [`run`]; what the server is asked is in [`paths`].
//!
//! Invariants: it ends within a second, whatever the server does; nothing is printed but candidates, on standard output; a shell finds
//! nothing in them to carry out, whoever made that name.

mod paths;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use clap::Command;

use crate::arguments::{as_flag, normalised, takes_value};
use crate::commands::run::Run;
use crate::environment::{Environment, PREFIXES};
use crate::print::Format;
use crate::tools::NoTools;
use paths::Wanted;

/// Whoever types waits for it.
const TIME_MAX: Duration = Duration::from_secs(1);

/// What the scripts of `leasehold completion` ask for, which know commands and flags themselves.
const PATHS_ALONE: (&str, &str) = ("LEASEHOLD_COMPLETE", "paths");

/// What has been typed, up to the cursor, if a shell asks.
pub(crate) fn asked(env: &Environment) -> Option<String> {
    let line = env.variables.get("COMP_LINE")?;
    let point = env.variables.get("COMP_POINT").and_then(|point| point.parse::<usize>().ok());
    Some(point.and_then(|point| line.get(..point)).unwrap_or(line).to_owned())
}

/// Prints what may stand at the cursor, each on a line.
pub(crate) fn run(env: &mut Environment, tree: &Command, typed: &str) -> u8 {
    let paths_alone = env.variables.get(PATHS_ALONE.0).is_some_and(|what| what == PATHS_ALONE.1);
    let mut words: Vec<String> = typed.split_whitespace().map(str::to_owned).collect();
    let begun = if typed.ends_with(char::is_whitespace) { None } else { words.pop() }.unwrap_or_default();
    let place = Place::after(tree, &words);
    let mut found = match Wanted::by(&place.path).filter(|_| place.words == 0) {
        _ if place.is_value => Vec::new(),
        _ if begun.starts_with('-') && paths_alone => Vec::new(),
        _ if begun.starts_with('-') => flags(place.command, &begun),
        Some(wanted) => ask(env.variables.clone(), tree.clone(), words, wanted, begun.clone()),
        None if paths_alone || place.words > 0 => Vec::new(),
        None => place.command.get_subcommands().filter(|one| !one.is_hide_set()).map(name).collect(),
    };
    found.retain(|one| one.starts_with(&begun) && is_plain(one) && (begun.starts_with('-') || !one.starts_with('-')));
    found.sort();
    found.dedup();
    for one in found {
        if env.say(&one).is_err() {
            break;
        }
    }
    0
}

/// Whether every shell takes it for itself. bash puts what it is given on the line as it is.
fn is_plain(candidate: &str) -> bool {
    candidate.chars().all(|c| c.is_alphanumeric() || "_-./@%+=:,".contains(c))
}

/// What the words in front of the cursor lead to.
struct Place<'t> {
    command: &'t Command,
    path: Vec<&'t str>,
    /// How many there are that are neither commands nor flags.
    words: usize,
    /// The last one is a flag whose value follows.
    is_value: bool,
}

impl<'t> Place<'t> {
    fn after(tree: &'t Command, words: &[String]) -> Self {
        let mut place = Self { command: tree, path: Vec::new(), words: 0, is_value: false };
        for word in words.iter().skip(1) {
            if std::mem::take(&mut place.is_value) {
                continue;
            }
            if let Some(flag) = as_flag(word) {
                place.is_value = !flag.contains('=') && takes_value(place.command, flag);
                continue;
            }
            match place.command.find_subcommand(word).filter(|_| place.words == 0) {
                Some(found) => {
                    place.command = found;
                    place.path.push(found.get_name());
                }
                None => place.words += 1,
            }
        }
        place
    }
}

fn name(command: &Command) -> String {
    command.get_name().to_owned()
}

/// With as many dashes as have been typed.
fn flags(command: &Command, begun: &str) -> Vec<String> {
    let dashes = if begun.starts_with("--") { "--" } else { "-" };
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    shown.filter_map(|arg| Some(format!("{dashes}{}", arg.get_long()?))).collect()
}

/// Asks the server, and waits for a second at most: a token helper or a name server may take longer, and end with this process.
fn ask(
    variables: BTreeMap<String, String>,
    tree: Command,
    words: Vec<String>,
    wanted: Wanted,
    begun: String,
) -> Vec<String> {
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = say.send(found(variables, &tree, words, wanted, &begun).unwrap_or_default());
    });
    hear.recv_timeout(TIME_MAX).unwrap_or_default()
}

/// None for whatever goes wrong: whoever types is not to be disturbed.
fn found(
    mut variables: BTreeMap<String, String>,
    tree: &Command,
    words: Vec<String>,
    wanted: Wanted,
    begun: &str,
) -> Option<Vec<String>> {
    for (name, value) in [("CLIENT_TIMEOUT", "1s"), ("MAX_RETRIES", "0")] {
        variables.insert(format!("{}{name}", PREFIXES[0]), value.to_owned());
    }
    let mut env = Environment {
        variables,
        stdin: Box::new(io::empty()),
        stdout: Box::new(io::sink()),
        stderr: Box::new(io::sink()),
        stdout_is_terminal: false,
        stderr_is_terminal: false,
    };
    let words = normalised(tree, words.into_iter().map(OsString::from).collect());
    let chosen = tree.clone().ignore_errors(true).try_get_matches_from(words).ok()?;
    let mut flags = &chosen;
    while let Some((_, inner)) = flags.subcommand() {
        flags = inner;
    }
    paths::find(&Run { env: &mut env, tools: &NoTools, tree, flags, format: Format::Table }, wanted, begun)
}
