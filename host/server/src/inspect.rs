//! `operator snapshot inspect`: what is in a snapshot's file, without a server and without keys.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command};
use leasehold_cli::OwnCommand;
use leasehold_storage::snapshot::{self, Contents, Prefix};
use serde_json::json;

/// Also under Vault's name.
pub(crate) fn own(is_raft: bool) -> OwnCommand<'static> {
    let above: &[&str] = if is_raft { &["operator", "raft", "snapshot"] } else { &["operator", "snapshot"] };
    OwnCommand::new(command(above), run).beneath(above)
}

fn command(above: &[&str]) -> Command {
    let words = above.join(" ");
    Command::new("inspect")
        .about("Show what is in a snapshot and whether it is whole, without a server")
        .override_usage(format!("leasehold {words} inspect [OPTIONS] FILE"))
        .arg(Arg::new("file").value_name("FILE").required(true).value_parser(clap::value_parser!(PathBuf)))
        .arg(
            Arg::new("details")
                .long("details")
                .help("Show what each part of the keys takes (default true)")
                .num_args(0..=1)
                .require_equals(true)
                .default_value("true")
                .default_missing_value("true")
                .value_name("BOOL")
                .hide_default_value(true)
                .value_parser(clap::value_parser!(bool)),
        )
        .arg(Arg::new("filter").long("filter").value_name("TEXT").help("Show only keys that begin so"))
        .arg(
            Arg::new("depth")
                .long("depth")
                .value_name("NUMBER")
                .help("How many parts of a key are told apart (default 2)")
                .value_parser(clap::value_parser!(u8).range(1..=8)),
        )
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .help("table or json (default table)")
                .value_parser(PossibleValuesParser::new(["table", "json"]))
                .hide_possible_values(true),
        )
        .after_help(format!("Examples:\n  $ leasehold {words} inspect backup.snap"))
}

fn run(arguments: &ArgMatches) -> ExitCode {
    let Some(file) = arguments.get_one::<PathBuf>("file") else { return ExitCode::FAILURE };
    let depth = arguments.get_one::<u8>("depth").copied().unwrap_or(2);
    match snapshot::inspect(file, usize::from(depth)) {
        Ok(contents) => {
            let shown = if arguments.get_one::<String>("format").is_some_and(|format| format == "json") {
                as_json(&contents)
            } else {
                as_table(&contents, arguments)
            };
            print!("{shown}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error inspecting the snapshot {}: {error}", shown(file));
            ExitCode::FAILURE
        }
    }
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}

/// Largest first, as Vault's.
fn sorted(contents: &Contents) -> Vec<(&String, &Prefix)> {
    let mut all: Vec<_> = contents.prefixes.iter().collect();
    all.sort_by(|a, b| b.1.bytes.cmp(&a.1.bytes).then(a.0.cmp(b.0)));
    all
}

fn as_json(contents: &Contents) -> String {
    let meta = &contents.meta;
    let prefixes: Vec<_> = sorted(contents)
        .into_iter()
        .map(|(name, prefix)| json!({ "Name": name, "Count": prefix.count, "Size": prefix.bytes }))
        .collect();
    let told = json!({
        "ID": meta.id,
        "Size": meta.size,
        "Index": meta.index,
        "Term": meta.term,
        "Version": meta.version,
        "Made": meta.own.made_at,
        "ClusterID": meta.own.cluster_id,
        "ClusterName": meta.own.cluster_name,
        "Server": meta.own.server,
        "Storage": meta.own.storage_type,
        "Values": meta.own.values,
        "Leases": meta.own.leases,
        "SHA256": hex::encode(contents.digest),
        "KVDetails": prefixes,
    });
    format!("{told:#}\n")
}

fn as_table(contents: &Contents, arguments: &ArgMatches) -> String {
    let meta = &contents.meta;
    let rows = [
        ("ID", meta.id.clone()),
        ("Size", meta.size.to_string()),
        ("Index", meta.index.to_string()),
        ("Term", meta.term.to_string()),
        ("Version", meta.version.to_string()),
        ("Made", meta.own.made_at.clone()),
        ("Cluster ID", meta.own.cluster_id.clone()),
        ("Cluster Name", meta.own.cluster_name.clone()),
        ("Storage", meta.own.storage_type.clone()),
        ("Values", meta.own.values.to_string()),
        ("Leases", meta.own.leases.to_string()),
        ("SHA-256", hex::encode(contents.digest)),
    ];
    let mut text = format!("{:<16}Value\n{:<16}-----\n", "Key", "---");
    for (key, value) in rows {
        text.push_str(&format!("{key:<16}{}\n", printable(&value)));
    }
    if !arguments.get_one::<bool>("details").copied().unwrap_or(true) {
        return text;
    }
    let filter = arguments.get_one::<String>("filter").map(String::as_str).unwrap_or_default();
    let prefixes: Vec<_> = sorted(contents).into_iter().filter(|(name, _)| name.starts_with(filter)).collect();
    let width = prefixes.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default().clamp(16, 80) + 4;
    text.push_str(&format!("\n{:<width$}{:<12}Size\n{:<width$}{:<12}----\n", "Key Name", "Count", "--------", "-----"));
    for (name, prefix) in &prefixes {
        text.push_str(&format!("{:<width$}{:<12}{}\n", printable(name), prefix.count, prefix.bytes));
    }
    let (count, bytes) =
        prefixes.iter().fold((0, 0), |(count, bytes), (_, one)| (count + one.count, bytes + one.bytes));
    text.push_str(&format!("{:<width$}{count:<12}{bytes}\n", "Total"));
    text
}

/// A file may come from anywhere; what is in it must not move the terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
