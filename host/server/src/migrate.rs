//! `operator migrate`, also as `operator storage migrate`: everything from one store into another, while no server uses either.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use leasehold_cli::OwnCommand;
use leasehold_model::counted;
use leasehold_storage::transfer::{self, Progress, Transferred};
use serde_json::json;
use tokio::time::Instant;

use crate::causes::with_causes;
use crate::config::environment::Overlay;
use crate::config::{ConnectionUrl, LogFormat, LogLevel, Migration, PostgresqlStore, Store, files};
use crate::log;
use crate::wiring::{self, Opened};

/// After so long a person wants to see that something happens.
const TOLD_EVERY: Duration = Duration::from_secs(2);

pub(crate) fn own() -> OwnCommand<'static> {
    OwnCommand::new(command("operator"), run).beneath(&["operator"])
}

pub(crate) fn own_of_storage() -> OwnCommand<'static> {
    let group = Command::new("storage")
        .about("What is done to a store while no server uses it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(command("operator storage"));
    let run_beneath =
        |arguments: &ArgMatches| arguments.subcommand().map_or(ExitCode::FAILURE, |(_, flags)| run(flags));
    OwnCommand::new(group, run_beneath).beneath(&["operator"])
}

fn command(above: &str) -> Command {
    let value = |name: &'static str, shown: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(shown).help(help)
    };
    Command::new("migrate")
        .about("Move everything from one storage to another; stop the server first")
        .override_usage(format!("leasehold {above} migrate [OPTIONS]"))
        .arg(
            value("config", "FILE", "Names `storage_source` and `storage_destination`")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(value("from", "STORAGE", "In place of -config: a file of SQLite, or a URL of PostgreSQL").requires("to"))
        .arg(value("to", "STORAGE", "The same, where to").requires("from"))
        .arg(
            Arg::new("reset")
                .long("reset")
                .help("Move nothing: empty a destination that an earlier try has left unfinished")
                .action(ArgAction::SetTrue),
        )
        .arg(value("start", "KEY", "Vault's flag for a part of a storage, which is refused: a part would be of no use"))
        .arg(value(
            "max-parallel",
            "NUMBER",
            "Vault's flag, which has no effect: groups of records go one after another",
        ))
        .arg(value("log-level", "LEVEL", "trace, debug, info, warn or error (default warn)"))
        .arg(
            value("format", "FORMAT", "table or json (default table)")
                .value_parser(PossibleValuesParser::new(["table", "json"]))
                .hide_possible_values(true),
        )
        .after_help(format!(
            "Both stores must be out of use. Nothing is unsealed, and the source stays as it is.\n\
             A migration that was killed is started again, and goes on where it was.\n\n\
             Examples:\n  $ leasehold {above} migrate -config=migrate.hcl\n  \
             $ leasehold {above} migrate -config=migrate.hcl -reset"
        ))
}

fn run(arguments: &ArgMatches) -> ExitCode {
    match start(arguments) {
        Ok(told) => {
            print!("{told}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("Error migrating: {why}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &ArgMatches) -> Result<String, String> {
    if arguments.contains_id("start") {
        return Err("-start is not supported: a server can use a storage only as a whole".to_owned());
    }
    let level = match arguments.get_one::<String>("log-level") {
        Some(text) => {
            LogLevel::parse(text).ok_or(format!("unknown log level `{text}`: trace, debug, info, warn or error"))?
        }
        None => LogLevel::Warn,
    };
    let migration = migration(arguments)?;
    log::start(level, LogFormat::Standard)?;
    for warning in &migration.warnings {
        eprintln!("warning: {warning}");
    }
    if migration.source == migration.destination {
        return Err("source and destination are the same storage".to_owned());
    }
    let is_json = arguments.get_one::<String>("format").is_some_and(|format| format == "json");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("could not start: {error}"))?;
    let done = if arguments.get_flag("reset") {
        runtime.block_on(reset(&migration))
    } else {
        runtime.block_on(moved(&migration, is_json))
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

fn migration(arguments: &ArgMatches) -> Result<Migration, String> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let environment = Overlay::of_this_process()?;
    let mut migration = match (arguments.get_one::<PathBuf>("config"), text("from"), text("to")) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            return Err("-config and -from or -to do not go together: the file names both ends".to_owned());
        }
        (Some(file), None, None) => files::migration(file)?,
        (None, Some(from), Some(to)) => {
            Migration { source: named(from)?, destination: named(to)?, warnings: Vec::new() }
        }
        _ => return Err("say -config=FILE, or -from and -to".to_owned()),
    };
    // The variable cannot say which of two it means, so it does not win over the file here.
    environment.fill_in(&mut migration.source);
    environment.fill_in(&mut migration.destination);
    Ok(migration)
}

/// A store by one word.
fn named(text: &str) -> Result<Store, String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(Store::Postgresql(PostgresqlStore {
            connection_url: Some(ConnectionUrl(text.to_owned())),
            table: None,
            max_parallel: None,
            max_idle_connections: None,
            skip_create_table: false,
            max_connect_retries: None,
        }));
    }
    let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")).unwrap_or(text);
    match path {
        "" => Err("-from and -to need a file or a URL".to_owned()),
        // A URL of something else would otherwise become the name of a file. It may hold a password.
        _ if path.contains("://") => Err("-from and -to take a file of SQLite or a postgres:// URL".to_owned()),
        path => Ok(Store::Sqlite(PathBuf::from(path))),
    }
}

async fn opened(store: &Store, what: &str) -> Result<Opened, String> {
    wiring::open(store, true).await.map_err(|error| format!("{what} ({}): {error}", store.shown()))
}

/// A source that is not there must not be made by looking for it.
async fn opened_source(store: &Store) -> Result<Opened, String> {
    let store = match store {
        Store::Sqlite(path) if !Path::exists(path) => {
            return Err(format!("source ({}): there is no such file", store.shown()));
        }
        Store::Postgresql(store) => Store::Postgresql(PostgresqlStore { skip_create_table: true, ..store.clone() }),
        other => other.clone(),
    };
    opened(&store, "source").await
}

async fn given_back(opened: Opened) {
    if let Some(postgresql) = opened.postgresql {
        postgresql.leave().await;
    }
}

async fn moved(migration: &Migration, is_json: bool) -> Result<String, String> {
    let (from, to) = (&migration.source, &migration.destination);
    let began = Instant::now();
    let source = opened_source(from).await?;
    let destination = match opened(to, "destination").await {
        Ok(destination) => destination,
        Err(error) => {
            given_back(source).await;
            return Err(error);
        }
    };
    let rows = source.store.count_leases().await.map_err(|error| with_causes(&error))?;
    let all_leases = rows.iter().map(|(_, _, count)| count).sum();
    let progress = Arc::new(Progress::default());
    let name = from.shown();
    let done = {
        let mut working = std::pin::pin!(transfer::transfer(&*source.store, &*destination.store, &name, &progress));
        loop {
            match tokio::time::timeout(TOLD_EVERY, &mut working).await {
                Ok(done) => break done,
                Err(_) => tell(&progress, all_leases),
            }
        }
    };
    given_back(source).await;
    given_back(destination).await;
    let done = done.map_err(|error| format!("{} to {}: {}", from.shown(), to.shown(), with_causes(&error)))?;
    Ok(report(&done, migration, began.elapsed(), is_json))
}

fn tell(progress: &Progress, all_leases: u64) {
    let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    match of(&progress.compared) {
        0 => eprintln!(
            "migrating: {}, {} of {}",
            counted(of(&progress.values), "value"),
            of(&progress.leases),
            counted(all_leases, "lease")
        ),
        compared => {
            eprintln!("comparing: {compared} of {} values and leases", of(&progress.values) + of(&progress.leases))
        }
    }
}

fn report(done: &Transferred, migration: &Migration, took: Duration, is_json: bool) -> String {
    let (from, to) = (migration.source.shown(), migration.destination.shown());
    if is_json {
        let told = json!({
            "source": from,
            "destination": to,
            "values": done.values,
            "leases": done.leases,
            "bytes": done.bytes,
            "sha256": done.digest,
            "found": done.found,
            "began_again": done.began_again,
            "seconds": took.as_secs_f64(),
        });
        return format!("{told:#}\n");
    }
    let again = match (done.began_again, done.found) {
        (true, _) => "An earlier try had not come to its end; this one began again.\n".to_owned(),
        (false, 0) => String::new(),
        (false, found) => {
            format!("An earlier try had written {found} of these values and leases; this one went on from there.\n")
        }
    };
    format!(
        "{again}Success! Moved {} and {} ({} bytes) from {from} to {to}.\n\
         Both hold the same: SHA-256 {}\n\
         Name the new storage in the server's configuration. Never start a server on the old one again: both would manage the same roles.\n",
        counted(done.values, "value"),
        counted(done.leases, "lease"),
        done.bytes,
        done.digest
    )
}

async fn reset(migration: &Migration) -> Result<String, String> {
    let destination = opened(&migration.destination, "destination").await?;
    let done = transfer::reset(&*destination.store).await;
    given_back(destination).await;
    let shown = migration.destination.shown();
    match done.map_err(|error| format!("destination ({shown}): {}", with_causes(&error)))? {
        true => Ok(format!("Success! Emptied the unfinished destination: {shown}\n")),
        false => Ok(format!(
            "Nothing to reset: {shown} is not unfinished, and no lock is left behind by a try that was killed\n"
        )),
    }
}
