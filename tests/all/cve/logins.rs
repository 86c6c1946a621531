//! Guessing: no spelling has further tries, and nobody learns from a refusal who exists.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Differs, Same, enable_auth, holds, log_in, on_both, user, write};
use crate::support::Server;

const TRIES: usize = 5;

/// A user who fails as often as is allowed, in these spellings; whether the right password still lets in.
fn lets_in_after(server: &Server, spellings: &[&str]) -> bool {
    enable_auth(server, "userpass", "userpass");
    user(server, "ada", "default");
    for spelling in spellings.iter().cycle().take(TRIES) {
        log_in(server, spelling, "wrong");
    }
    log_in(server, "ada", "correct-horse").status == 200
}

#[test]
fn five_wrong_passwords_lock_a_user() {
    on_both(Same, |server| holds(!lets_in_after(server, &["ada"]), "there is a sixth try"));
}

/// CVE-2025-6004.
#[test]
fn the_case_of_a_name_gives_no_further_tries() {
    on_both(Same, |server| holds(!lets_in_after(server, &["ada", "ADA", "Ada", "aDa", "adA"]), "there is a sixth try"));
}

/// A limit of requests for one name is one for all its cases.
#[test]
fn the_case_of_a_name_gives_no_further_requests() {
    on_both(Differs("another case of the name is not limited"), |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        let limit = json!({ "path": "auth/userpass/login/ada", "rate": 2, "interval": "1m" });
        write(&server.root(), "sys/quotas/rate-limit/ada", limit);
        let refused = (0..8).filter(|_| log_in(server, "ADA", "correct-horse").status == 429).count();
        holds(refused > 0, "another case of the name is not limited")
    });
}

#[test]
fn blanks_around_a_name_give_no_further_tries() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        for spelling in ["ada%20", "%20ada", "ada%09", "ada%C2%A0"] {
            let answer = log_in(server, spelling, "correct-horse");
            holds(answer.status != 200, &format!("{spelling} is ada"))?;
        }
        Ok(())
    });
}

/// CVE-2025-6010, CVE-2025-6011 by words.
#[test]
fn unknown_users_and_wrong_passwords_are_refused_alike() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        let (wrong, unknown) = (log_in(server, "ada", "wrong"), log_in(server, "eve", "wrong"));
        holds((wrong.status, &wrong.body) == (unknown.status, &unknown.body), "the answers tell them apart")
    });
}

#[test]
fn locked_users_are_refused_alike_whether_or_not_they_exist() {
    on_both(Differs("a locked user is told from an unknown one"), |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        for name in ["ada", "eve"] {
            for _ in 0..TRIES {
                log_in(server, name, "wrong");
            }
        }
        let (known, unknown) = (log_in(server, "ada", "wrong"), log_in(server, "eve", "wrong"));
        holds(
            (known.status, &known.body) == (unknown.status, &unknown.body),
            "a locked user is told from an unknown one",
        )
    });
}

#[test]
fn a_wrong_secret_id_is_refused_like_one_of_nobody() {
    on_both(Same, |server| {
        enable_auth(server, "approle", "approle");
        write(&server.root(), "auth/approle/role/web", json!({ "token_policies": "default" }));
        let role = server.root().get("auth/approle/role/web/role-id").text("/data/role_id");
        let refused = |secret: &str| {
            let answer = server.nobody().post("auth/approle/login", json!({ "role_id": role, "secret_id": secret }));
            (answer.status, answer.body)
        };
        let spent = server.root().post("auth/approle/role/web/secret-id", json!({})).text("/data/secret_id");
        server.root().post("auth/approle/role/web/secret-id/destroy", json!({ "secret_id": spent })).assert_status(204);
        holds(refused("never-made") == refused(&spent), "a destroyed secret id is told from one of nobody")
    });
}

fn median(server: &Server, name: &str) -> Duration {
    let mut took: Vec<Duration> = (0..4)
        .map(|_| {
            let began = Instant::now();
            log_in(server, name, "wrong");
            began.elapsed()
        })
        .collect();
    took.sort();
    took.get(took.len() / 2).copied().unwrap_or_default()
}

/// CVE-2025-6010 by time: a password is hashed for nobody as for somebody. The bounds are wide: hashing takes a hundred times as long
/// as everything else in a login.
#[test]
fn unknown_users_take_as_long_as_wrong_passwords() {
    on_both(Same, |server| {
        enable_auth(server, "userpass", "userpass");
        user(server, "ada", "default");
        let (known, unknown) = (median(server, "ada"), median(server, "eve"));
        holds(unknown * 5 > known, &format!("{unknown:?} for nobody, {known:?} for somebody"))
    });
}

#[test]
fn a_mount_that_is_not_there_is_no_secret() {
    on_both(Same, |server| {
        let refused = |path: &str| {
            let answer = server.nobody().get(path);
            (answer.status, answer.body)
        };
        holds(refused("secret/data/x") == refused("nomount/data/x"), "a stranger learns which mounts there are")?;
        let login = server.nobody().post("auth/nomount/login/x", json!({ "password": "x" }));
        holds(login.status == 403, "a stranger learns which login mounts there are")
    });
}

#[test]
fn a_token_that_ended_is_refused_like_one_that_never_was() {
    on_both(Same, |server| {
        let gone = server.root().child(json!({ "policies": ["default"] }));
        server.root().post("auth/token/revoke", json!({ "token": gone })).assert_status(204);
        let refused = |token: &str| {
            let answer = server.nobody().with_token(token).get("auth/token/lookup-self");
            (answer.status, answer.body)
        };
        let never = format!("{}x", gone.get(..gone.len() - 1).unwrap_or_default());
        holds(refused(&gone) == refused(&never), "a revoked token is told from one of nobody")
    });
}
