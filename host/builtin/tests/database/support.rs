//! The engine with a memory store, a clock that stands still, and the template guest's own logic behind its seam.

use std::io::Read as _;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::fields::Fields;
use leasehold_core::passwords::PasswordPolicies;
use leasehold_core::request::{LogicalResponse, Object};
use leasehold_core::routes;
use leasehold_core::seams::engine::*;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::host::*;
use leasehold_core::seams::mount_leases::{MountLeases, NotCommitted, PathLimit, Standing};
use leasehold_core::seams::mount_storage::MountStorage;
use leasehold_core::seams::sandbox::*;
use leasehold_core::seams::storage::{Batch, Storage as _, StorageError};
use leasehold_core::testing::ManualClock;
use leasehold_devpg::{DevPg, Options};
use leasehold_model::{MountAccessor, Operation, Timestamp, Ttl};
use leasehold_statements as guest;
use leasehold_storage::MemoryStorage;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_postgres::NoTls;

/// Rights by membership: the shape that scales.
pub const MEMBER: &str =
    r#"CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;"#;

/// A server that tests share; they use names of their own.
pub fn shared_server() -> Arc<DevPg> {
    static SERVER: OnceLock<Arc<DevPg>> = OnceLock::new();
    Arc::clone(SERVER.get_or_init(|| Arc::new(own_server(Options { max_connections: 200, ..Options::default() }))))
}

pub fn own_server(options: Options) -> DevPg {
    DevPg::start(options).unwrap()
}

pub struct World {
    pub pg: Arc<DevPg>,
    pub engine: DatabaseEngine,
    pub context: EngineContext,
    /// What the context's corner lies in.
    pub store: Arc<MemoryStorage>,
    /// What stands on each of its connections.
    pub standing: Arc<ScriptedLeases>,
    /// Whether the requests come from somebody with `sudo` on their paths.
    pub has_sudo: AtomicBool,
}

/// A lease as the lease module would hold it.
pub struct Issued {
    pub intent: LeaseIntent,
    pub username: String,
    pub password: String,
}

impl World {
    /// With the shared server as connection `pg`, open to all roles.
    pub async fn new() -> Self {
        let world = Self::on(shared_server());
        world.connect("pg", json!({})).await;
        world
    }

    pub fn on(pg: Arc<DevPg>) -> Self {
        let now: i64 = pg.psql("SELECT extract(epoch FROM now())::bigint").unwrap().parse().unwrap();
        let clock = Arc::new(ManualClock::at(now));
        let accessor = MountAccessor::new("database_0a1b2c3d");
        let store = Arc::new(MemoryStorage::new(clock.clone()));
        let storage = MountStorage::new(store.clone(), accessor.clone());
        let standing = Arc::new(ScriptedLeases {
            store: store.clone(),
            leases: AtomicUsize::new(0),
            limits: Mutex::default(),
            stops: AtomicBool::new(false),
            stopped: Notify::new(),
            goes_on: Notify::new(),
        });
        let context = EngineContext {
            storage,
            leases: standing.clone(),
            clock,
            entropy: Arc::new(Urandom),
            passwords: PasswordPolicies::new(store.clone(), Arc::new(Urandom)),
            templates: Arc::new(NativeTemplates),
            mount: MountView {
                path: "database/".parse().unwrap(),
                accessor,
                default_lease_ttl: Ttl::from_secs(2_764_800),
                max_lease_ttl: Ttl::from_secs(2_764_800),
                options: std::collections::BTreeMap::new(),
                installation: "test-installation".to_owned(),
            },
        };
        Self { pg, engine: DatabaseEngine::new(), context, store, standing, has_sudo: AtomicBool::new(false) }
    }

    /// Configures a connection to this world's server as the non-superuser admin.
    pub async fn connect(&self, name: &str, more: Value) {
        let mut body = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": self.pg.templated_url(),
            "username": self.pg.admin_user(),
            "password": self.pg.admin_password(),
        });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.write(&format!("config/{name}"), body).await.unwrap();
    }

    pub async fn role(&self, name: &str, creation: &str, more: Value) {
        let mut body =
            json!({ "db_name": "pg", "creation_statements": creation, "default_ttl": "1h", "max_ttl": "24h" });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.write(&format!("roles/{name}"), body).await.unwrap();
    }

    async fn handle(&self, operation: Operation, path: &str, data: Value) -> Result<Outcome, RequestError> {
        self.ask(&self.engine, &self.context, operation, path, data).await
    }

    /// On another server, with a context of its own.
    async fn ask(
        &self,
        engine: &DatabaseEngine,
        context: &EngineContext,
        operation: Operation,
        path: &str,
        data: Value,
    ) -> Result<Outcome, RequestError> {
        let found = routes::find(engine.routes(), path, operation).ok_or(RequestError::UnsupportedPath)?;
        let op = found.op.ok_or(RequestError::UnsupportedOperation)?;
        let data: Object = data.as_object().cloned().unwrap_or_default();
        let fields = Fields::coerce(op.fields, &data).map_err(|error| RequestError::Invalid(error.to_string()))?;
        let request = EngineRequest {
            context: context.clone(),
            operation,
            path: format!("database/{path}"),
            captures: found.captures,
            fields,
            display_name: "token".to_owned(),
            has_sudo: self.has_sudo.load(Ordering::Relaxed),
        };
        (op.handler)(engine, &request).await
    }

    /// A write without fields, on another server.
    pub async fn handle_on(
        &self,
        engine: &DatabaseEngine,
        context: &EngineContext,
        path: &str,
    ) -> Result<LogicalResponse, RequestError> {
        self.send_on(engine, context, path, json!({})).await
    }

    pub async fn send_on(
        &self,
        engine: &DatabaseEngine,
        context: &EngineContext,
        path: &str,
        body: Value,
    ) -> Result<LogicalResponse, RequestError> {
        Ok(answered(path, self.ask(engine, context, Operation::Update, path, body).await?))
    }

    pub async fn read_on(&self, engine: &DatabaseEngine, path: &str) -> Result<Value, RequestError> {
        let outcome = self.ask(engine, &self.context, Operation::Read, path, json!({})).await?;
        Ok(Value::Object(answered(path, outcome).data.unwrap_or_default()))
    }

    pub fn clock_now(&self) -> Timestamp {
        self.context.clock.now()
    }

    pub async fn answer(&self, operation: Operation, path: &str, data: Value) -> Result<LogicalResponse, RequestError> {
        Ok(answered(path, self.handle(operation, path, data).await?))
    }

    pub async fn write(&self, path: &str, data: Value) -> Result<LogicalResponse, RequestError> {
        self.answer(Operation::Update, path, data).await
    }

    pub async fn read(&self, path: &str) -> Result<Value, RequestError> {
        let answer = self.answer(Operation::Read, path, json!({})).await?;
        Ok(Value::Object(answer.data.unwrap_or_default()))
    }

    pub async fn plan(&self, role: &str) -> Result<LeasePlan, RequestError> {
        match self.handle(Operation::Read, &format!("creds/{role}"), json!({})).await? {
            Outcome::Lease(plan) => Ok(plan),
            _ => panic!("creds made no lease"),
        }
    }

    pub fn intent(&self, role: &str, plan: &LeasePlan) -> LeaseIntent {
        let now = self.context.clock.now();
        let random = leasehold_core::random::base62(&Urandom, 24);
        LeaseIntent {
            id: format!("database/creds/{role}/{random}").parse().unwrap(),
            issued_at: now,
            expires_at: now + Ttl::from_secs(3600),
            deadline: now + Duration::from_secs(20),
            effect: plan.effect.clone(),
            receipt: Value::Null,
        }
    }

    pub async fn effect(&self, intent: LeaseIntent) -> Result<Issued, EngineError> {
        let SecretData(values) = self.engine.effect(&self.context, &intent).await?.secret;
        let (mut username, mut password) = (String::new(), String::new());
        for (name, value) in values {
            match (name.as_str(), value) {
                ("username", SecretValue::Public(value)) => username = value.as_str().unwrap().to_owned(),
                ("password", SecretValue::Secret(value)) => password = value.expose_secret().to_owned(),
                (other, _) => panic!("unexpected {other}"),
            }
        }
        Ok(Issued { intent, username, password })
    }

    pub async fn issue(&self, role: &str) -> Issued {
        let plan = self.plan(role).await.unwrap();
        self.effect(self.intent(role, &plan)).await.unwrap()
    }

    /// The text that the client would get.
    pub async fn issue_fails(&self, role: &str) -> String {
        match self.plan(role).await {
            Err(error) => error.to_string(),
            Ok(plan) => match self.effect(self.intent(role, &plan)).await {
                Err(error) => error.to_string(),
                Ok(issued) => panic!("{} was issued", issued.username),
            },
        }
    }

    pub async fn revoke(&self, issued: &Issued) -> Result<(), EngineError> {
        self.engine.revoke(&self.context, &issued.intent).await
    }

    pub async fn renew(&self, issued: &Issued, until: Timestamp) -> Result<(), EngineError> {
        self.engine.renew(&self.context, &issued.intent, until).await
    }

    /// Who inherits what leases of this role leave behind.
    pub fn heir(&self, role: &str) -> String {
        let heirs = format!("SELECT rolname FROM pg_roles WHERE rolname LIKE 'leasehold\\_orphaned\\_{role}\\_%'");
        self.pg.psql(&heirs).unwrap()
    }

    pub fn role_exists(&self, name: &str) -> bool {
        self.pg.psql(&format!("SELECT count(*) FROM pg_roles WHERE rolname = '{}'", name.replace('\'', "''"))).unwrap()
            == "1"
    }

    /// The comment on the PostgreSQL role of a lease.
    pub fn comment(&self, issued: &Issued) -> String {
        let sql =
            format!("SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{}'", issued.username);
        self.pg.psql(&sql).unwrap()
    }

    /// A session of an issued credential.
    pub async fn log_in(&self, issued: &Issued) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        log_in(&self.pg, &issued.username, &issued.password, self.pg.database()).await
    }
}

fn answered(path: &str, outcome: Outcome) -> LogicalResponse {
    match outcome {
        Outcome::Answer(answer) | Outcome::Reopened { answer, .. } => answer,
        Outcome::Job { outcome, .. } => answered(path, *outcome),
        Outcome::Lease(_) => panic!("{path} makes a lease"),
    }
}

pub async fn log_in(
    pg: &DevPg,
    user: &str,
    password: &str,
    database: &str,
) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host(pg.host())
        .port(pg.port())
        .user(user)
        .password(password)
        .dbname(database)
        .connect(NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Leases of a mount, as many as the test says: these tests keep no rows of theirs.
pub struct ScriptedLeases {
    store: Arc<MemoryStorage>,
    pub leases: AtomicUsize,
    /// What limits were set, of which paths.
    pub limits: Mutex<Vec<(String, Option<u64>)>>,
    /// The next look at leases stands still until it is let go on.
    pub stops: AtomicBool,
    pub stopped: Notify,
    pub goes_on: Notify,
}

#[async_trait]
impl MountLeases for ScriptedLeases {
    async fn standing(&self, _: &MountAccessor, _: &str) -> Result<Standing, StorageError> {
        let paths = vec!["database/creds/readonly".to_owned()];
        Ok(Standing { leases: self.leases.load(Ordering::Relaxed), has_more: false, paths })
    }

    async fn commit_with_limit(&self, _: &MountAccessor, limit: PathLimit, batch: Batch) -> Result<u64, RequestError> {
        self.store.commit(batch).await?;
        self.limits.lock().unwrap().push((limit.path, limit.max_leases.map(NonZeroU64::get)));
        Ok(self.leases.load(Ordering::Relaxed) as u64)
    }

    async fn commit_unless_standing(
        &self,
        mount: &MountAccessor,
        connection: &str,
        batch: Batch,
    ) -> Result<(), NotCommitted> {
        if self.stops.swap(false, Ordering::Relaxed) {
            self.stopped.notify_one();
            self.goes_on.notified().await;
        }
        match self.standing(mount, connection).await.unwrap() {
            standing if standing.leases > 0 => Err(NotCommitted::Standing(standing)),
            _ => self.store.commit(batch).await.map_err(NotCommitted::from),
        }
    }
}

/// Real randomness: tests share a server.
pub struct Urandom;

impl Entropy for Urandom {
    fn fill(&self, bytes: &mut [u8]) {
        std::fs::File::open("/dev/urandom").unwrap().read_exact(bytes).unwrap();
    }
}

/// The template guest without its sandbox.
struct NativeTemplates;

fn dialect_in(dialect: Dialect) -> guest::Dialect {
    match dialect {
        Dialect::Handlebars => guest::Dialect::Handlebars,
        Dialect::Plain => guest::Dialect::Plain,
    }
}

fn diagnostic(found: guest::Diagnostic) -> Diagnostic {
    Diagnostic {
        severity: match found.severity {
            guest::Severity::Warning => Severity::Warning,
            guest::Severity::Hint => Severity::Hint,
        },
        code: found.code.to_owned(),
        message: found.message,
        line: found.line,
        column: found.column,
        help: found.help,
        at: found.statement.to_string(),
    }
}

#[async_trait]
impl TemplateRenderer for NativeTemplates {
    async fn check_template(
        &self,
        statements: &[String],
        purpose: Purpose,
        wished: Dialect,
    ) -> Result<TemplateReport, SandboxError> {
        let purpose = match purpose {
            Purpose::Creation => guest::Purpose::Creation,
            Purpose::Renewal => guest::Purpose::Renewal,
            Purpose::Revocation => guest::Purpose::Revocation,
            Purpose::Rollback => guest::Purpose::Rollback,
            Purpose::Rotation => guest::Purpose::Rotation,
        };
        if statements.iter().any(|text| text.ends_with("-- endless")) {
            return Err(SandboxError::Fuel);
        }
        let report = guest::check(statements, purpose, dialect_in(wished));
        let dialect = match report.dialect {
            guest::Dialect::Handlebars => Dialect::Handlebars,
            guest::Dialect::Plain => Dialect::Plain,
        };
        Ok(TemplateReport { dialect, diagnostics: report.diagnostics.into_iter().map(diagnostic).collect() })
    }

    async fn render(
        &self,
        statements: &[String],
        dialect: Dialect,
        values: &[(&str, &str)],
    ) -> Result<Vec<String>, RenderError> {
        let values: Vec<(String, String)> =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        guest::render(statements, dialect_in(dialect), &values)
            .map_err(|found| RenderError::Refused(Box::new(diagnostic(found))))
    }

    async fn check_username(&self, template: &str) -> Result<Vec<String>, UsernameError> {
        guest::check_username(template).map_err(UsernameError::Refused)
    }

    async fn username(&self, template: &str, facts: &UsernameFacts<'_>) -> Result<String, UsernameError> {
        let now_millis = u64::try_from(facts.now.as_nanos() / 1_000_000).unwrap();
        let UsernameFacts { display_name, role_name, randomness, .. } = *facts;
        let facts = guest::UsernameFacts { display_name, role_name, now_millis, randomness };
        guest::username(template, &facts).map_err(UsernameError::Refused)
    }

    fn digest(&self) -> Digest {
        Digest("native".to_owned())
    }
}
