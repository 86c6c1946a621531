//! kubernetes: pods log in, and a cluster's API server says whether their tokens are good.

use serde_json::{Value, json};

use super::auth::enable;
use crate::support::{Answer, Asked, Bao, Durable, Provider, Server, Signer, certificate, eventually, now};

/// An API server that knows the pods of one signer.
pub(crate) struct Cluster {
    server: Provider,
    pods: Signer,
}

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

impl Cluster {
    pub(crate) fn start() -> Self {
        let (server, pods) = (Provider::http(), Signer::new());
        let cluster = Self { server, pods };
        cluster.reviews(&json!({ "authenticated": true }), None);
        cluster
    }

    /// Reviews say what stands in `status`, and the account that the token names; `uid` stands for the account's own.
    fn reviews(&self, status: &Value, uid: Option<&'static str>) {
        let status = status.clone();
        self.server.answers(move |asked: &Asked| {
            if asked.path != REVIEWS {
                return (404, String::new());
            }
            let review: Value = serde_json::from_str(&asked.body).unwrap();
            let account = named(review["spec"]["token"].as_str().unwrap());
            let mut status = status.clone();
            status["user"] = json!({
                "username": format!("system:serviceaccount:{}:{}", account["namespace"].as_str().unwrap(), account["serviceaccount"]["name"].as_str().unwrap()),
                "uid": uid.map_or(account["serviceaccount"]["uid"].clone(), |uid| json!(uid)),
                "groups": ["system:serviceaccounts", "system:authenticated"],
            });
            if let Some(audiences) = review["spec"].get("audiences") {
                status["audiences"] = if status["audiences"].is_null() { audiences.clone() } else { status["audiences"].clone() };
            }
            (201, json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status }).to_string())
        });
    }

    pub(crate) fn token(&self, namespace: &str, name: &str) -> String {
        self.pods.token(Some("k"), &claims(namespace, name))
    }
}

fn claims(namespace: &str, name: &str) -> Value {
    json!({
        "iss": "https://kubernetes.default.svc", "sub": format!("system:serviceaccount:{namespace}:{name}"), "aud": ["leasehold"],
        "iat": now(), "nbf": now(), "exp": now() + 600,
        "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name, "uid": format!("uid-of-{name}") } },
    })
}

fn named(token: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let content = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&content).unwrap()["kubernetes.io"].clone()
}

pub(crate) fn configure(server: &Server, cluster: &Cluster, changes: Value) {
    // OpenBao asks for a certificate although nothing is encrypted.
    let mut body = json!({ "kubernetes_host": cluster.server.url(), "disable_local_ca_jwt": true, "kubernetes_ca_cert": any_certificate() });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.root().post("auth/kubernetes/config", body).assert_status(204);
}

pub(crate) fn role(server: &Server, name: &str, changes: Value) {
    let mut body = json!({
        "bound_service_account_names": "app-*", "bound_service_account_namespaces": "shop", "token_policies": "apps", "audience": "leasehold",
    });
    for (field, value) in changes.as_object().unwrap() {
        body[field] = value.clone();
    }
    let written = server.root().post(&format!("auth/kubernetes/role/{name}"), body);
    assert!(matches!(written.status, 200 | 204), "{written}");
}

fn log_in(server: &Server, role: &str, token: &str) -> Answer {
    server.secrets().tell(token);
    server.nobody().post("auth/kubernetes/login", json!({ "role": role, "jwt": token }))
}

fn mounted() -> Server {
    let server = Server::dev();
    enable(&server, "kubernetes", "kubernetes");
    server
}

#[test]
fn a_pod_logs_in_when_the_cluster_vouches_for_it() {
    logins(&mounted());
}

#[test]
fn a_pod_logs_in_at_a_real_openbao_alike() {
    let Some(bao) = Bao::find("logins of kubernetes, against a real OpenBao") else { return };
    let server = Server::openbao(&bao);
    enable(&server, "kubernetes", "kubernetes");
    logins(&server);
}

fn logins(server: &Server) {
    let cluster = Cluster::start();
    configure(server, &cluster, json!({ "token_reviewer_jwt": "the-token-of-the-reviewer" }));
    server.secrets().tell("the-token-of-the-reviewer");
    role(server, "r", json!({ "token_ttl": "1h" }));
    let answer = log_in(server, "r", &cluster.token("shop", "app-1"))
        .assert_status(200)
        .assert_at("/auth/policies", json!(["apps", "default"]))
        .assert_at("/auth/lease_duration", 3600)
        .assert_at("/auth/orphan", true)
        .assert_at("/auth/metadata/role", "r")
        .assert_at("/auth/metadata/service_account_name", "app-1")
        .assert_at("/auth/metadata/service_account_namespace", "shop")
        .assert_at("/auth/metadata/service_account_uid", "uid-of-app-1");
    let pod = server.as_token(&answer.text("/auth/client_token"));
    pod.get("auth/token/lookup-self").assert_at("/data/display_name", "kubernetes-shop-app-1");
    pod.post("auth/token/renew-self", json!({})).assert_status(200);
    let asked = cluster.server.asked().last().unwrap().clone();
    assert_eq!(asked.headers.get("authorization").map(String::as_str), Some("Bearer the-token-of-the-reviewer"));
    let review: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(review["spec"]["audiences"], json!(["leasehold"]), "{review}");

    for (namespace, name) in [("shop", "other"), ("other", "app-1"), ("shop", "App-1"), ("app-1", "shop")] {
        assert_ne!(log_in(server, "r", &cluster.token(namespace, name)).status, 200, "{namespace} {name}");
    }
    let mut old = claims("shop", "app-1");
    old["exp"] = json!(now() - 600);
    assert_eq!(log_in(server, "r", &cluster.pods.token(None, &old)).status, 403);
    for (what, status, uid) in [
        ("not authenticated", json!({ "authenticated": false }), None),
        ("an error", json!({ "authenticated": false, "error": "token has been invalidated" }), None),
        ("another account of the same name", json!({ "authenticated": true }), Some("uid-of-the-next-one")),
    ] {
        cluster.reviews(&status, uid);
        let refused = log_in(server, "r", &cluster.token("shop", "app-1"));
        assert_ne!(refused.status, 200, "{what}: {refused}");
    }
    cluster.reviews(&json!({ "authenticated": true }), None);
    log_in(server, "r", &cluster.token("shop", "app-2")).assert_status(200);
    server.nobody().post("auth/kubernetes/login", json!({ "role": "r" })).assert_error(400, "missing jwt");
    server.nobody().post("auth/kubernetes/login", json!({ "jwt": "x" })).assert_error(400, "missing role");
}

#[test]
fn all_refusals_read_alike_and_no_secret_of_the_cluster_is_shown() {
    let server = Server::durable(&Durable::default());
    enable(&server, "kubernetes", "kubernetes");
    let cluster = Cluster::start();
    let options = json!({ "type": "file", "options": { "file_path": server.home().join("audit/log") } });
    server.root().put("sys/audit/file", options).assert_status(204);
    // Told to the plumbing, which looks for it in the log when the server goes.
    let secret = "the-token-of-the-reviewer";
    server.secrets().tell(secret);
    configure(&server, &cluster, json!({ "token_reviewer_jwt": secret }));
    let read =
        server.root().get("auth/kubernetes/config").assert_status(200).assert_at("/data/token_reviewer_jwt_set", true);
    assert!(!read.body.contains(secret), "{read}");
    role(&server, "r", json!({}));
    for (role, token, reason) in [
        ("r", "a.b.c".to_owned(), "no signed token"),
        ("r", cluster.pods.token(None, &json!({ "exp": now() + 60 })), "of no service account"),
        ("r", cluster.token("other", "app-1"), "namespace not authorized"),
        ("r", cluster.token("shop", "other"), "service account name not authorized"),
        ("nope", cluster.token("shop", "app-1"), "no role has this name"),
    ] {
        log_in(&server, role, &token).assert_error(403, "permission denied");
        let audit = server.audit_text();
        assert!(audit.contains(reason), "{reason}\n{audit}");
        assert!(!audit.contains(&token) && !audit.contains(secret), "{audit}");
    }
    // The cluster is asked for a role that is not there as well, so that time tells nothing.
    let before = cluster.server.asked().len();
    log_in(&server, "nope", &cluster.token("shop", "app-1")).assert_status(403);
    assert_eq!(cluster.server.asked().len(), before + 1);
    // And it is not asked about what can be no token of its own.
    log_in(&server, "r", "a.b.c").assert_status(403);
    assert_eq!(cluster.server.asked().len(), before + 1);
}

#[test]
fn a_cluster_that_ignores_audiences_vouches_for_none() {
    let server = mounted();
    let cluster = Cluster::start();
    configure(&server, &cluster, json!({}));
    role(&server, "r", json!({}));
    for audiences in [json!([]), json!(["https://kubernetes.default.svc"])] {
        cluster.reviews(&json!({ "authenticated": true, "audiences": audiences }), None);
        log_in(&server, "r", &cluster.token("shop", "app-1")).assert_error(403, "permission denied");
    }
}

#[test]
fn keys_in_the_configuration_are_asked_before_the_cluster_and_not_in_its_place() {
    let server = mounted();
    let cluster = Cluster::start();
    configure(&server, &cluster, json!({ "pem_keys": [cluster.pods.public_pem()] }));
    role(&server, "r", json!({}));
    let token = cluster.token("shop", "app-1");
    log_in(&server, "r", &token).assert_status(200);
    // Without a reviewer, whoever logs in asks.
    let asked = cluster.server.asked();
    assert_eq!(asked.last().unwrap().headers.get("authorization"), Some(&format!("Bearer {token}")));
    let forged = Signer::new().token(Some("k"), &claims("shop", "app-1"));
    log_in(&server, "r", &forged).assert_error(403, "permission denied");
    assert_eq!(cluster.server.asked().len(), asked.len(), "the cluster is spared");
    cluster.reviews(&json!({ "authenticated": false }), None);
    log_in(&server, "r", &token).assert_error(403, "permission denied");
    cluster.server.is_down(true);
    log_in(&server, "r", &token).assert_error_has(503, "cannot be asked at the moment");
    cluster.server.is_down(false);
    cluster.server.says(REVIEWS, 403, &json!({ "message": "canary-of-the-cluster" }));
    let refused = log_in(&server, "r", &token).assert_error(403, "permission denied");
    assert!(!refused.body.contains("canary") && !server.log().contains("canary"));
    cluster.server.says(REVIEWS, 201, &json!("canary-of-the-cluster"));
    log_in(&server, "r", &token).assert_status(503);
    cluster.server.says(REVIEWS, 500, &json!({}));
    log_in(&server, "r", &token).assert_status(503);
}

#[test]
fn configurations_and_roles_are_written_read_listed_and_deleted() {
    written(&mounted());
}

#[test]
fn configurations_and_roles_of_a_real_openbao_are_the_same() {
    let Some(bao) = Bao::find("configurations and roles of kubernetes, against a real OpenBao") else { return };
    let server = Server::openbao(&bao);
    enable(&server, "kubernetes", "kubernetes");
    written(&server);
}

fn written(server: &Server) {
    let root = server.root();
    root.get("auth/kubernetes/config").assert_errors(404, &[]);
    for (body, why) in [
        (json!({}), "no host provided"),
        (
            json!({ "kubernetes_host": "https://127.0.0.1:1", "disable_local_ca_jwt": true }),
            "kubernetes_ca_cert must be given when disable_local_ca_jwt is true",
        ),
        (json!({ "kubernetes_host": "https://127.0.0.1:1" }), "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
    ] {
        root.post("auth/kubernetes/config", body).assert_error_has(400, why);
    }
    let body = json!({ "kubernetes_host": "https://127.0.0.1:1", "kubernetes_ca_cert": any_certificate() });
    root.post("auth/kubernetes/config", body).assert_status(204);
    root.get("auth/kubernetes/config")
        .assert_status(200)
        .assert_at("/data/disable_iss_validation", true)
        .assert_at("/data/disable_local_ca_jwt", false)
        .assert_at("/data/issuer", "")
        .assert_at("/data/kubernetes_host", "https://127.0.0.1:1")
        .assert_at("/data/pem_keys", json!([]))
        .assert_at("/data/token_reviewer_jwt_set", false);
    root.list("auth/kubernetes/role").assert_errors(404, &[]);
    for (body, why) in [
        (json!({}), "\"bound_service_account_names\" can not be empty"),
        (
            json!({ "bound_service_account_names": "a" }),
            "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is not set",
        ),
        (
            json!({ "bound_service_account_names": "*,a", "bound_service_account_namespaces": "b" }),
            "can not mix \"*\" with values",
        ),
        (
            json!({ "bound_service_account_names": "a", "bound_service_account_namespaces": "b", "alias_name_source": "x" }),
            "invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name",
        ),
    ] {
        root.post("auth/kubernetes/role/r", body).assert_error(400, why);
    }
    role(server, "R", json!({ "token_ttl": 60, "audience": "a" }));
    root.get("auth/kubernetes/role/r")
        .assert_status(200)
        .assert_at("/data/alias_name_source", "serviceaccount_uid")
        .assert_at("/data/audience", "a")
        .assert_at("/data/bound_service_account_names", json!(["app-*"]))
        .assert_at("/data/bound_service_account_namespaces", json!(["shop"]))
        .assert_at("/data/token_ttl", 60);
    root.list("auth/kubernetes/role").assert_at("/data/keys", json!(["r"]));
    root.delete("auth/kubernetes/role/r").assert_status(204);
    root.get("auth/kubernetes/role/r").assert_errors(404, &[]);
}

#[test]
fn a_pod_logs_in_on_the_command_line() {
    let server = mounted();
    let cluster = Cluster::start();
    configure(&server, &cluster, json!({}));
    role(&server, "r", json!({}));
    let token = cluster.token("shop", "app-1");
    server.secrets().tell(&token);
    let person = server.cli().without_token();
    std::fs::write(person.home().join("pod.jwt"), format!("{token}\n")).unwrap();
    person
        .line("login -method=kubernetes role=r jwt=@pod.jwt")
        .assert_status(0)
        .assert_stdout("token_meta_service_account_name");
    server.cli().line("auth help kubernetes").assert_status(0).assert_stdout("login -method=kubernetes");
}

#[test]
fn what_a_pod_was_given_ends_with_the_mount() {
    let server = mounted();
    let cluster = Cluster::start();
    configure(&server, &cluster, json!({}));
    role(&server, "r", json!({}));
    role(&server, "batch", json!({ "token_type": "batch" }));
    role(&server, "far", json!({ "token_bound_cidrs": "10.0.0.0/8" }));
    log_in(&server, "far", &cluster.token("shop", "app-1")).assert_error(403, "permission denied");
    let pods: Vec<_> = ["r", "batch"]
        .iter()
        .map(|role| {
            log_in(&server, role, &cluster.token("shop", "app-1")).assert_status(200).text("/auth/client_token")
        })
        .map(|token| server.as_token(&token))
        .collect();
    server.root().delete("auth/kubernetes/role/r").assert_status(204);
    pods[0].post("auth/token/renew-self", json!({})).assert_error_has(500, "does not exist during renewal");
    server.root().delete("sys/auth/kubernetes").assert_status(204);
    for pod in &pods {
        pod.get("auth/token/lookup-self").assert_error(403, "permission denied");
    }
    eventually("nothing is left of the mount", || server.root().get("sys/auth/kubernetes").status == 400);
}

/// Signs nothing that these tests look at: an API server that is given one must be there in the configuration.
fn any_certificate() -> String {
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::read_to_string(certificate(folder.path(), "cluster")).unwrap()
}
