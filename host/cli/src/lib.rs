//! The client commands: `leasehold read`, `write`, `lease`, `policy` and the others, over the HTTP API.
//!
//! Must not know: the sandbox (it is handed in as [`ModuleTools`]), the server's own types. It speaks to any server
//! that speaks this API.
//!
//! Start with [`run`]; then `commands` (what each command sends and prints), `client` (how a request travels) and
//! `print` (how an answer looks). The command line of Vault, one dash and old spellings, is `arguments`.
//!
//! Invariants: a token is never printed but by the commands whose result it is; it is in no error, no `Debug` output and
//! no curl line. No answer is read past 64 MiB. Exit status: 0 done, 1 wrong on this side, 2 refused or nothing there.

mod absent;
mod arguments;
mod client;
mod commands;
mod complete;
mod data;
mod declare;
mod duration;
mod environment;
mod failure;
mod print;
/// For the tests and the fuzz targets.
#[cfg(any(test, fuzzing))]
pub mod properties;
mod token_helper;
mod tools;
mod tree;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

pub use environment::Environment;
use failure::Failure;
pub use tools::{FindingSeverity, ModuleRefused, ModuleTools, NoTools, PolicyFinding};

/// What Vault's clients exit with when there is no such command.
const NO_SUCH_COMMAND: u8 = 127;

/// A command of another crate in the same tree, such as `server`.
pub struct OwnCommand<'a> {
    command: Command,
    above: &'static [&'static str],
    run: Box<dyn FnOnce(&ArgMatches) -> ExitCode + 'a>,
}

impl fmt::Debug for OwnCommand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCommand").field("name", &self.command.get_name()).finish_non_exhaustive()
    }
}

impl<'a> OwnCommand<'a> {
    /// `run` is called with the matches of `command`. Its flags take one dash or two, as everywhere.
    pub fn new(command: Command, run: impl FnOnce(&ArgMatches) -> ExitCode + 'a) -> Self {
        Self { command, above: &[], run: Box::new(run) }
    }

    /// The command stands beneath a group of the client's, such as `operator`.
    #[must_use]
    pub fn beneath(self, above: &'static [&'static str]) -> Self {
        Self { above, ..self }
    }

    fn put_into(&self, tree: Command) -> Command {
        fn put(tree: Command, above: &[&'static str], command: Command) -> Command {
            match above.split_first() {
                Some((group, above)) => tree.mut_subcommand(group, |tree| put(tree, above, command)),
                None => tree.subcommand(command),
            }
        }
        put(tree, self.above, self.command.clone())
    }

    /// Its own matches, if it is the one that was chosen.
    fn matches<'m>(&self, chosen: &'m ArgMatches) -> Option<&'m ArgMatches> {
        let path = self.above.iter().copied().chain([self.command.get_name()]);
        path.into_iter().try_fold(chosen, |chosen, name| chosen.subcommand_matches(name))
    }
}

/// The client's command tree, for help, completion and documentation.
pub fn command() -> Command {
    tree::client()
}

/// Whether these arguments (the program's name first) ask for one of the client's own commands, in today's spelling or
/// an old one. `false` for help, for nothing at all, and for what nobody knows.
pub fn is_client_command(arguments: &[OsString]) -> bool {
    let tree = command();
    let normal = arguments::normalised(&tree, arguments.to_vec());
    let first = normal.get(1).and_then(|word| word.to_str());
    first.is_some_and(|word| tree.find_subcommand(word).is_some())
}

/// Runs one command line (the program's name first) in this process's surroundings.
pub fn run(arguments: Vec<OsString>, tools: &dyn ModuleTools, own: Vec<OwnCommand<'_>>) -> ExitCode {
    ExitCode::from_outcome(run_in(&mut Environment::of_this_process(), arguments, tools, own))
}

/// The same in surroundings of the caller's choice. The outcome is the exit status, or what an own command returned.
pub fn run_in(
    env: &mut Environment,
    arguments: Vec<OsString>,
    tools: &dyn ModuleTools,
    own: Vec<OwnCommand<'_>>,
) -> Outcome {
    let tree = own.iter().fold(command(), |tree, own| own.put_into(tree));
    if let Some(typed) = complete::asked(env) {
        return Outcome::Status(complete::run(env, &tree, &typed));
    }
    let normal = arguments::normalised(&tree, arguments);
    let is_known =
        normal.get(1).and_then(|word| word.to_str()).is_some_and(|word| tree.find_subcommand(word).is_some());
    let chosen = match tree.clone().try_get_matches_from(normal) {
        Ok(chosen) => chosen,
        Err(error) => return Outcome::Status(usage(env, &error, is_known)),
    };
    for own in own {
        if let Some(flags) = own.matches(&chosen) {
            return Outcome::Own((own.run)(flags));
        }
    }
    let outcome = commands::run(env, tools, &tree, &chosen);
    let flushed = env.stdout.flush().map_err(Failure::from);
    Outcome::Status(match outcome.and(flushed) {
        Ok(()) => 0,
        Err(failure) => report(env, &failure),
    })
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// A client command's exit status.
    Status(u8),
    /// What a command of another crate returned.
    Own(ExitCode),
}

trait FromOutcome {
    fn from_outcome(outcome: Outcome) -> Self;
}

impl FromOutcome for ExitCode {
    fn from_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Status(status) => ExitCode::from(status),
            Outcome::Own(code) => code,
        }
    }
}

fn report(env: &mut Environment, failure: &Failure) -> u8 {
    match failure {
        Failure::NotSent(line) => {
            if env.say(line).is_err() {
                return 1;
            }
        }
        // Nobody listens any more; a complaint about it would only litter the pipe's end.
        Failure::Status(_) | Failure::Output(_) => {}
        failure => env.warn(&failure.to_string()),
    }
    failure.status()
}

fn usage(env: &mut Environment, error: &clap::Error, is_known: bool) -> u8 {
    let to_stdout = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let is_terminal = if to_stdout { env.stdout_is_terminal } else { env.stderr_is_terminal };
    let text = if is_terminal { error.render().ansi().to_string() } else { error.render().to_string() };
    if to_stdout {
        return u8::from(env.say(text.trim_end()).is_err());
    }
    match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(word)) if let Some(why) = absent::reason(word) => {
            env.warn(&format!("`{word}` is a command of Vault's that Leasehold does not have: {why}"));
        }
        _ => env.warn(text.trim_end()),
    }
    let no_command = matches!(
        error.kind(),
        ErrorKind::InvalidSubcommand
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if no_command && !is_known { NO_SUCH_COMMAND } else { 1 }
}
