//! What takes a quorum of key shares (contract.md §2.8): new root tokens. New shares are in [`super::rekey`], which talks to servers as
//! this chapter does.

use serde_json::{Value, json};

use crate::support::{Answer, Bao, Durable, Kind, Server};

pub(super) fn two_of_three() -> Durable {
    Durable { shares: 3, threshold: 2, ..Durable::default() }
}

/// Ours and, where there is one, a real OpenBao, each with three shares of which two are enough.
pub(super) fn servers(what: &str) -> Vec<Server> {
    let mut servers = vec![Server::durable(&two_of_three())];
    if let Some(bao) = Bao::find(what) {
        let server = Server::openbao_on(&bao, 2, "");
        server.init(3, 2);
        server.unseal();
        servers.push(server);
    }
    servers
}

/// A conversation with a server, in which shares and nonces have names, and what it said without what differs from run to run.
pub(super) struct Talk<'a> {
    pub(super) server: &'a Server,
    pub(super) shares: Vec<String>,
    pub(super) nonce: String,
    pub(super) said: Vec<String>,
}

impl<'a> Talk<'a> {
    pub(super) fn with(server: &'a Server) -> Self {
        Self { server, shares: server.shares(), nonce: String::new(), said: Vec::new() }
    }

    /// `$K0`, `$K1` and `$K2` in the body are shares, `NONCE` is the last nonce that was heard.
    pub(super) fn say(&mut self, method: &str, path: &str, body: Value) -> Answer {
        self.say_as(&self.server.root(), method, path, body)
    }

    pub(super) fn say_as(&mut self, client: &crate::support::Client, method: &str, path: &str, body: Value) -> Answer {
        let mut text = body.to_string().replace("NONCE", &self.nonce);
        for (at, share) in self.shares.iter().enumerate() {
            text = text.replace(&format!("$K{at}"), share);
        }
        let body: Value = serde_json::from_str(&text).unwrap();
        let answer = client.request(method, path, (!body.is_null()).then_some(body.clone()));
        let json = answer.json();
        let data = json.get("data").filter(|data| data.is_object()).unwrap_or(&json).clone();
        if let Some(nonce) = data["nonce"].as_str().filter(|nonce| !nonce.is_empty()) {
            nonce.clone_into(&mut self.nonce);
        }
        if let Some(nonce) = data["verification_nonce"].as_str().filter(|nonce| !nonce.is_empty()) {
            nonce.clone_into(&mut self.nonce);
        }
        if let Some(keys) = data["keys_base64"].as_array().filter(|keys| !keys.is_empty()) {
            self.shares = keys.iter().map(|key| key.as_str().unwrap().to_owned()).collect();
        }
        let shown = plain(match json.get("data") {
            Some(data) if data.is_object() => json!({ "data": data }),
            _ => json,
        });
        self.said.push(format!("{method} {path} {}: {} {shown}", plain(body), answer.status));
        answer
    }
}

/// Without what is random.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .map(|(key, value)| match (&*key, value) {
                ("otp" | "encoded_token" | "encoded_root_token" | "key", Value::String(text)) if text.len() > 12 => {
                    (key, format!("{} characters", text.len()).into())
                }
                ("keys" | "keys_base64", Value::Array(keys)) => {
                    let lens: Vec<usize> = keys.iter().map(|share| share.as_str().unwrap_or_default().len()).collect();
                    (key, json!(lens))
                }
                (_, value) => (key, plain(value)),
            })
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_iter()
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(values) => values.into_iter().map(plain).collect(),
        Value::String(text) => without_nonces(&text).into(),
        other => other,
    }
}

fn without_nonces(text: &str) -> String {
    let is_nonce = |part: &str| {
        part.len() == 36
            && part.char_indices().all(|(at, c)| match at {
                8 | 13 | 18 | 23 => c == '-',
                _ => c.is_ascii_hexdigit(),
            })
    };
    let mut shown = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match rest.get(..36) {
            Some(part) if is_nonce(part) => {
                shown.push_str("<nonce>");
                rest = &rest[36..];
            }
            _ => {
                shown.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    shown
}

/// All servers must have said the same.
pub(super) fn assert_alike(said: &[Vec<String>]) {
    for other in said.iter().skip(1) {
        for (ours, theirs) in said[0].iter().zip(other) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(said[0].len(), other.len());
    }
}

pub(super) fn wrong_share() -> String {
    "5a".repeat(33)
}

const ATTEMPT: &str = "sys/generate-root-token/attempt";
const UPDATE: &str = "sys/generate-root-token/update";
const OTP: &str = "abcdefghijklmnopqrstuvwxyz";

fn decoded(encoded: &str, otp: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(encoded).unwrap();
    String::from_utf8(bytes.iter().zip(otp.bytes()).map(|(encoded, otp)| encoded ^ otp).collect()).unwrap()
}

#[test]
fn root_generation_answers_as_openbaos() {
    let mut said = Vec::new();
    let servers = servers("root generation, against a real OpenBao");
    for server in &servers {
        let mut talk = Talk::with(server);
        talk.say("GET", ATTEMPT, Value::Null);
        talk.say("POST", ATTEMPT, json!({ "otp": "short" }));
        let begun = talk.say("POST", ATTEMPT, json!({}));
        let otp = begun.text("/data/otp");
        talk.say("GET", ATTEMPT, Value::Null);
        talk.say("PUT", ATTEMPT, json!({ "otp": OTP }));
        for body in [
            json!({}),
            json!({ "key": "$K0" }),
            json!({ "nonce": "x" }),
            json!({ "key": "$K0", "nonce": "x" }),
            json!({ "key": "zz", "nonce": "NONCE" }),
            json!({ "key": "00", "nonce": "NONCE" }),
            json!({ "key": "11".repeat(34), "nonce": "NONCE" }),
            json!({ "key": "$K0", "nonce": "NONCE" }),
            json!({ "key": "$K0", "nonce": "NONCE" }),
            json!({ "key": wrong_share(), "nonce": "NONCE" }),
        ] {
            talk.say("POST", UPDATE, body);
        }
        talk.say("GET", ATTEMPT, Value::Null).assert_at("/data/progress", 0);
        talk.say("POST", UPDATE, json!({ "key": "$K2", "nonce": "NONCE" }));
        let made = talk.say("POST", UPDATE, json!({ "key": "$K1", "nonce": "NONCE" }));
        let token = decoded(&made.text("/data/encoded_token"), &otp);
        server.secrets().tell(&token);
        let looked = server.as_token(&token).get("auth/token/lookup-self").assert_status(200);
        let looked = looked.assert_at("/data/policies", json!(["root"])).assert_at("/data/ttl", 0);
        looked.assert_at("/data/path", "auth/token/root").assert_at("/data/orphan", true);
        talk.say("GET", ATTEMPT, Value::Null);
        talk.say("POST", UPDATE, json!({ "key": "$K1", "nonce": "NONCE" }));
        talk.say("POST", ATTEMPT, json!({ "otp": OTP }));
        talk.say("DELETE", ATTEMPT, Value::Null);
        talk.say("DELETE", ATTEMPT, Value::Null);
        talk.say("GET", UPDATE, Value::Null);
        let decode = json!({ "encoded_token": made.text("/data/encoded_token"), "otp": otp });
        assert_eq!(server.nobody().put("sys/decode-token", decode).text("/data/token"), token);
        talk.say("PUT", "sys/decode-token", json!({ "encoded_token": "AAAA", "otp": "x" }));
        talk.say("PUT", "sys/decode-token", json!({}));
        // Nobody without a token, and no token without the right.
        talk.say_as(&server.nobody(), "GET", ATTEMPT, Value::Null);
        let weak = server.with_policy("weak", "path \"secret/x\" { capabilities = [\"read\"] }");
        talk.say_as(&weak, "PUT", UPDATE, json!({ "key": "$K0", "nonce": "x" }));
        said.push(talk.said);
    }
    assert_alike(&said);
}

/// By default, and where a listener lets them in. In Vault 2 they are there with a token; in OpenBao they are not.
#[test]
fn the_old_routes_of_root_generation_answer_as_openbaos() {
    let mut said = Vec::new();
    for mut talk in old_talks("generate_root", "the old routes of root generation, against a real OpenBao")
        .iter_mut()
        .map(|(server, open)| (Talk::with(server), open))
    {
        let (closed, open) = (talk.0.server.nobody(), &*talk.1);
        let talk = &mut talk.0;
        for method in ["GET", "PUT", "POST", "DELETE"] {
            talk.say_as(&closed, method, "sys/generate-root/attempt", Value::Null);
            talk.say_as(&closed, method, "sys/generate-root/update", Value::Null);
        }
        talk.say_as(&closed, "LIST", "sys/generate-root/attempt", Value::Null);
        talk.say_as(open, "GET", "sys/generate-root/attempt", Value::Null);
        let otp = talk.say_as(open, "PUT", "sys/generate-root/attempt", json!({})).text("/otp");
        talk.say_as(open, "PUT", "sys/generate-root/attempt", json!({}));
        for body in [
            json!({}),
            json!({ "key": "$K0" }),
            json!({ "key": "zz" }),
            json!({ "key": "00" }),
            json!({ "key": "$K0", "nonce": "NONCE" }),
            json!({ "key": "$K0", "nonce": "NONCE" }),
        ] {
            talk.say_as(open, "PUT", "sys/generate-root/update", body);
        }
        // A token that has ended keeps nobody away.
        let dead = open.with_token("s.000000000000000000000000");
        let made = talk.say_as(&dead, "PUT", "sys/generate-root/update", json!({ "key": "$K1", "nonce": "NONCE" }));
        let token = decoded(&made.text("/encoded_root_token"), &otp);
        talk.server.secrets().tell(&token);
        talk.server.as_token(&token).get("auth/token/lookup-self").assert_status(200);
        talk.say_as(open, "DELETE", "sys/generate-root/attempt", Value::Null);
        said.push(std::mem::take(&mut talk.said));
        if talk.server.kind() == Kind::Leasehold {
            // As in Vault 2.
            let root = talk.server.root();
            root.get("sys/generate-root/attempt").assert_status(200).assert_at("/started", false);
            let weak = talk.server.with_policy("weak", "path \"secret/x\" { capabilities = [\"read\"] }");
            weak.get("sys/generate-root/attempt").assert_multi(403, "permission denied");
        }
    }
    assert_alike(&said);
}

/// Each server with a client of a second listener, which asks for no token on these routes.
pub(super) fn old_talks(family: &str, what: &str) -> Vec<(Server, crate::support::Client)> {
    let more = |port: u16| {
        format!(
            "listener \"tcp\" {{\n  address = \"127.0.0.1:{port}\"\n  tls_disable = true\n  disable_unauthed_{family}_endpoints = false\n}}\n"
        )
    };
    let open = |server: &Server, port: u16| {
        crate::support::Client::new(&format!("127.0.0.1:{port}"), None, server.secrets().clone())
    };
    let port = crate::support::free_port();
    let server = Server::durable(&Durable { settings: more(port), ..two_of_three() });
    let client = open(&server, port);
    let mut servers = vec![(server, client)];
    if let Some(bao) = Bao::find(what) {
        let port = crate::support::free_port();
        let server = Server::openbao_on(&bao, 2, &more(port));
        server.init(3, 2);
        server.unseal();
        let client = open(&server, port);
        servers.push((server, client));
    }
    servers
}

/// Vault's own setting opens them on every listener.
#[test]
fn vaults_setting_opens_the_old_routes() {
    let settings = "enable_unauthenticated_access = [\"generate-root\"]\n".to_owned();
    let server = Server::durable(&Durable { settings, ..two_of_three() });
    let nobody = server.nobody();
    nobody.get("sys/generate-root/attempt").assert_status(200).assert_at("/required", 2);
    nobody.get("sys/rekey/init").assert_error(405, "unsupported operation");
    nobody.get("sys/generate-root-token/attempt").assert_error(403, "permission denied");
}

/// An attempt is in the store: whoever restarts the server takes no share away.
#[test]
fn an_attempt_outlives_the_server() {
    let server = Server::durable(&two_of_three());
    let mut talk = Talk::with(&server);
    talk.say("POST", ATTEMPT, json!({ "otp": OTP })).assert_status(200);
    talk.say("POST", UPDATE, json!({ "key": "$K0", "nonce": "NONCE" })).assert_at("/data/progress", 1);
    server.crash_and_restart();
    server.unseal();
    let made = talk.say("POST", UPDATE, json!({ "key": "$K1", "nonce": "NONCE" })).assert_at("/data/complete", true);
    let token = decoded(&made.text("/data/encoded_token"), OTP);
    server.secrets().tell(&token);
    server.as_token(&token).get("auth/token/lookup-self").assert_status(200);
}

#[test]
fn a_client_may_try_shares_only_so_often() {
    let server = Server::durable(&two_of_three());
    let nobody = server.nobody();
    let body = json!({ "key": wrong_share(), "nonce": "x" });
    let told = (0..700).map(|_| nobody.put(UPDATE, body.clone()).status).find(|status| *status == 429);
    assert_eq!(told, Some(429));
}

/// Ours and OpenBao's client print the same, and end alike.
#[test]
fn the_command_line_makes_a_root_token_as_openbaos() {
    let mut said = Vec::new();
    for server in &servers("operator generate-root, against a real OpenBao") {
        let shares = server.shares();
        let cli = server.cli();
        let mut shown = Vec::new();
        let mut run = |line: &str| {
            let ran = cli.line(line);
            shown.push(format!(
                "{}\n{}{}{}",
                without_secrets(line, &shares),
                without_secrets(&ran.stdout, &shares),
                without_secrets(&ran.stderr, &shares).replace(server.address(), "<address>"),
                ran.status
            ));
            ran
        };
        run("operator generate-root -status");
        run("operator generate-root -status -format=json");
        run("operator generate-root -nonce=x K");
        run("operator generate-root -non-interactive");
        let otp = run("operator generate-root -generate-otp").stdout;
        run("operator generate-root -generate-otp -format=json");
        let begun = run(&format!("operator generate-root -init -otp={}", otp.trim()));
        let nonce = begun.row("Nonce");
        run("operator generate-root -init");
        run(&format!("operator generate-root {}", shares[0]));
        run(&format!("operator generate-root -nonce={nonce} {}", shares[0]));
        run(&format!("operator generate-root -nonce={nonce} {}", shares[0]));
        let made = run(&format!("operator generate-root -nonce={nonce} {}", shares[1]));
        let encoded =
            made.stdout.lines().find_map(|line| line.strip_prefix("Encoded Token")).unwrap().trim().to_owned();
        let token = run(&format!("operator generate-root -decode={encoded} -otp={}", otp.trim())).stdout;
        server.secrets().tell(token.trim());
        server.as_token(token.trim()).get("auth/token/lookup-self").assert_status(200);
        run(&format!("operator generate-root -decode={encoded}"));
        run(&format!("operator generate-root -decode={encoded} -otp=x"));
        run("operator generate-root -init");
        run("operator generate-root -cancel");
        run("operator generate-root a b");
        said.push(shown);
    }
    assert_alike(&said);
}

/// What differs from run to run, and the name of the program.
pub(super) fn without_secrets(text: &str, shares: &[String]) -> String {
    let mut text = without_nonces(text);
    for share in shares {
        text = text.replace(share.as_str(), "<share>");
    }
    let is_random = |word: &str| {
        word.len() >= 26
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "+/.=\"-".contains(c))
            && word.chars().any(|c| c.is_ascii_digit())
    };
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let words: Vec<String> = line
                .split(' ')
                .map(|word| match word.split_once('=') {
                    Some((name, value)) if is_random(value) => format!("{name}=<random>"),
                    _ if is_random(word.trim_matches([',', '"'])) => "<random>".to_owned(),
                    _ => word.to_owned(),
                })
                .collect();
            words.join(" ")
        })
        .collect();
    // Where a line is broken depends on the name of the program, how a list is set out on what is longest.
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    words.join(" ").replace("bao operator", "leasehold operator")
}

/// Who has lost every token has shares still: without a token the command asks the old routes.
#[test]
fn the_command_line_without_a_token_asks_the_routes_that_need_none() {
    let settings = "enable_unauthenticated_access = [\"generate-root\", \"rekey\"]\n".to_owned();
    let server = Server::durable(&Durable { settings, ..two_of_three() });
    let cli = server.cli().without_token();
    let begun = cli.line(&format!("operator generate-root -init -otp={OTP}")).assert_status(0);
    let nonce = begun.row("Nonce");
    let shares = server.shares();
    cli.line(&format!("operator generate-root -nonce={nonce} {}", shares[2])).assert_status(0);
    let made = cli.line(&format!("operator generate-root -nonce={nonce} {}", shares[0])).assert_status(0);
    let encoded = made.stdout.lines().find_map(|line| line.strip_prefix("Encoded Token")).unwrap().trim().to_owned();
    let token = decoded(&encoded, OTP);
    server.secrets().tell(&token);
    server.as_token(&token).get("auth/token/lookup-self").assert_status(200);
}

/// Made, and not handed out: the attempt is over, and the next one makes a token that works.
#[test]
fn a_server_that_is_killed_with_a_new_root_token_in_its_hands_makes_another() {
    let mut server = Server::durable(&two_of_three());
    let shares = server.shares();
    server.kill();
    server.set_environment("LEASEHOLD_FAIL_POINT", Some("root-token-made"));
    server.start();
    server.unseal();
    let attempt = "sys/generate-root-token/attempt";
    let begin = |server: &Server| server.root().put(attempt, json!({})).assert_status(200).text("/data/nonce");
    let nonce = begin(&server);
    let give = |server: &Server, at: usize, nonce: &str| {
        let body = json!({ "key": shares[at], "nonce": nonce });
        server.root().try_request("PUT", "sys/generate-root-token/update", Some(body))
    };
    assert_eq!(give(&server, 0, &nonce).unwrap().status, 200);
    assert!(give(&server, 1, &nonce).is_err(), "it died");
    server.kill();
    server.set_environment("LEASEHOLD_FAIL_POINT", None);
    server.start();
    server.unseal();
    server.root().get(attempt).assert_status(200).assert_at("/data/started", false);
    let nonce = begin(&server);
    give(&server, 0, &nonce).unwrap().assert_status(200);
    let made = give(&server, 1, &nonce).unwrap().assert_status(200);
    assert_ne!(made.text("/data/encoded_token"), "");
}
