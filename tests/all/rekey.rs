//! New key shares for those who hold enough of the present ones, and the schedule of data keys (contract.md §2.8).

use serde_json::{Value, json};

use super::quorum::{Talk, assert_alike, old_talks, servers, two_of_three, without_secrets, wrong_share};
use crate::support::{Kind, Server};

/// A rotation with verification, without, and what is no step of either.
#[test]
fn rotation_of_the_root_key_answers_as_openbaos() {
    let mut said = Vec::new();
    for server in &servers("rotate/root, against a real OpenBao") {
        let mut talk = Talk::with(server);
        let old = server.shares();
        talk.say("GET", "sys/rotate/root/init", Value::Null);
        talk.say("GET", "sys/rotate/root/verify", Value::Null);
        talk.say("DELETE", "sys/rotate/root/init", Value::Null);
        talk.say("DELETE", "sys/rotate/root/verify", Value::Null);
        for step in ["update", "verify"] {
            let path = format!("sys/rotate/root/{step}");
            talk.say("POST", &path, json!({}));
            talk.say("POST", &path, json!({ "key": "$K0" }));
            talk.say("POST", &path, json!({ "key": "$K0", "nonce": "x" }));
            talk.say("POST", &path, json!({ "key": "zz", "nonce": "x" }));
        }
        let wish = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
        talk.say("POST", "sys/rotate/root/init", wish.clone());
        talk.say("POST", "sys/rotate/root/init", wish);
        talk.say("GET", "sys/rotate/root/init", Value::Null);
        talk.say("GET", "sys/rotate/root/verify", Value::Null);
        talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K0", "nonce": "x" }));
        talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K0", "nonce": "NONCE" }));
        talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K0", "nonce": "NONCE" }));
        talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K2", "nonce": "NONCE" })).assert_status(200);
        talk.say("GET", "sys/rotate/root/init", Value::Null);
        talk.say("GET", "sys/rotate/root/verify", Value::Null);
        talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K1", "nonce": "NONCE" }));
        talk.say("POST", "sys/rotate/root/verify", json!({ "key": "$K0", "nonce": "x" }));
        talk.say("POST", "sys/rotate/root/verify", json!({ "key": "$K0", "nonce": "NONCE" }));
        talk.say("POST", "sys/rotate/root/verify", json!({ "key": old[1], "nonce": "NONCE" }));
        talk.say("GET", "sys/rotate/root/verify", Value::Null);
        talk.say("POST", "sys/rotate/root/verify", json!({ "key": "$K0", "nonce": "NONCE" }));
        talk.say("DELETE", "sys/rotate/root/verify", Value::Null);
        talk.say("POST", "sys/rotate/root/verify", json!({ "key": "$K2", "nonce": "NONCE" }));
        talk.say("POST", "sys/rotate/root/verify", json!({ "key": "$K1", "nonce": "NONCE" })).assert_status(200);
        talk.say("GET", "sys/rotate/root/init", Value::Null);
        talk.say("POST", "sys/rotate/root/init", json!({ "secret_shares": 1, "secret_threshold": 1 }));
        talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K0", "nonce": "NONCE" }));
        talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K1", "nonce": "NONCE" })).assert_status(200);
        let seal = talk.say("GET", "sys/seal-status", Value::Null).json();
        talk.said.pop();
        assert_eq!((&seal["n"], &seal["t"], &seal["sealed"]), (&json!(1), &json!(1), &json!(false)));
        talk.say("GET", "sys/rotate/root/backup", Value::Null);
        talk.say("DELETE", "sys/rotate/root/backup", Value::Null);
        talk.say("GET", "sys/rotate/root/update", Value::Null);
        talk.say("GET", "sys/rotate/root", Value::Null);
        talk.say("POST", "sys/rotate/recovery/init", json!({ "secret_shares": 1, "secret_threshold": 1 }));
        talk.say("DELETE", "sys/rotate/recovery/init", Value::Null);
        talk.say("GET", "sys/rekey/backup", Value::Null);
        talk.say("DELETE", "sys/rekey/backup", Value::Null);
        talk.say_as(&server.nobody(), "GET", "sys/rotate/root/init", Value::Null);
        let weak = server.with_policy("weak", "path \"sys/rotate/root\" { capabilities = [\"update\"] }");
        talk.say_as(&weak, "PUT", "sys/rotate/root/init", json!({}));
        talk.say_as(&weak, "PUT", "sys/rotate/root", json!({}));
        said.push(talk.said);
        // The new share opens the server, and no old one does.
        server.root().put("sys/seal", json!({})).assert_status(204);
        let nobody = server.nobody();
        assert_ne!(nobody.put("sys/unseal", json!({ "key": old[0] })).at("/sealed"), false);
        nobody.put("sys/unseal", json!({ "key": talk.shares[0] })).assert_status(200).assert_at("/sealed", false);
        server.root().get("auth/token/lookup-self").assert_status(200);
    }
    assert_alike(&said);
}

#[test]
fn the_old_routes_of_rekeying_answer_as_openbaos() {
    let mut said = Vec::new();
    for (server, open) in &old_talks("rekey", "sys/rekey, against a real OpenBao") {
        let mut talk = Talk::with(server);
        let closed = server.nobody();
        for path in ["sys/rekey/init", "sys/rekey/update", "sys/rekey/verify", "sys/rekey-recovery-key/init"] {
            for method in ["GET", "PUT", "POST", "DELETE"] {
                talk.say_as(&closed, method, path, Value::Null);
                // OpenBao has not even the path of the last one where it is closed.
                if path.ends_with("recovery-key/init") {
                    talk.said.pop();
                }
            }
        }
        let mut say = |method: &str, path: &str, body: Value| talk.say_as(open, method, path, body);
        say("GET", "sys/rekey/init", Value::Null);
        say("GET", "sys/rekey/verify", Value::Null);
        say("DELETE", "sys/rekey/init", Value::Null);
        say("PUT", "sys/rekey/init", json!({ "secret_shares": 3 }));
        say("PUT", "sys/rekey/init", json!({ "secret_shares": 3, "secret_threshold": 2, "backup": true }));
        let wish = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
        say("PUT", "sys/rekey/init", wish.clone());
        say("PUT", "sys/rekey/init", wish);
        say("GET", "sys/rekey/verify", Value::Null);
        for body in [
            json!({}),
            json!({ "key": "$K0" }),
            json!({ "key": "zz" }),
            json!({ "key": "$K0", "nonce": "NONCE" }),
            json!({ "key": "$K0", "nonce": "NONCE" }),
            json!({ "key": wrong_share(), "nonce": "NONCE" }),
            json!({ "key": "$K1", "nonce": "NONCE" }),
            json!({ "key": "$K2", "nonce": "NONCE" }),
        ] {
            say("PUT", "sys/rekey/update", body);
        }
        say("GET", "sys/rekey/init", Value::Null);
        say("PUT", "sys/rekey/update", json!({ "key": "$K0", "nonce": "NONCE" }));
        for body in [
            json!({}),
            json!({ "key": "$K0" }),
            json!({ "key": "$K0", "nonce": "NONCE" }),
            json!({ "key": wrong_share(), "nonce": "NONCE" }),
        ] {
            say("PUT", "sys/rekey/verify", body);
        }
        say("DELETE", "sys/rekey/verify", Value::Null);
        say("PUT", "sys/rekey/verify", json!({ "key": "$K1", "nonce": "NONCE" }));
        say("PUT", "sys/rekey/verify", json!({ "key": "$K2", "nonce": "NONCE" })).assert_status(200);
        say("PUT", "sys/rekey/verify", json!({ "key": "$K2", "nonce": "NONCE" }));
        say("PUT", "sys/rekey/update", json!({ "key": "$K2", "nonce": "NONCE" }));
        say("GET", "sys/rekey-recovery-key/init", Value::Null);
        said.push(talk.said);
    }
    assert_alike(&said);
}

#[test]
fn the_schedule_of_data_keys_answers_as_openbaos() {
    let mut said = Vec::new();
    for server in &servers("rotate/config, against a real OpenBao") {
        let mut talk = Talk::with(server);
        talk.say("GET", "sys/rotate/config", Value::Null);
        for body in [
            json!({}),
            json!({ "interval": "3600" }),
            json!({ "interval": "24h" }),
            json!({ "interval": "26h30m", "enabled": "true" }),
            json!({ "interval": -5 }),
            json!({ "interval": "x" }),
            json!({ "max_operations": 5 }),
            json!({ "max_operations": "1000000" }),
            json!({ "max_operations": 3_865_470_567_u64 }),
            json!({ "enabled": "x" }),
            json!({ "enabled": false }),
        ] {
            talk.say("POST", "sys/rotate/config", body);
            talk.say("GET", "sys/rotate/keyring/config", Value::Null);
        }
        talk.say("POST", "sys/rotate/keyring/config", json!({ "interval": "0", "enabled": true }));
        talk.say("GET", "sys/rotate/config", Value::Null);
        talk.say("DELETE", "sys/rotate/config", Value::Null);
        talk.say("POST", "sys/rotate", Value::Null);
        assert_eq!(server.root().get("sys/key-status").at("/data/term"), 2);
        said.push(talk.said);
    }
    assert_alike(&said);
}

/// Killed where new shares are stored to be verified, and where they begin to count: the old ones open the server, or the new ones.
#[test]
fn a_rekeying_that_is_killed_leaves_shares_that_open_the_server() {
    for point in ["rekey-dealt", "rekey-adopted"] {
        let mut server = Server::durable(&two_of_three());
        let old = server.shares();
        let restart = |server: &mut Server, point: Option<&str>| {
            server.kill();
            server.set_environment("LEASEHOLD_FAIL_POINT", point);
            server.start();
        };
        let opens = |server: &Server, shares: &[String]| {
            let nobody = server.nobody();
            nobody.put("sys/unseal", json!({ "reset": true }));
            shares
                .iter()
                .take(2)
                .map(|share| nobody.put("sys/unseal", json!({ "key": share })))
                .all(|answer| answer.status == 200)
        };
        let begin = json!({ "secret_shares": 3, "secret_threshold": 2, "require_verification": true });
        let mut new = Vec::new();
        if point == "rekey-adopted" {
            let mut talk = Talk::with(&server);
            talk.say("POST", "sys/rotate/root/init", begin.clone());
            talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K0", "nonce": "NONCE" }));
            talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K1", "nonce": "NONCE" })).assert_status(200);
            talk.say("POST", "sys/rotate/root/verify", json!({ "key": "$K0", "nonce": "NONCE" })).assert_status(200);
            let (nonce, shares) = (talk.nonce.clone(), talk.shares.clone());
            restart(&mut server, Some(point));
            assert!(opens(&server, &old));
            let last = json!({ "key": shares[1], "nonce": nonce });
            assert!(server.root().try_request("PUT", "sys/rotate/root/verify", Some(last)).is_err(), "{point}");
            new = shares;
        } else {
            restart(&mut server, Some(point));
            assert!(opens(&server, &old));
            let mut talk = Talk::with(&server);
            talk.say("POST", "sys/rotate/root/init", begin);
            talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K0", "nonce": "NONCE" }));
            let last = json!({ "key": old[1], "nonce": talk.nonce });
            assert!(server.root().try_request("PUT", "sys/rotate/root/update", Some(last)).is_err(), "{point}");
        }
        restart(&mut server, None);
        let by_old = opens(&server, &old);
        assert_eq!(by_old, new.is_empty(), "{point}");
        assert!(by_old || opens(&server, &new), "{point}");
        server.root().get("auth/token/lookup-self").assert_status(200);
    }
}

/// Two servers over one PostgreSQL: shares go to either, and both go on under the new keys.
#[test]
fn servers_over_one_store_rekey_together() {
    let postgres = leasehold_devpg::DevPg::start(leasehold_devpg::Options::default()).unwrap();
    let storage =
        format!("storage \"postgresql\" {{\n  connection_url = \"{}?sslmode=disable\"\n}}", postgres.superuser_url());
    let start = || {
        let server = Server::prepared(&two_of_three());
        server.write_config_with("", &storage);
        server.start();
        server
    };
    let one = start();
    one.init(3, 2);
    one.unseal();
    let other = start();
    other.knows_keys_of(&one);
    other.unseal();
    one.root().post("sys/mounts/kv", json!({ "type": "kv" })).assert_status(204);
    let old = one.shares();
    let mut talk = Talk::with(&one);
    talk.say("POST", "sys/rotate/root/init", json!({ "secret_shares": 3, "secret_threshold": 2 }));
    let nonce = talk.nonce.clone();
    talk.say("POST", "sys/rotate/root/update", json!({ "key": "$K0", "nonce": "NONCE" })).assert_status(200);
    let dealt = other.root().put("sys/rotate/root/update", json!({ "key": old[1], "nonce": nonce })).assert_status(200);
    let new: Vec<String> = serde_json::from_value(dealt.at("/data/keys_base64")).unwrap();
    for (name, writer, reader) in [("a", &one, &other), ("b", &other, &one)] {
        writer.root().put(&format!("kv/{name}"), json!({ "x": "1" })).assert_status(204);
        reader.root().get(&format!("kv/{name}")).assert_status(200).assert_at("/data/x", "1");
        writer.root().put("sys/rotate", json!({})).assert_status(204);
    }
    for server in [&one, &other] {
        server
            .root()
            .put("sys/policies/acl/p", json!({ "policy": "path \"kv/a\" { capabilities = [\"read\"] }" }))
            .assert_status(204);
        assert_eq!(server.nobody().get("sys/seal-status").at("/t"), 2);
    }
    other.kill();
    other.start();
    let nobody = other.nobody();
    for share in &old {
        nobody.put("sys/unseal", json!({ "key": share })).assert_status(400);
    }
    for share in &new[1..] {
        nobody.put("sys/unseal", json!({ "key": share })).assert_status(200);
    }
    other.root().get("kv/a").assert_status(200);
}

#[test]
fn the_command_line_replaces_shares_as_openbaos() {
    let mut said = Vec::new();
    for server in &servers("operator rotate-keys, against a real OpenBao") {
        let mut shares = server.shares();
        let cli = server.cli();
        let mut shown = Vec::new();
        let mut run = |line: &str, is_alike: bool, shares: &[String]| {
            let ran = cli.line(line);
            // OpenBao advises to use PGP keys, and breaks a paragraph with two blanks.
            let stderr = if is_alike { without_secrets(&ran.stderr, shares) } else { String::new() };
            shown.push(format!(
                "{}\n{}{}{}",
                without_secrets(line, shares),
                without_secrets(&ran.stdout, shares).replace("OpenBao", "Leasehold"),
                stderr.replace(server.address(), "<address>").replace("OpenBao", "Leasehold"),
                ran.status
            ));
            ran
        };
        run("operator rotate-keys -status", true, &shares);
        run("operator rotate-keys -status -format=json", true, &shares);
        run("operator rotate-keys -status -verify", true, &shares);
        run("operator rotate-keys -nonce=x abcdefgh", true, &shares);
        run("operator rotate-keys -status -target=nowhere", true, &shares);
        let begun = run("operator rotate-keys -init -key-shares=3 -key-threshold=2 -verify", false, &shares);
        let nonce = begun.row("Nonce");
        run("operator rotate-keys -init", false, &shares);
        run("operator rotate-keys -status", true, &shares);
        run("operator rotate-keys -status -format=json", true, &shares);
        run(&format!("operator rotate-keys {}", shares[0]), true, &shares);
        run(&format!("operator rotate-keys -nonce={nonce} {}", shares[0]), true, &shares);
        let dealt = run(&format!("operator rotate-keys -format=json -nonce={nonce} {}", shares[1]), true, &shares);
        let dealt: Value = serde_json::from_str(&dealt.stdout).unwrap();
        server.secrets().tell_answer(&dealt);
        shares = serde_json::from_value(dealt["keys_base64"].clone()).unwrap();
        let nonce = dealt["verification_nonce"].as_str().unwrap().to_owned();
        run("operator rotate-keys -status -verify", true, &shares);
        run("operator rotate-keys -status -verify -format=json", true, &shares);
        run(&format!("operator rotate-keys -verify -nonce={nonce} {}", shares[2]), true, &shares);
        run(&format!("operator rotate-keys -verify -nonce={nonce} {}", shares[0]), true, &shares);
        let begun = run("operator rotate-keys -init -n=1 -t=1", false, &shares);
        let nonce = begun.row("Nonce");
        run(&format!("operator rotate-keys -nonce={nonce} {}", shares[0]), true, &shares);
        let last = run(&format!("operator rotate-keys -nonce={nonce} {}", shares[2]), true, &shares);
        let share = last.stdout.lines().find_map(|line| line.strip_prefix("Key 1: ")).unwrap().to_owned();
        server.secrets().tell(&share);
        server.root().put("sys/seal", json!({})).assert_status(204);
        server.nobody().put("sys/unseal", json!({ "key": share })).assert_at("/sealed", false);
        run("operator rotate-keys -cancel", true, &shares);
        run("operator rotate-keys -cancel -verify", true, &shares);
        run("operator rotate-keys -backup-delete", true, &shares);
        said.push(shown);
        // Under Vault's name, in Vault's words.
        if server.kind() == Kind::Leasehold {
            let begun = cli.line("operator rekey -init -key-shares=1 -key-threshold=1").assert_status(0);
            let nonce = begun.row("Nonce");
            let done = cli.line(&format!("operator rekey -nonce={nonce} {share}")).assert_status(0);
            let done = done.assert_stdout("Leasehold unseal keys rekeyed to 1 key shares and a key threshold of 1.");
            let share = done.stdout.lines().find_map(|line| line.strip_prefix("Key 1: ")).unwrap().to_owned();
            server.secrets().tell(&share);
            cli.line("operator rekey -cancel")
                .assert_status(0)
                .assert_stdout("Success! Canceled rekeying (if it was started)");
            server.root().put("sys/seal", json!({})).assert_status(204);
            server.nobody().put("sys/unseal", json!({ "key": share })).assert_at("/sealed", false);
        }
    }
    assert_alike(&said);
}
