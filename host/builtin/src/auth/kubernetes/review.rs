//! Who a token is of: what the cluster says (`TokenReview`), and what the token says itself.

use leasehold_model::{MountAccessor, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::Config;
use crate::auth::jose::{Claims, Compact, FetchError, Fetcher, Flaw, Leeways, Post};

const USER_PREFIX: &str = "system:serviceaccount:";

/// A service account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The secret that holds the token, for tokens of the kind that clusters before 1.24 made.
    pub secret: String,
}

/// Why nobody is logged in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Flaw(#[from] Flaw),
    #[error("the token is of no service account")]
    NoAccount,
    #[error("the cluster says that the token is not good")]
    NotAuthenticated,
    #[error("the cluster says that the token is not for the role's audience")]
    OtherAudience,
    #[error("the cluster says that the token is of another service account than it says itself")]
    OtherAccount,
    /// Whoever logs in asks with their own token, or the reviewer's has ended.
    #[error("the cluster refuses to review tokens (it answers {0})")]
    Refused(u16),
    /// For the log.
    #[error("the cluster could not be asked: {0}")]
    Away(String),
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    audiences: &'a [&'a str],
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    error: String,
    user: User,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: String,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

/// What a token says of itself, which nobody has verified unless the mount has keys: enough to spare the cluster what cannot be good.
pub(super) fn read(token: &str, config: &Config, now: Timestamp) -> Result<Account, Failure> {
    let compact = Compact::read(token)?;
    let claims = match config.keys() {
        Some(keys) => compact.verify(&keys)?,
        None => compact.unverified_content()?,
    };
    // As Vault: tokens of the old kind have no times at all, and the clocks of cluster and server may differ by a minute.
    let has_times = ["exp", "nbf", "iat"].iter().any(|name| claims.named(name).is_some());
    if has_times {
        claims.check_times(&Leeways { expiration: 0, not_before: 0, clock_skew: 0 }, now)?;
    }
    claims.check_issuer(config.bound_issuer())?;
    account(&claims).ok_or(Failure::NoAccount)
}

/// The account that a token names, in the form of projected tokens or of the older ones.
fn account(claims: &Claims) -> Option<Account> {
    let text = |pointer: &str| claims.get(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let projected = Account {
        namespace: text("/kubernetes.io/namespace"),
        name: text("/kubernetes.io/serviceaccount/name"),
        uid: text("/kubernetes.io/serviceaccount/uid"),
        secret: String::new(),
    };
    let old = || Account {
        namespace: text("kubernetes.io/serviceaccount/namespace"),
        name: text("kubernetes.io/serviceaccount/service-account.name"),
        uid: text("kubernetes.io/serviceaccount/service-account.uid"),
        secret: text("kubernetes.io/serviceaccount/secret.name"),
    };
    let is_whole = |account: &Account| !account.namespace.is_empty() && !account.name.is_empty();
    Some(projected).filter(is_whole).or_else(|| Some(old()).filter(is_whole))
}

/// Asks the cluster about a token. Only what it says counts.
pub(super) async fn ask(
    fetcher: &Fetcher,
    mount: &MountAccessor,
    config: &Config,
    token: &str,
    audience: &str,
    said: &Account,
) -> Result<Account, Failure> {
    let audiences: &[&str] = if audience.is_empty() { &[] } else { &[audience] };
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": Spec { token, audiences },
    });
    let post = Post { bearer: config.reviewer(token).await, body: body.to_string().into_bytes().into() };
    let authorities = config.authorities().await.map_err(Failure::Away)?;
    let answered = fetcher.post(mount, &config.review_address(), &authorities, post).await;
    let (status, text) = answered.map_err(|error: FetchError| Failure::Away(error.to_string()))?;
    match status {
        200..=299 => {}
        401 | 403 => return Err(Failure::Refused(status)),
        other => return Err(Failure::Away(format!("the API server answered {other}"))),
    }
    let review: Review = serde_json::from_slice(&text)
        .map_err(|_| Failure::Away("the API server's answer is no TokenReview".to_owned()))?;
    judged(review.status, audience, said)
}

fn judged(status: Status, audience: &str, said: &Account) -> Result<Account, Failure> {
    if !status.authenticated || !status.error.is_empty() {
        return Err(Failure::NotAuthenticated);
    }
    // A cluster that knows nothing of audiences says none: it has not compared them.
    if !audience.is_empty() && !status.audiences.iter().any(|found| found == audience) {
        return Err(Failure::OtherAudience);
    }
    let account = status.user.username.strip_prefix(USER_PREFIX).and_then(|rest| rest.split_once(':'));
    let (namespace, name) = account.filter(|(_, name)| !name.contains(':')).ok_or(Failure::NoAccount)?;
    let is_same =
        namespace == said.namespace && name == said.name && (said.uid.is_empty() || said.uid == status.user.uid);
    if !is_same {
        return Err(Failure::OtherAccount);
    }
    Ok(Account {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: status.user.uid,
        secret: said.secret.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Account {
        Account { namespace: "shop".to_owned(), name: "app".to_owned(), uid: "u-1".to_owned(), secret: String::new() }
    }

    fn found(status: Value, audience: &str) -> Result<Account, Failure> {
        judged(serde_json::from_value(status).unwrap(), audience, &said())
    }

    #[test]
    fn the_clocks_of_cluster_and_server_may_differ_by_a_minute() {
        use crate::auth::jose::{Algorithm, testing::SignKey};
        let now = 1_800_000_000;
        let config: Config = serde_json::from_value(json!({ "disable_iss_validation": true })).unwrap();
        let account = json!({ "namespace": "shop", "serviceaccount": { "name": "app" } });
        let key = SignKey::for_algorithm(Algorithm::Es256);
        for (begins, ends, is_good) in
            [(59, 3_600, true), (61, 3_600, false), (-3_600, -59, true), (-3_600, -61, false)]
        {
            let claims = json!({
                "iat": now + begins, "nbf": now + begins, "exp": now + ends, "kubernetes.io": account,
            });
            let found = read(&key.token(None, &claims), &config, Timestamp::from_secs(now));
            assert_eq!(found.is_ok(), is_good, "{begins} {ends}: {found:?}");
        }
    }

    #[tokio::test]
    async fn a_cluster_that_nobody_vouches_for_is_not_asked() {
        let config: Config =
            serde_json::from_value(json!({ "kubernetes_host": "https://127.0.0.1:1", "disable_local_ca_jwt": true }))
                .unwrap();
        let found = ask(&Fetcher::default(), &MountAccessor::new("auth_kubernetes_1"), &config, "x", "", &said()).await;
        assert!(matches!(&found, Err(Failure::Away(why)) if why.contains("kubernetes_ca_cert")), "{found:?}");
    }

    #[test]
    fn only_what_the_cluster_says_counts() {
        let user = json!({ "username": "system:serviceaccount:shop:app", "uid": "u-1" });
        assert_eq!(found(json!({ "authenticated": true, "user": user }), ""), Ok(said()));
        assert_eq!(found(json!({ "authenticated": true, "user": user, "audiences": ["a", "b"] }), "b"), Ok(said()));
        for (status, wanted) in [
            (json!({}), Failure::NotAuthenticated),
            (json!({ "authenticated": false, "user": user }), Failure::NotAuthenticated),
            (
                json!({ "authenticated": true, "error": "token has been revoked", "user": user }),
                Failure::NotAuthenticated,
            ),
            (json!({ "authenticated": true }), Failure::NoAccount),
            (json!({ "authenticated": true, "user": { "username": "admin" } }), Failure::NoAccount),
            (
                json!({ "authenticated": true, "user": { "username": "system:serviceaccount:shop" } }),
                Failure::NoAccount,
            ),
            (
                json!({ "authenticated": true, "user": { "username": "system:serviceaccount:shop:app:x" } }),
                Failure::NoAccount,
            ),
            (
                json!({ "authenticated": true, "user": { "username": "system:serviceaccount:shop:other", "uid": "u-1" } }),
                Failure::OtherAccount,
            ),
            (
                json!({ "authenticated": true, "user": { "username": "system:serviceaccount:other:app", "uid": "u-1" } }),
                Failure::OtherAccount,
            ),
            (
                json!({ "authenticated": true, "user": { "username": "system:serviceaccount:shop:app", "uid": "u-2" } }),
                Failure::OtherAccount,
            ),
        ] {
            assert_eq!(found(status.clone(), "").unwrap_err(), wanted, "{status}");
        }
        for audiences in [json!([]), json!(["other"])] {
            let status = json!({ "authenticated": true, "user": user, "audiences": audiences });
            assert_eq!(found(status, "wanted").unwrap_err(), Failure::OtherAudience);
        }
    }
}
