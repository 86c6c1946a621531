//! `operator init|unseal|seal|members|rotate|key-status|step-down`. [`generate_root`] and [`rekey`] stand beside it; what works on files and stores beneath it is the server's own.

use clap::Command;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::run::Run;
use super::{generate_root, login, rekey, snapshot, status};
use crate::client::{ApiRequest, Client};
use crate::data::read_bounded;
use crate::declare::{group, leaf, switch, value, values};
use crate::failure::Failure;
use crate::print::{self, Format, wrapped};

pub(super) fn tree() -> Command {
    group("operator", "What the people who run the server do").subcommands([
        leaf(
            "init",
            "Initialise a new server: make its keys and its first token",
            "",
            "  $ leasehold operator init -key-shares=5 -key-threshold=3\n  $ leasehold operator init -status",
        )
        .arg(value("key-shares", "NUMBER", "How many shares the key is split into (default 5)").alias("n"))
        .arg(value("key-threshold", "NUMBER", "How many shares open the seal (default 3)").alias("t"))
        .arg(values("pgp-keys", "KEY", "PGP key to encrypt a share with; may be repeated"))
        .arg(value("recovery-shares", "NUMBER", "With auto-unseal: shares of the recovery key (default 5; 0: no recovery key)"))
        .arg(value("recovery-threshold", "NUMBER", "With auto-unseal: how many of them it takes (default 3)"))
        .arg(values("recovery-pgp-keys", "KEY", "PGP key to encrypt a recovery share with; may be repeated"))
        .arg(value("root-token-pgp-key", "KEY", "PGP key to encrypt the first token with"))
        .arg(switch("status", "Only say whether it is initialised: exit status 0 yes, 2 no")),
        leaf(
            "unseal",
            "Give one share of the key, be asked for it, or - for standard input",
            "[KEY]",
            "  $ leasehold operator unseal\n  $ leasehold operator unseal - < share.txt\n  $ leasehold operator unseal -reset",
        )
        .arg(switch("reset", "Forget the shares that were given so far"))
        .arg(switch("migrate", "The share is for moving to another seal")),
        leaf(
            "seal",
            "Seal the server: it forgets its keys and answers nothing any more",
            "",
            "  $ leasehold operator seal",
        ),
        leaf(
            "members",
            "Show the servers over this storage",
            "",
            "  $ leasehold operator members\n  $ leasehold operator members -seal",
        )
        .arg(switch("seal", "Seal each of them, asked for at its API address")),
        leaf(
            "rotate",
            "Make a new data key; older ones still open what they closed",
            "",
            "  $ leasehold operator rotate",
        ),
        leaf("key-status", "Show the data key in use", "", "  $ leasehold operator key-status"),
        generate_root::tree(),
        leaf("step-down", "Let another node lead", "", "  $ leasehold operator step-down"),
        snapshot::tree(false),
        group("raft", "The names under which Vault has snapshots").subcommand(snapshot::tree(true)),
    ])
    .subcommands(rekey::trees())
}

const KEY_SHARES: i64 = 5;
const KEY_THRESHOLD: i64 = 3;

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    match command {
        "init" => init(run),
        "unseal" => unseal(run),
        "seal" => tell(run, "sys/seal", "Error sealing", |_| "Success! Vault is sealed.".to_owned()),
        "members" => members(run),
        "rotate" => rotate(run),
        "key-status" => key_status(run),
        "generate-root" => generate_root::run(run),
        "rekey" | "rotate-keys" => rekey::run(run, command),
        _ => tell(run, "sys/step-down", "Error stepping down", |client| {
            format!("Success! Stepped down: {}", client.address())
        }),
    }
}

fn tell(run: &mut Run, path: &str, failed: &str, done: impl Fn(&Client) -> String) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    client.send(&ApiRequest::put(path)).map_err(|error| Failure::while_doing(failed, error))?;
    Ok(run.env.say(&done(&client))?)
}

fn init(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let mut client = run.client()?;
    // Which defaults hold depends on the kind of seal, so this question is asked even for a curl line.
    let instead = client.set_dry_run(None);
    let seal = client
        .send(&ApiRequest::get("sys/seal-status"))
        .and_then(|answer| answer.json())
        .map_err(|error| Failure::while_doing("Error asking for the seal's status", error))?;
    client.set_dry_run(instead);
    if run.switch("status") {
        return init_status(run, &client);
    }
    let recovery = seal["recovery_seal"].as_bool().unwrap_or(false);
    // Flags that do not go with this seal are sent as they are: the server says so.
    let of = |flag: &str, default: i64, belongs: bool| -> Result<i64, Failure> {
        Ok(run.number(flag)?.unwrap_or(if belongs { default } else { 0 }))
    };
    let unless_zero = |given: i64, default: i64| if given == 0 && !recovery { default } else { given };
    let shares = unless_zero(of("key-shares", KEY_SHARES, !recovery)?, KEY_SHARES);
    let threshold = unless_zero(of("key-threshold", KEY_THRESHOLD, !recovery)?, KEY_THRESHOLD);
    let recovery_shares = of("recovery-shares", KEY_SHARES, recovery)?;
    // Nobody has to say twice that there is to be no recovery key.
    let default = if recovery_shares == 0 { 0 } else { KEY_THRESHOLD };
    let recovery_threshold = of("recovery-threshold", default, recovery)?;
    let (pgp_keys, recovery_pgp_keys) = (run.texts("pgp-keys"), run.texts("recovery-pgp-keys"));
    let body = json!({
        "secret_shares": shares,
        "secret_threshold": threshold,
        "pgp_keys": (!pgp_keys.is_empty()).then_some(pgp_keys),
        "recovery_shares": recovery_shares,
        "recovery_threshold": recovery_threshold,
        "recovery_pgp_keys": (!recovery_pgp_keys.is_empty()).then_some(recovery_pgp_keys),
        "root_token_pgp_key": run.text("root-token-pgp-key").unwrap_or_default(),
    });
    let answer = client
        .send(&ApiRequest::put("sys/init").json(body))
        .and_then(|answer| answer.json())
        .map_err(|error| Failure::while_doing("Error initializing", error))?;
    if run.format != Format::Table {
        return print::document(
            run.env,
            run.format,
            &for_machines(&answer, (shares, threshold), (recovery_shares, recovery_threshold)),
        );
    }
    for (name, list) in [("Unseal Key", "keys"), ("Recovery Key", "recovery_keys")] {
        for (at, key) in best_form(&answer, list).iter().enumerate() {
            run.env.say(&format!("{name} {}: {}", at + 1, print::plain(key)))?;
        }
    }
    run.env.say(&format!("\nInitial Root Token: {}", print::plain(&answer["root_token"])))?;
    if list_of(&answer, "keys").is_empty() {
        run.env.say("\nSuccess! Vault is initialized")?;
        if !list_of(&answer, "recovery_keys").is_empty() {
            let paragraph = format!(
                "Recovery key initialized with {recovery_shares} key shares and a key threshold of {recovery_threshold}. \
                 Please securely distribute the key shares printed above."
            );
            run.env.say(&format!("\n{}", wrapped(&paragraph)))?;
        }
        return Ok(());
    }
    let paragraphs = [
        format!(
            "Vault initialized with {shares} key shares and a key threshold of {threshold}. Please securely distribute the key shares printed above. When the Vault is re-sealed, restarted, or stopped, you must supply at least {threshold} of these keys to unseal it before it can start servicing requests."
        ),
        format!(
            "Vault does not store the generated root key. Without at least {threshold} keys to reconstruct the root key, Vault will remain permanently sealed!"
        ),
    ];
    for paragraph in paragraphs {
        run.env.say(&format!("\n{}", wrapped(&paragraph)))?;
    }
    Ok(())
}

fn list_of(answer: &Value, key: &str) -> Vec<Value> {
    answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The keys in base64 where the server gives that, else in hexadecimal.
fn best_form(answer: &Value, list: &str) -> Vec<Value> {
    let (hex, base64) = (list_of(answer, list), list_of(answer, &format!("{list}_base64")));
    if hex.len() == base64.len() { base64 } else { hex }
}

fn for_machines(answer: &Value, (shares, threshold): (i64, i64), recovery: (i64, i64)) -> Value {
    let keys = list_of(answer, "keys");
    let (shares, threshold) = if keys.is_empty() { (1, 1) } else { (shares, threshold) };
    let or_null = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
    json!({
        "unseal_keys_b64": list_of(answer, "keys_base64"),
        "unseal_keys_hex": keys,
        "unseal_shares": shares,
        "unseal_threshold": threshold,
        "recovery_keys_b64": or_null(list_of(answer, "recovery_keys_base64")),
        "recovery_keys_hex": or_null(list_of(answer, "recovery_keys")),
        "recovery_keys_shares": recovery.0,
        "recovery_keys_threshold": recovery.1,
        "root_token": answer["root_token"],
    })
}

fn init_status(run: &mut Run, client: &Client) -> Result<(), Failure> {
    let answer = match client.send(&ApiRequest::get("sys/init")).and_then(|answer| answer.json()) {
        Ok(answer) => answer,
        // 2 means "not initialised" here.
        Err(error) => {
            return Err(match Failure::while_doing("Error checking init status", error) {
                Failure::Server(why) => Failure::Local(why),
                other => other,
            });
        }
    };
    let initialized = answer["initialized"].as_bool().unwrap_or(false);
    if run.format == Format::Table {
        run.env.say(if initialized { "Vault is initialized" } else { "Vault is not initialized" })?;
    } else {
        print::document(run.env, run.format, &json!({ "initialized": initialized }))?;
    }
    if initialized { Ok(()) } else { Err(Failure::Status(2)) }
}

fn unseal(run: &mut Run) -> Result<(), Failure> {
    let mut words = run.words();
    if words.len() > 1 {
        return Err(Failure::Local(format!("Too many arguments (expected 1, got {})", words.len())));
    }
    let client = run.client()?;
    let (body, failed) = if run.switch("reset") {
        (json!({ "reset": true }), "Error resetting unseal process")
    } else {
        let key = share(run, words.pop().unwrap_or_default().trim())?;
        (json!({ "key": key.expose_secret(), "reset": false, "migrate": run.switch("migrate") }), "Error unsealing")
    };
    let seal = client
        .send(&ApiRequest::put("sys/unseal").json(body))
        .and_then(|answer| answer.json())
        .map_err(|error| Failure::while_doing(failed, error))?;
    status::show(run, &client, &seal).map_err(|failure| match failure {
        Failure::Server(why) => Failure::Local(why),
        other => other,
    })
}

/// The share as it was typed, from standard input, or from whoever is asked.
fn share(run: &mut Run, typed: &str) -> Result<SecretString, Failure> {
    match typed {
        "" | "-" if run.no_stdin() => Err(Failure::Local(wrapped(
            "Refusing to read from stdin with -non-interactive specified; specify unseal key as an argument to this command",
        ))),
        "" => login::ask(run, "Unseal Key (will be hidden): ", "-"),
        "-" => {
            let read = read_bounded(&mut run.env.stdin)
                .map_err(|error| Failure::Local(format!("Error reading the unseal key: {error}")))?;
            Ok(SecretString::from(String::from_utf8_lossy(&read).trim()))
        }
        typed => Ok(SecretString::from(typed)),
    }
}

fn rotate(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    client
        .send(&ApiRequest::post("sys/rotate/keyring"))
        .map_err(|error| Failure::while_doing("Error rotating key", error))?;
    let answer = read_key_status(&client)?;
    if run.format == Format::Table {
        run.env.say("Success! Rotated key\n")?;
    }
    show_key_status(run, &answer)
}

fn members(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let answer = run
        .client()?
        .send(&ApiRequest::get("sys/ha-status"))
        .and_then(|answer| answer.json())
        .map_err(|error| Failure::while_doing("Error listing the servers", error))?;
    let nodes = list_of(&answer["data"], "nodes");
    if run.switch("seal") {
        return seal_all(run, &nodes);
    }
    if run.format != Format::Table {
        return print::document(run.env, run.format, &json!({ "Nodes": nodes }));
    }
    let row = |node: &Value| {
        let shown = |key: &str| node.get(key).filter(|value| !value.is_null()).map(print::plain);
        let columns = ["hostname", "api_address", "cluster_address", "active_node", "version"];
        let mut row: Vec<String> = columns.iter().map(|key| shown(key).unwrap_or_default()).collect();
        row.push(node["last_echo"].as_str().map_or_else(|| "n/a".to_owned(), short_time));
        row
    };
    let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
    let head = ["Host Name", "API Address", "Cluster Address", "Active Node", "Version", "Last Echo"];
    Ok(run.env.say(&print::table(&head, &rows))?)
}

/// Each server seals itself only. All are tried, and the first one that could not be sealed is told.
fn seal_all(run: &mut Run, nodes: &[Value]) -> Result<(), Failure> {
    let mut failed = None;
    for node in nodes.iter().filter(|node| node["active_node"] == true) {
        let (name, address) = (print::plain(&node["hostname"]), print::plain(&node["api_address"]));
        let sealed = run.client_of(&address).and_then(|client| {
            client
                .send(&ApiRequest::put("sys/seal"))
                .map_err(|error| Failure::while_doing(format!("Error sealing {name} at {address}"), error))
        });
        match sealed {
            Ok(_) => run.env.say(&format!("Success! Sealed: {name} at {address}"))?,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn key_status(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let client = run.client()?;
    let answer = read_key_status(&client)?;
    show_key_status(run, &answer)
}

fn read_key_status(client: &Client) -> Result<Value, Failure> {
    client
        .send(&ApiRequest::get("sys/key-status"))
        .and_then(|answer| answer.data())
        .map_err(|error| Failure::while_doing("Error reading key status", error))
}

fn show_key_status(run: &mut Run, answer: &Value) -> Result<(), Failure> {
    let (term, installed, encryptions) =
        (&answer["term"], answer["install_time"].as_str().unwrap_or_default(), &answer["encryptions"]);
    if run.format != Format::Table {
        return print::document(
            run.env,
            run.format,
            &json!({ "term": term, "install_time": installed, "encryptions": encryptions }),
        );
    }
    let rows = [
        ("Key Term", print::plain(term)),
        ("Install Time", short_time(installed)),
        ("Encryption Count", print::plain(encryptions)),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Ok(run.env.say(&print::columns(&rows))?)
}

/// `2026-11-23T09:07:48.2Z` as `23 Nov 26 09:07 UTC`; what is not UTC stays as it is.
fn short_time(text: &str) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts = || {
        text.strip_suffix('Z')?;
        let month: usize = text.get(5..7)?.parse().ok()?;
        Some(format!(
            "{} {} {} {} UTC",
            text.get(8..10)?,
            MONTHS.get(month.checked_sub(1)?)?,
            text.get(2..4)?,
            text.get(11..16)?
        ))
    };
    parts().unwrap_or_else(|| text.to_owned())
}
