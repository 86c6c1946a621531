//! What most chapters begin with: the database engine mounted, connected and with a role.

use serde_json::{Value, json};

use super::{Answer, Client, Database, Server, Session};

/// Two statements, with a name of the leased role and nothing granted to it.
pub const CREATE_IN_GROUP: &str =
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;";

/// One leased credential.
#[derive(Clone, Debug)]
pub struct Credential {
    pub lease: String,
    pub user: String,
    pub password: String,
    pub ttl: i64,
}

impl Credential {
    #[track_caller]
    pub fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer}");
        Self {
            lease: answer.text("/lease_id"),
            user: answer.text("/data/username"),
            password: answer.text("/data/password"),
            ttl: answer.number("/lease_duration"),
        }
    }

    #[track_caller]
    pub fn login(&self, database: &Database<'_>) -> Session {
        database.login(&self.user, &self.password).unwrap_or_else(|error| panic!("`{}`: {error}", self.user))
    }
}

impl Server {
    /// Mounts `database/` and configures the connection `pg` to this database.
    #[track_caller]
    pub fn connect(&self, database: &Database<'_>) {
        self.root().post("sys/mounts/database", json!({ "type": "database" })).assert_status(204);
        self.root().post("database/config/pg", database.config()).assert_status(204);
    }

    /// Writes a role of the connection `pg`; `changes` replace or add keys.
    #[track_caller]
    pub fn role(&self, name: &str, changes: Value) -> Answer {
        let mut role = json!({
            "db_name": "pg", "creation_statements": CREATE_IN_GROUP, "default_ttl": "1h", "max_ttl": "24h",
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            role[key] = value.clone();
        }
        let answer = self.root().post(&format!("database/roles/{name}"), role);
        assert!(matches!(answer.status, 200 | 204), "{answer}");
        answer
    }
}

impl Client {
    /// Reads a credential of this role.
    #[track_caller]
    pub fn credential(&self, role: &str) -> Credential {
        Credential::of(&self.get(&format!("database/creds/{role}")))
    }

    /// A child token, as it comes back from `auth/token/create` with this body.
    #[track_caller]
    pub fn child(&self, body: Value) -> String {
        self.post("auth/token/create", body).assert_status(200).text("/auth/client_token")
    }

    /// Whether the server still knows the lease.
    #[track_caller]
    pub fn has_lease(&self, lease: &str) -> bool {
        self.put("sys/leases/lookup", json!({ "lease_id": lease })).status == 200
    }
}
