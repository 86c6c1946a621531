//! The commands, one file for each group. A command turns words and flags into requests, and answers into print.
//!
//! Must not know: how a request travels (`client`), how a table looks (`print`). Start with [`run`](self::run()) and [`Run`].
//!
//! Invariants: what is sent is what contract.md §8 lists; the words of success and failure are Vault's.

mod audit;
mod auth;
mod data;
mod generate_root;
mod kv;
mod lease;
mod login;
mod misc;
mod module;
mod mounts;
mod operator;
mod policy;
mod rekey;
pub(crate) mod run;
mod secrets;
mod snapshot;
mod status;
mod token;

use clap::{ArgMatches, Command};

use crate::environment::Environment;
use crate::failure::Failure;
use crate::print::Format;
use crate::tools::ModuleTools;
use run::Run;

/// Every command of the client.
pub(crate) fn trees() -> Vec<Command> {
    let mut all = data::trees();
    all.extend([
        login::tree(),
        status::tree(),
        secrets::tree(),
        auth::tree(),
        policy::tree(),
        token::tree(),
        lease::tree(),
        kv::tree(),
    ]);
    all.extend([audit::tree(), operator::tree(), module::tree()]);
    all.extend(misc::trees());
    all
}

/// Runs the command that was chosen.
pub(crate) fn run(
    env: &mut Environment,
    tools: &dyn ModuleTools,
    tree: &Command,
    chosen: &ArgMatches,
) -> Result<(), Failure> {
    let (mut path, mut flags) = (Vec::new(), chosen);
    while let Some((name, inner)) = flags.subcommand() {
        path.push(name);
        flags = inner;
    }
    let typed = flags.try_get_one::<String>("format").ok().flatten();
    let wanted = typed.map(String::as_str).or_else(|| env.setting("FORMAT")).unwrap_or_default();
    let Some(format) = Format::parse(wanted) else {
        return Err(Failure::Local(format!("Invalid output format: {wanted}")));
    };
    if format == Format::Raw && path != ["read"] {
        return Err(Failure::Local("This command does not support the -format=raw option.".to_owned()));
    }
    let run = &mut Run { env, tools, tree, flags, format };
    match path.as_slice() {
        ["read"] => data::read(run),
        ["write"] => data::write(run),
        ["patch"] => data::patch(run),
        ["list"] => data::list(run, "list"),
        ["scan"] => data::list(run, "scan"),
        ["delete"] => data::delete(run),
        ["unwrap"] => data::unwrap(run),
        ["path-help"] => data::path_help(run),
        ["login"] => login::login(run),
        ["status"] => status::status(run),
        ["secrets", command] => secrets::run(run, command),
        ["auth", command] => auth::run(run, command),
        ["policy", command] => policy::run(run, command),
        ["token", command] => token::run(run, command),
        ["kv", "metadata", command] => kv::run_metadata(run, command),
        ["kv", command] => kv::run(run, command),
        ["lease", command] => lease::run(run, command),
        ["audit", command] => audit::run(run, command),
        ["operator", "snapshot", command] | ["operator", "raft", "snapshot", command] => snapshot::run(run, command),
        ["operator", command] => operator::run(run, command),
        ["module", command] => module::run(run, command),
        ["print", "token"] => misc::print_token(run),
        ["completion"] => misc::completion(run),
        ["version"] => misc::version(run),
        // The tree and this table are compared by a test.
        other => Err(Failure::Local(format!("`{}` is not a client command", other.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::quiet;
    use crate::tools::NoTools;

    /// Runs every leaf without words; whatever it says, it must be known.
    #[test]
    fn every_command_of_the_tree_can_be_run() {
        fn leaves(command: &Command, path: Vec<String>, found: &mut Vec<Vec<String>>) {
            for inner in command.get_subcommands() {
                let mut path = path.clone();
                path.push(inner.get_name().to_owned());
                if inner.has_subcommands() { leaves(inner, path, found) } else { found.push(path) }
            }
        }
        let tree = crate::command();
        let mut found = Vec::new();
        leaves(&tree, vec!["leasehold".to_owned()], &mut found);
        assert!(found.len() > 40);
        for path in found {
            let mut env = quiet(&[("VAULT_ADDR", "http://127.0.0.1:1"), ("VAULT_CLIENT_TIMEOUT", "1")]);
            let mut words = path.clone();
            words.push("--non-interactive".to_owned());
            let chosen = tree.clone().try_get_matches_from(words).unwrap();
            let said = run(&mut env, &NoTools, &tree, &chosen).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(!said.contains("not a client command"), "{path:?}: {said}");
        }
    }
}
