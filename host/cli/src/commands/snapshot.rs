//! `operator snapshot save|restore`, also as `operator raft snapshot`. Reading a file (`inspect`) needs no server, and is not here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use clap::Command;
use serde_json::json;

use super::run::Run;
use crate::client::{ApiRequest, ClientError};
use crate::declare::{group, leaf, switch};
use crate::failure::Failure;
use crate::print::{self, Format};

/// Examples say each under its own name.
pub(super) fn tree(is_raft: bool) -> Command {
    let (save, restore) = if is_raft {
        (
            "  $ leasehold operator raft snapshot save backup.snap",
            "  $ leasehold operator raft snapshot restore backup.snap",
        )
    } else {
        (
            "  $ leasehold operator snapshot save backup.snap\n  $ leasehold operator snapshot save - > backup.snap",
            "  $ leasehold operator snapshot restore backup.snap\n  $ leasehold operator snapshot restore -force backup.snap",
        )
    };
    group("snapshot", "Back up everything that is stored in one file, and restore it").subcommands([
        leaf("save", "Write all that is stored, sealed as it is, to a file or to standard output (-)", "FILE", save),
        leaf(
            "restore",
            "Replace all that is stored; the server seals, and the snapshot's keys unseal it",
            "FILE",
            restore,
        )
        .arg(switch("force", "Also a snapshot of another installation; then only its digests are compared")),
    ])
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "save" => save(run),
        _ => restore(run),
    }
}

fn local(file: &str, error: &io::Error) -> Failure {
    Failure::Local(format!("{file}: {error}"))
}

fn save(run: &mut Run) -> Result<(), Failure> {
    let [file] = run.exactly()?;
    let client = run.client()?;
    let call = ApiRequest::get("sys/storage/raft/snapshot");
    let failed = |error: ClientError| Failure::while_doing("Error taking the snapshot", error);
    if file == "-" {
        client.download(&call, &mut run.env.stdout).map_err(failed)?;
        return Ok(());
    }
    // Beside its place first: a backup that is there already stays until the new one is whole.
    let beside = format!("{file}.part");
    let mut options = OpenOptions::new();
    let mut part = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(|error| local(&beside, &error))?;
    let written = client.download(&call, &mut part).map_err(failed).and_then(|bytes| {
        part.flush()
            .and_then(|()| part.sync_all())
            .and_then(|()| fs::rename(&beside, &file))
            .map_err(|error| local(&file, &error))?;
        Ok(bytes)
    });
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(failure) => {
            let _ = fs::remove_file(&beside);
            return Err(failure);
        }
    };
    if run.format != Format::Table {
        return print::document(run.env, run.format, &json!({ "file": file, "bytes": bytes }));
    }
    Ok(run.env.say(&format!("Success! Saved a snapshot of {bytes} bytes to: {file}"))?)
}

fn restore(run: &mut Run) -> Result<(), Failure> {
    let [file] = run.exactly()?;
    if !Path::new(&file).is_file() {
        return Err(Failure::Local(format!("{file} is not a file")));
    }
    let snapshot = File::open(&file).map_err(|error| local(&file, &error))?;
    let client = run.client()?;
    let path = if run.switch("force") { "sys/storage/raft/snapshot-force" } else { "sys/storage/raft/snapshot" };
    client
        .upload(&ApiRequest::post(path).file(), &snapshot)
        .map_err(|error| Failure::while_doing("Error installing the snapshot", error))?;
    Ok(run
        .env
        .say("Success! Restored the snapshot. The server is sealed now: unseal it with the keys of the snapshot.")?)
}
