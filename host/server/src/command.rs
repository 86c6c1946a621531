//! The subcommand `server`: its flags, and what they start.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::{config, dev, run};

pub(crate) fn server() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let value = |name: &'static str, shown: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(shown).help(help)
    };
    Command::new("server")
        .about("Starts a server")
        .arg(
            value("config", "PATH", "Configuration: a file (HCL or JSON), or a folder of them; may be given several times")
                .action(ArgAction::Append)
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(flag("dev", "Development server: in memory, one key share, unsealed, root token printed; what -config says is added"))
        .arg(flag("check", "With -config: say what is wrong with the files and what they name, and start, write and remove nothing"))
        .arg(flag(
            "accept-changed-storage",
            "Unseal although rows under sys/ were changed outside the server; what is there counts from then on",
        ))
        .arg(value("dev-root-token-id", "TOKEN", "Root token of the development server [VAULT_DEV_ROOT_TOKEN_ID]"))
        .arg(value("dev-listen-address", "ADDRESS", "Address of the development server [VAULT_DEV_LISTEN_ADDRESS; default 127.0.0.1:8200]"))
        .arg(flag("dev-no-store-token", "Do not write the root token to ~/.vault-token"))
        .arg(flag("dev-postgres", "Start a private PostgreSQL, with a connection `postgresql` and a role `readonly` ready to read"))
        .arg(value("log-level", "LEVEL", "trace, debug, info, warn or error [VAULT_LOG_LEVEL]"))
        .arg(value("log-format", "FORMAT", "standard or json [VAULT_LOG_FORMAT]"))
        .after_help(
            "Examples:\n  $ leasehold server -dev -dev-root-token-id=root\n  $ leasehold server -dev -dev-postgres\n  $ leasehold server -config=/etc/leasehold.hcl\n  $ leasehold server -config=/etc/leasehold.hcl -check",
        )
}

pub(crate) fn run(arguments: &ArgMatches) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &ArgMatches) -> Result<(), String> {
    let text = |name: &str| arguments.get_one::<String>(name).cloned();
    let level = text("log-level")
        .map(|text| {
            config::LogLevel::parse(&text)
                .ok_or(format!("unknown log level `{text}`: trace, debug, info, warn or error"))
        })
        .transpose()?;
    let format = text("log-format")
        .map(|text| config::LogFormat::parse(&text).ok_or(format!("unknown log format `{text}`: standard or json")))
        .transpose()?;
    let files: Vec<PathBuf> = arguments.get_many::<PathBuf>("config").into_iter().flatten().cloned().collect();
    let mode = match (arguments.get_flag("dev"), files.is_empty()) {
        (true, _) => run::ServerMode::Dev(dev::Options {
            root_token: set(text("dev-root-token-id"), "DEV_ROOT_TOKEN_ID"),
            address: set(text("dev-listen-address"), "DEV_LISTEN_ADDRESS")
                .unwrap_or_else(|| config::defaults::LISTEN_ADDRESS.to_owned()),
            store_token: !arguments.get_flag("dev-no-store-token"),
            postgresql: arguments.get_flag("dev-postgres"),
            files,
        }),
        (false, false) => run::ServerMode::Configured(files),
        (false, true) => {
            return Err(
                "say -config=PATH, or -dev for a development server; `leasehold server -help` has examples".to_owned()
            );
        }
    };
    let flags = run::LogFlags { level, format };
    match (&mode, arguments.get_flag("check")) {
        (run::ServerMode::Configured(files), true) => run::check(files),
        (run::ServerMode::Dev(_), true) => Err("-check goes with -config, and not with -dev".to_owned()),
        (_, false) => run::run(&mode, flags, arguments.get_flag("accept-changed-storage")),
    }
}

fn set(flag: Option<String>, variable: &str) -> Option<String> {
    let of = |prefix: &str| std::env::var(format!("{prefix}{variable}")).ok().filter(|text| !text.is_empty());
    flag_or(flag, config::environment::PREFIXES.into_iter().find_map(of))
}

/// The flag wins; an empty one asks for the default, as a script's unset variable does.
fn flag_or(flag: Option<String>, variable: Option<String>) -> Option<String> {
    flag.or(variable).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_flag_asks_for_the_default() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(flag_or(some(""), some("x")), None);
        assert_eq!(flag_or(None, some("")), None);
        assert_eq!(flag_or(some("a"), some("x")), some("a"));
        assert_eq!(flag_or(None, some("x")), some("x"));
    }
}
