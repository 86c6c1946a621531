//! `operator rekey` and `operator rotate-keys`: new key shares, from enough of the present ones. The two are one command under Vault's and
//! OpenBao's name, with the words of each.
//!
//! With a token it asks OpenBao's routes. Without one it asks the older routes, which some listeners open to everybody.

use clap::Command;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::generate_root::share;
use super::run::Run;
use crate::client::{ApiRequest, Client, ClientError};
use crate::declare::{leaf, switch, value, values};
use crate::failure::Failure;
use crate::print::{self, Format, wrapped};

const KEY_SHARES: i64 = 5;
const KEY_THRESHOLD: i64 = 3;

pub(super) fn trees() -> [Command; 2] {
    [
        tree(
            "rekey",
            "  $ leasehold operator rekey -init -key-shares=5 -key-threshold=3 -verify\n  $ leasehold operator rekey\n  $ leasehold operator rekey -verify\n  $ leasehold operator rekey -nonce=NONCE - < share.txt",
        ),
        tree(
            "rotate-keys",
            "  $ leasehold operator rotate-keys -init -key-shares=5 -key-threshold=3 -verify\n  $ leasehold operator rotate-keys\n  $ leasehold operator rotate-keys -verify\n  $ leasehold operator rotate-keys -nonce=NONCE - < share.txt",
        ),
    ]
}

fn tree(name: &'static str, examples: &'static str) -> Command {
    leaf(name, "Replace the key shares, with enough of the present ones", "[KEY]", examples)
        .arg(switch("init", "Begin an attempt; only if none is in progress"))
        .arg(switch("cancel", "End the attempt; with -verify, begin its verification anew"))
        .arg(switch("status", "Show how far the attempt is, or with -verify its verification"))
        .arg(switch(
            "verify",
            "With -init: the new shares count when they have been shown to be there. Else: it is about that",
        ))
        .arg(value("key-shares", "NUMBER", "How many new shares there are to be (default 5)").alias("n"))
        .arg(value("key-threshold", "NUMBER", "How many of them it will take (default 3)").alias("t"))
        .arg(value(
            "nonce",
            "NONCE",
            "The nonce of the attempt, or of its verification; needed where the share is not asked for",
        ))
        .arg(value("target", "WHAT", "`barrier`, the unseal keys (default), or `recovery`, the recovery keys"))
        .arg(values("pgp-keys", "KEY", "Not supported: the server refuses it"))
        .arg(switch("backup", "Not supported: the server refuses it without PGP keys"))
        .arg(switch("backup-retrieve", "Show a backup; there never is one"))
        .arg(switch("backup-delete", "Delete a backup; there never is one"))
}

/// The words of one of the two names.
struct Words {
    name: &'static str,
    /// `Error initializing …`.
    attempt: &'static str,
    /// `Error reading … status`.
    reading: &'static str,
    /// `Success! Canceled …`.
    cancelled: &'static str,
    /// `Start a …`.
    process: &'static str,
    verified: &'static str,
    done: &'static str,
    nonce: &'static str,
}

const REKEY: Words = Words {
    name: "rekey",
    attempt: "rekey",
    reading: "rekey",
    cancelled: "rekeying",
    process: "rekey process",
    verified: "Rekey verification successful. The rekey operation is complete and the new keys are now active.",
    done: "rekeyed",
    nonce: "Rekey operation nonce",
};
const ROTATE: Words = Words {
    name: "rotate-keys",
    attempt: "rotation",
    reading: "rotate",
    cancelled: "rotation",
    process: "rotation process",
    verified: "Rotation verification successful. The rotation is complete and the new keys are now active.",
    done: "rotated",
    nonce: "Rotation nonce",
};

/// What gets new shares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Barrier,
    Recovery,
}

impl Target {
    /// Which of the present shares it takes.
    fn share(self) -> &'static str {
        match self {
            Self::Barrier => "Unseal",
            Self::Recovery => "Recovery",
        }
    }
}

struct Asking<'a> {
    client: &'a Client,
    target: Target,
    words: &'static Words,
}

impl Asking<'_> {
    fn path(&self, step: &str) -> String {
        let base = match (self.client.token().is_some(), self.target) {
            (true, Target::Barrier) => "rotate/root",
            (true, Target::Recovery) => "rotate/recovery",
            (false, Target::Barrier) => "rekey",
            (false, Target::Recovery) => "rekey-recovery-key",
        };
        format!("sys/{base}/{step}")
    }

    /// The answer, whether or not it stands in an envelope.
    fn ask(&self, request: &ApiRequest) -> Result<Value, ClientError> {
        let answer = self.client.send(request)?.json()?;
        Ok(match answer.get("data") {
            Some(data) if data.is_object() => data.clone(),
            _ => answer,
        })
    }

    fn status(&self, verify: bool, doing: &str) -> Result<Value, Failure> {
        let step = if verify { "verify" } else { "init" };
        let failed = |error| Failure::while_doing(format!("Error {doing} {} status", self.words.reading), error);
        self.ask(&ApiRequest::get(self.path(step))).map_err(failed)
    }
}

pub(super) fn run(run: &mut Run, command: &str) -> Result<(), Failure> {
    let typed = run.words();
    if typed.len() > 1 {
        return Err(Failure::Local(format!("Too many arguments (expected 0-1, got {})", typed.len())));
    }
    let words = if command == REKEY.name { &REKEY } else { &ROTATE };
    let target = match run.text("target").unwrap_or("barrier").trim().to_lowercase().as_str() {
        "barrier" => Target::Barrier,
        "recovery" | "hsm" => Target::Recovery,
        other => return Err(Failure::Local(format!("Unknown target: {other}"))),
    };
    let client = run.client()?;
    let asking = Asking { client: &client, target, words };
    let verify = run.switch("verify");
    if run.switch("backup-delete") || run.switch("backup-retrieve") {
        return backup(run, &asking);
    }
    if run.switch("cancel") {
        let path = asking.path(if verify { "verify" } else { "init" });
        let failed = |error| Failure::while_doing(format!("Error canceling {}", words.attempt), error);
        client.send(&ApiRequest::delete(path)).map_err(failed)?;
        return Ok(run.env.say(&format!("Success! Canceled {} (if it was started)", words.cancelled))?);
    }
    if run.switch("init") {
        return init(run, &asking, verify);
    }
    if run.switch("status") {
        let status = asking.status(verify, "reading")?;
        return show(run, &status, verify);
    }
    give(run, &asking, verify, typed.first().map_or("", |word| word.trim()))
}

fn backup(run: &mut Run, asking: &Asking) -> Result<(), Failure> {
    let base = match asking.target {
        Target::Barrier => "sys/rotate/root/backup",
        Target::Recovery => "sys/rotate/recovery/backup",
    };
    let attempt = asking.words.attempt;
    if run.switch("backup-delete") {
        let failed = |error| Failure::while_doing(format!("Error deleting {attempt} backed up keys"), error);
        asking.client.send(&ApiRequest::delete(base)).map_err(failed)?;
        return Ok(run.env.say("Success! Deleted backed up keys (if they existed)")?);
    }
    let failed = |error| Failure::while_doing(format!("Error retrieving {attempt} backed up keys"), error);
    let backup = asking.ask(&ApiRequest::get(base)).map_err(failed)?;
    print::document(run.env, run.format, &backup)
}

fn init(run: &mut Run, asking: &Asking, verify: bool) -> Result<(), Failure> {
    let pgp_keys = run.texts("pgp-keys");
    let body = json!({
        "secret_shares": run.number("key-shares")?.unwrap_or(KEY_SHARES),
        "secret_threshold": run.number("key-threshold")?.unwrap_or(KEY_THRESHOLD),
        "pgp_keys": (!pgp_keys.is_empty()).then_some(pgp_keys),
        "backup": run.switch("backup"),
        "require_verification": verify,
    });
    let failed = |error| Failure::while_doing(format!("Error initializing {}", asking.words.attempt), error);
    let status = asking.ask(&ApiRequest::put(asking.path("init")).json(body)).map_err(failed)?;
    if status["complete"] == true {
        // There were no recovery shares that anybody could have given.
        return hand_out(run, asking, &status, &status.clone());
    }
    if run.format == Format::Table && !verify {
        let kind = asking.target.share().to_lowercase();
        run.env.warn(&wrapped(&format!(
            "WARNING! If you lose the keys after they are returned, there is no recovery. Consider canceling this operation and \
             re-initializing with the -verify flag: the present {kind} keys then stay valid until the new ones have been shown to be there."
        )));
        run.env.warn("");
    }
    show(run, &status, false)
}

fn give(run: &mut Run, asking: &Asking, verify: bool, typed: &str) -> Result<(), Failure> {
    let words = asking.words;
    let step = if verify { "verify" } else { "init" };
    let failed = |error| Failure::while_doing(format!("Error getting {} status", words.attempt), error);
    let status = asking.ask(&ApiRequest::get(asking.path(step))).map_err(failed)?;
    if status["started"] != true {
        return Err(Failure::Local(wrapped(&format!(
            "No {} is in progress. Start a {} by running \"leasehold operator {} -init\".",
            words.attempt, words.process, words.name
        ))));
    }
    let nonce = print::plain(&status["nonce"]);
    let question = format!("{}: {nonce}\n{} Key (will be hidden): ", words.nonce, asking.target.share());
    let (share, nonce) = share(run, typed, &nonce, &question)?;
    let body = json!({ "key": share.expose_secret(), "nonce": nonce });
    let step = if verify { "verify" } else { "update" };
    let answer = asking
        .ask(&ApiRequest::put(asking.path(step)).json(body))
        .map_err(|error| Failure::while_doing("Error posting unseal key", error))?;
    if answer["complete"] != true {
        let status = asking.status(verify, "reading")?;
        return show(run, &status, verify);
    }
    if verify {
        return Ok(run.env.say(&wrapped(words.verified))?);
    }
    hand_out(run, asking, &status, &answer)
}

/// The new shares, and what to do with them. `status` says how many there are.
fn hand_out(run: &mut Run, asking: &Asking, status: &Value, dealt: &Value) -> Result<(), Failure> {
    let list = |name: &str| dealt[name].as_array().cloned().unwrap_or_default();
    let text = |name: &str| dealt[name].as_str().unwrap_or_default().to_owned();
    let must_verify = dealt["verification_required"] == true;
    if run.format != Format::Table {
        let mut shown = json!({
            "nonce": text("nonce"),
            "complete": true,
            "keys": list("keys"),
            "keys_base64": list("keys_base64"),
            "pgp_fingerprints": null,
            "backup": false,
            "verification_required": must_verify,
        });
        if must_verify {
            shown["verification_nonce"] = text("verification_nonce").into();
        }
        return print::document(run.env, run.format, &shown);
    }
    run.env.say("")?;
    let (hex, base64) = (list("keys"), list("keys_base64"));
    if hex.is_empty() {
        run.env.say("")?;
        return Ok(run.env.say("Barrier root key rotated using recovery keys.")?);
    }
    for (at, key) in (if hex.len() == base64.len() { &base64 } else { &hex }).iter().enumerate() {
        run.env.say(&format!("Key {}: {}", at + 1, print::plain(key)))?;
    }
    if !text("nonce").is_empty() {
        run.env.say(&format!("\nOperation nonce: {}", text("nonce")))?;
    }
    let (n, t) = (print::plain(&status["n"]), print::plain(&status["t"]));
    let reopens = format!(
        "When Leasehold is re-sealed, restarted, or stopped, you must supply at least {t} of these keys to unseal it before it can start \
         servicing requests."
    );
    let distribute = "Please securely distribute the key shares printed above.";
    let done = asking.words.done;
    let paragraph = match (asking.target, must_verify) {
        (Target::Barrier, true) => format!(
            "Leasehold has created a new unseal key, split into {n} key shares and a key threshold of {t}. These will not be active until \
             after verification is complete. {distribute} {reopens}"
        ),
        (Target::Recovery, true) => format!(
            "Leasehold has created a new recovery key, split into {n} key shares and a key threshold of {t}. These will not be active until \
             after verification is complete. {distribute}"
        ),
        (Target::Barrier, false) => {
            format!("Leasehold unseal keys {done} to {n} key shares and a key threshold of {t}. {distribute} {reopens}")
        }
        (Target::Recovery, false) => {
            format!("Leasehold recovery keys {done} to {n} key shares and a key threshold of {t}. {distribute}")
        }
    };
    run.env.say(&format!("\n{}", wrapped(&paragraph)))?;
    if !must_verify {
        return Ok(());
    }
    let loses = if asking.target == Target::Barrier { "unseal" } else { "authenticate with" };
    run.env.say("")?;
    run.env.warn(&wrapped(&format!(
        "Again, these key shares are _not_ valid until verification is performed. Do not lose or discard your current key shares until after \
         verification is complete or you will be unable to {loses} Leasehold. If you cancel the {} the new shares will be discarded and the \
         current shares will remain valid.",
        asking.words.process
    )));
    run.env.say("")?;
    run.env.warn("The current verification status, including initial nonce, is shown below.");
    run.env.say("")?;
    let status = asking.status(true, "reading")?;
    show(run, &status, true)
}

fn show(run: &mut Run, status: &Value, verify: bool) -> Result<(), Failure> {
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    let is = |key: &str| status[key] == true;
    if run.format != Format::Table {
        let mut shown = json!({
            "nonce": text("nonce"),
            "started": is("started"),
            "t": number("t"),
            "n": number("n"),
            "progress": number("progress"),
        });
        if !verify {
            shown["required"] = number("required").into();
            shown["pgp_fingerprints"] = Value::Null;
            shown["backup"] = false.into();
            shown["verification_required"] = is("verification_required").into();
            shown["verification_nonce"] = text("verification_nonce").into();
        }
        return print::document(run.env, run.format, &shown);
    }
    let mut rows = Vec::new();
    if verify {
        rows.extend([
            ("Started", is("started").to_string()),
            ("New Shares", number("n").to_string()),
            ("New Threshold", number("t").to_string()),
            ("Verification Nonce", text("nonce")),
            ("Verification Progress", format!("{}/{}", number("progress"), number("t"))),
        ]);
    } else {
        rows.extend([("Nonce", text("nonce")), ("Started", is("started").to_string())]);
    }
    if !verify && is("started") {
        let progress = format!("{}/{}", number("progress"), number("required"));
        rows.push(("Progress", progress));
        for (name, key) in [("New Shares", "n"), ("New Threshold", "t")] {
            if number(key) > 0 {
                rows.push((name, number(key).to_string()));
            }
        }
        rows.push(("Verification Required", is("verification_required").to_string()));
        if !text("verification_nonce").is_empty() {
            rows.push(("Verification Nonce", text("verification_nonce")));
        }
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Ok(run.env.say(&print::table(&["Key", "Value"], &rows))?)
}
