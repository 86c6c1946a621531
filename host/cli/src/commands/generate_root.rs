//! `operator generate-root`: a new root token, from enough key shares.
//!
//! With a token it asks OpenBao's routes. Without one it asks the older routes, which some listeners open to everybody: whoever has lost
//! every token still has shares.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use clap::Command;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::login;
use super::run::Run;
use crate::client::{ApiRequest, Client};
use crate::data::read_bounded;
use crate::declare::{leaf, switch, value};
use crate::failure::Failure;
use crate::print::{self, Format, wrapped};

/// Of a server that does not say it.
const OTP_LEN: u64 = 26;
/// No longer password is made, whatever a server says.
const OTP_LEN_MAX: u64 = 1_024;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

pub(super) fn tree() -> Command {
    leaf(
        "generate-root",
        "Make a root token with enough shares of the key, for whoever has lost theirs",
        "[KEY]",
        "  $ leasehold operator generate-root -init\n  $ leasehold operator generate-root\n  $ leasehold operator generate-root -nonce=NONCE - < share.txt\n  $ leasehold operator generate-root -decode=QVgVPjgqSAswHDF4Oh8cHxciEDk5PBR+Diw \\\n      -otp=2vPFYG8gUSW9npwzyvxXMug0aB",
    )
    .arg(switch("init", "Begin an attempt; only if none is in progress"))
    .arg(switch("cancel", "End the attempt, and forget which shares were given"))
    .arg(switch("status", "Show how far the attempt is, and give no share"))
    .arg(switch("generate-otp", "Make a one-time password for -init, and do nothing else"))
    .arg(value("otp", "OTP", "The one-time password, with -init or -decode; -init without it makes one"))
    .arg(value("decode", "TOKEN", "The encoded token, to be decoded with -otp; - reads it from standard input"))
    .arg(value("nonce", "NONCE", "The nonce of the attempt; needed where the share is not asked for"))
    .arg(value("pgp-key", "FILE", "Not supported: the server refuses it"))
}

pub(super) fn run(run: &mut Run) -> Result<(), Failure> {
    let words = run.words();
    if words.len() > 1 {
        return Err(Failure::Local(format!("Too many arguments (expected 0-1, got {})", words.len())));
    }
    let client = run.client()?;
    let text = |flag: &str| run.text(flag).filter(|text| !text.is_empty()).map(str::to_owned);
    if run.switch("generate-otp") {
        return generate_otp(run, &client);
    }
    if let Some(encoded) = text("decode") {
        return decode(run, &client, encoded);
    }
    if run.switch("cancel") {
        client
            .send(&ApiRequest::delete(route(&client, "attempt")))
            .map_err(|error| Failure::while_doing("Error canceling root token generation", error))?;
        return Ok(run.env.say("Success! Root token generation canceled (if it was started)")?);
    }
    if run.switch("init") {
        let (otp, pgp_key) = (text("otp"), text("pgp-key"));
        if otp.is_some() && pgp_key.is_some() {
            return Err(Failure::Local("Error initializing: cannot specify both -otp and -pgp-key".to_owned()));
        }
        let body = json!({ "otp": otp.unwrap_or_default(), "pgp_key": pgp_key.unwrap_or_default() });
        let begun = asked(&client, &ApiRequest::put(route(&client, "attempt")).json(body));
        let status = begun.map_err(|error| Failure::while_doing("Error initializing root generation", error))?;
        return show(run, &status);
    }
    let status = status(&client)?;
    if run.switch("status") {
        return show(run, &status);
    }
    give(run, &client, &status, words.first().map_or("", |word| word.trim()))
}

/// With a token the route that needs one, without one the route that may be open.
fn route(client: &Client, step: &str) -> String {
    let base = if client.token().is_some() { "generate-root-token" } else { "generate-root" };
    format!("sys/{base}/{step}")
}

/// The answer, whether or not it stands in an envelope.
fn asked(client: &Client, request: &ApiRequest) -> Result<Value, crate::client::ClientError> {
    let answer = client.send(request)?.json()?;
    Ok(match answer.get("data") {
        Some(data) if data.is_object() => data.clone(),
        _ => answer,
    })
}

fn status(client: &Client) -> Result<Value, Failure> {
    asked(client, &ApiRequest::get(route(client, "attempt")))
        .map_err(|error| Failure::while_doing("Error getting root generation status", error))
}

fn give(run: &mut Run, client: &Client, status: &Value, typed: &str) -> Result<(), Failure> {
    if status["started"] != true {
        let why = wrapped(
            "No root generation is in progress. Start a root generation by running \"leasehold operator generate-root -init\".",
        );
        let hint = wrapped(&format!(
            "If starting root generation using the OTP method and generating your own OTP, the length of the OTP string needs to be {} \
             characters in length.",
            otp_len(status)
        ));
        return Err(Failure::Local(format!("{why}\n{hint}")));
    }
    let nonce = print::plain(&status["nonce"]);
    let (share, nonce) =
        share(run, typed, &nonce, &format!("Operation nonce: {nonce}\nUnseal Key (will be hidden): "))?;
    let body = json!({ "key": share.expose_secret(), "nonce": nonce });
    let status = asked(client, &ApiRequest::put(route(client, "update")).json(body))
        .map_err(|error| Failure::while_doing("Error posting unseal key", error))?;
    show(run, &status)
}

/// A share and the nonce of what it is for: typed or piped with `-nonce`, or asked for, when the nonce is the server's.
pub(super) fn share(
    run: &mut Run,
    typed: &str,
    current: &str,
    question: &str,
) -> Result<(SecretString, String), Failure> {
    if typed.is_empty() {
        if run.no_stdin() {
            return Err(Failure::Local(wrapped(
                "Refusing to read from stdin with -non-interactive specified; specify nonce via the -nonce flag",
            )));
        }
        return Ok((login::ask(run, question, "-")?, current.to_owned()));
    }
    let share = if typed == "-" {
        let read = if run.no_stdin() { Ok(Vec::new()) } else { read_bounded(&mut run.env.stdin) };
        let read = read.map_err(|error| Failure::Local(format!("Failed to read from stdin: {error}")))?;
        SecretString::from(String::from_utf8_lossy(&read).trim())
    } else {
        SecretString::from(typed)
    };
    match run.text("nonce").filter(|nonce| !nonce.is_empty()) {
        Some(nonce) => Ok((share, nonce.to_owned())),
        None => Err(Failure::Local("Missing nonce value: specify it via the -nonce flag".to_owned())),
    }
}

fn otp_len(status: &Value) -> u64 {
    status["otp_length"].as_u64().filter(|len| *len > 0).unwrap_or(OTP_LEN)
}

fn generate_otp(run: &mut Run, client: &Client) -> Result<(), Failure> {
    let len = otp_len(&status(client)?).min(OTP_LEN_MAX);
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let mut otp = String::new();
    while (otp.len() as u64) < len {
        let mut bytes = [0; 64];
        random
            .fill(&mut bytes)
            .map_err(|_| Failure::Local("there is no randomness to make a password of".to_owned()))?;
        // 248 = 4 × 62: larger bytes would favour the first characters.
        for byte in bytes.into_iter().filter(|byte| *byte < 248) {
            if let Some(&c) = BASE62.get(usize::from(byte % 62)).filter(|_| (otp.len() as u64) < len) {
                otp.push(char::from(c));
            }
        }
    }
    let length = otp.len();
    show_raw(run, "otp", otp, Some(("otp_length", length)))
}

fn decode(run: &mut Run, client: &Client, encoded: String) -> Result<(), Failure> {
    let Some(otp) = run.text("otp").filter(|otp| !otp.is_empty()).map(str::to_owned) else {
        return Err(Failure::Local("Missing otp: use -otp to supply it".to_owned()));
    };
    let encoded = match encoded.as_str() {
        "-" => {
            let read = if run.no_stdin() { Ok(Vec::new()) } else { read_bounded(&mut run.env.stdin) };
            let read = read.map_err(|error| Failure::Local(format!("Failed to read from stdin: {error}")))?;
            String::from_utf8_lossy(&read).trim().to_owned()
        }
        _ => encoded,
    };
    if encoded.is_empty() {
        return Err(Failure::Local(
            "Missing encoded value. When using -decode=\"-\" value must be passed via stdin.".to_owned(),
        ));
    }
    // As in Vault: it says how long a password is, and whether this is a server at all.
    status(client)?;
    let failed = |why: String| Failure::Local(format!("Error decoding root token: {why}"));
    let bytes = STANDARD_NO_PAD.decode(encoded.trim_end_matches('='));
    let bytes = bytes.map_err(|_| failed("error decoding base64'd token: it is not in base64".to_owned()))?;
    if bytes.len() != otp.len() {
        return Err(failed(format!(
            "error xoring token: length of byte slices is not equivalent: {} != {}",
            bytes.len(),
            otp.len()
        )));
    }
    let token = bytes.iter().zip(otp.bytes()).map(|(encoded, otp)| encoded ^ otp).collect();
    let token = String::from_utf8(token).map_err(|_| failed("the password is not the one of this token".to_owned()))?;
    show_raw(run, "token", token, None)
}

/// One value: alone as a table, for scripts; a newline only for people.
fn show_raw(run: &mut Run, name: &str, value: String, also: Option<(&str, usize)>) -> Result<(), Failure> {
    if run.format == Format::Table {
        return print::raw_field(run.env, run.format, &value.into());
    }
    let mut shown = json!({ name: value });
    if let (Some((name, number)), Some(shown)) = (also, shown.as_object_mut()) {
        shown.insert(name.to_owned(), number.into());
    }
    print::document(run.env, run.format, &shown)
}

fn show(run: &mut Run, status: &Value) -> Result<(), Failure> {
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| status[key].as_u64().unwrap_or_default();
    let is = |key: &str| status[key] == true;
    if run.format != Format::Table {
        let shown = json!({
            "nonce": text("nonce"),
            "started": is("started"),
            "progress": number("progress"),
            "required": number("required"),
            "complete": is("complete"),
            "encoded_token": text("encoded_token"),
            "encoded_root_token": text("encoded_root_token"),
            "pgp_fingerprint": text("pgp_fingerprint"),
            "otp": text("otp"),
            "otp_length": number("otp_length"),
        });
        return print::document(run.env, run.format, &shown);
    }
    let mut rows = vec![
        ("Nonce", text("nonce")),
        ("Started", is("started").to_string()),
        ("Progress", format!("{}/{}", number("progress"), number("required"))),
        ("Complete", is("complete").to_string()),
    ];
    for (name, key) in [("PGP Fingerprint", "pgp_fingerprint"), ("Encoded Token", "encoded_token"), ("OTP", "otp")] {
        if !text(key).is_empty() {
            rows.push((name, text(key)));
        }
    }
    if !text("otp").is_empty() {
        run.env.warn(&wrapped(
            "A One-Time-Password has been generated for you and is shown in the OTP field. You will need this value to decode the \
             resulting root token, so keep it safe.",
        ));
    }
    if number("otp_length") != 0 {
        rows.push(("OTP Length", number("otp_length").to_string()));
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    Ok(run.env.say(&print::columns(&rows))?)
}
