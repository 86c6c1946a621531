//! Passwords by an operator's policy: what a change of one sets, and what happens without the policy.

use serde_json::json;

use crate::rotation::Rotating;
use crate::support::log_in;

const SIGNS: &str = "length = 40\nrule \"charset\" {\n charset = \"'\\\"\\\\$@/:?#%& {};-ä€ﬁ\"\n min-chars = 40\n}\n";
const DIGITS: &str = "length = 30\nrule \"charset\" {\n charset = \"0123456789\"\n}\n";
const MISSING: &str = "failed to generate password: no password policy found";

#[tokio::test]
async fn rotate_root_sets_passwords_by_the_policy_and_the_connection_still_logs_in() {
    let user = "policy_root";
    let rotating = Rotating::with_admin(user, json!({ "password_policy": "signs" })).await;
    let failed = rotating.write("rotate-root/rot", json!({})).await.unwrap_err();
    assert_eq!(failed.to_string(), MISSING);
    log_in(&rotating.pg, user, "first-password", rotating.pg.database()).await.unwrap();

    rotating.context.passwords.write("signs", SIGNS).await.unwrap();
    for _ in 0..5 {
        rotating.write("rotate-root/rot", json!({})).await.unwrap();
        assert!(log_in(&rotating.pg, user, "first-password", rotating.pg.database()).await.is_err());
        // It is the stored one that works.
        rotating.write("config/rot", json!({ "verify_connection": true })).await.unwrap();
    }
}

/// A password that changes the meaning of the URL locks nobody out: it is seen before the database hears of it.
#[tokio::test]
async fn a_password_that_would_break_the_url_is_never_set() {
    let user = "policy_raw";
    let rotating = Rotating::with_admin(user, json!({ "password_policy": "signs", "disable_escaping": true })).await;
    rotating.context.passwords.write("signs", SIGNS).await.unwrap();
    let failed = rotating.write("rotate-root/rot", json!({})).await.unwrap_err().to_string();
    assert!(failed.contains("does not stand in its connection_url"), "{failed}");
    log_in(&rotating.pg, user, "first-password", rotating.pg.database()).await.unwrap();
    rotating.write("config/rot", json!({ "verify_connection": true })).await.unwrap();
    // One of digits does.
    rotating.context.passwords.write("signs", DIGITS).await.unwrap();
    rotating.write("rotate-root/rot", json!({})).await.unwrap();
    rotating.write("config/rot", json!({ "verify_connection": true })).await.unwrap();
}

#[tokio::test]
async fn static_roles_have_passwords_by_their_own_policy_or_the_connections() {
    let rotating = Rotating::new().await;
    rotating.make("policy_static", "LOGIN");
    rotating.context.passwords.write("signs", SIGNS).await.unwrap();
    rotating.context.passwords.write("digits", DIGITS).await.unwrap();
    rotating.connect("pg", json!({ "password_policy": "signs" })).await;
    let body = json!({ "db_name": "pg", "username": "policy_static", "rotation_period": "1h" });
    rotating.write("static-roles/s", body).await.unwrap();
    let password = |read: serde_json::Value| read["password"].as_str().unwrap().to_owned();
    let first = password(rotating.read("static-creds/s").await.unwrap());
    assert!(first.chars().count() == 40 && first.chars().all(|c| SIGNS.contains(c)), "{first}");
    log_in(&rotating.pg, "policy_static", &first, rotating.pg.database()).await.unwrap();

    let own = json!({ "credential_config": { "password_policy": "digits" } });
    rotating.write("static-roles/s", own).await.unwrap();
    rotating.write("rotate-role/s", json!({})).await.unwrap();
    let second = password(rotating.read("static-creds/s").await.unwrap());
    assert!(second.len() == 30 && second.chars().all(|c| c.is_ascii_digit()), "{second}");
    log_in(&rotating.pg, "policy_static", &second, rotating.pg.database()).await.unwrap();

    // Deleted later: no change begins, and the password that is told works.
    rotating.context.passwords.delete("digits").await.unwrap();
    let failed = rotating.write("rotate-role/s", json!({})).await.unwrap_err();
    assert_eq!(failed.to_string(), MISSING);
    assert_eq!(password(rotating.read("static-creds/s").await.unwrap()), second);
    log_in(&rotating.pg, "policy_static", &second, rotating.pg.database()).await.unwrap();
    let other = json!({ "credential_config": { "password_policy": "none" } });
    assert_eq!(rotating.write("static-roles/s", other).await.unwrap_err().to_string(), MISSING);
}
