//! Roles without a lease, and leases without a role.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_builtin::secrets::database::DatabaseEngine;
use leasehold_core::lease::Leases;
use leasehold_core::lease::issue::IssueRequest;
use leasehold_core::lease::reconcile::{Findings, LastTime};
use leasehold_core::mount::{Engines, MountEntry, MountTable, SystemTtls, Table};
use leasehold_core::quota::leases::LeaseCounts;
use leasehold_core::seams::engine::{EngineError, KnownTarget, OrphanEnd, OwnedRole, SecretsEngine};
use leasehold_core::seams::seal::SecretKey;
use leasehold_core::seams::storage::Storage;
use leasehold_core::token::store::TokenKeys;
use leasehold_core::token::{Leaseholder, TokenKind, TokenRecord, Tokens};
use leasehold_devpg::Options;
use leasehold_model::{LeaseId, MountAccessor, TokenHash, TokenId, Ttl};
use serde_json::json;

use crate::support::{Issued, MEMBER, Urandom, World, log_in, own_server};

/// On a server of its own: the mark is the same in all tests.
async fn world() -> World {
    let world = World::on(Arc::new(own_server(Options::default())));
    world.connect("pg", json!({})).await;
    world.role("readonly", MEMBER, json!({})).await;
    world
}

async fn targets(world: &World) -> Vec<KnownTarget> {
    world.engine.targets(&world.context).await.unwrap()
}

async fn owned(world: &World) -> Vec<OwnedRole> {
    world.engine.owned_roles(&world.context, &targets(world).await[0]).await.unwrap()
}

async fn drop_orphan(world: &World, role: &OwnedRole) -> Result<OrphanEnd, EngineError> {
    world.engine.drop_orphan(&world.context, &targets(world).await[0], role).await
}

fn role(world: &World, issued: &Issued) -> OwnedRole {
    let (name, lease) = (issued.username.clone(), issued.intent.id.random().to_owned());
    OwnedRole { id: number(world, &name), name, lease }
}

fn number(world: &World, name: &str) -> String {
    let oid = world.pg.psql(&format!("SELECT oid FROM pg_roles WHERE rolname = '{name}'")).unwrap();
    assert!(!oid.is_empty(), "{name} does not stand");
    oid
}

#[tokio::test]
async fn targets_are_the_connections_with_what_they_say_of_orphans() {
    let world = world().await;
    world.connect("second", json!({ "drop_orphans": true })).await;
    world.connect("third", json!({ "drop_orphans": "true" })).await;
    world.write("config/third", json!({ "drop_orphans": false })).await.unwrap();
    let found: Vec<_> =
        targets(&world).await.into_iter().map(|one| (one.connection, one.name, one.drops_orphans)).collect();
    let one = |name: &str, drops| (format!("database_0a1b2c3d/{name}"), name.to_owned(), drops);
    assert_eq!(found, [one("pg", false), one("second", true), one("third", false)]);
    assert_eq!(world.read("config/second").await.unwrap()["connection_details"]["drop_orphans"], json!(true));
}

#[tokio::test]
async fn every_role_carries_the_mark_of_its_lease_and_no_other_role_does() {
    let world = world().await;
    let issued = [world.issue("readonly").await, world.issue("readonly").await];
    let mut made: Vec<_> = issued.iter().map(|issued| role(&world, issued)).collect();
    made.sort();
    world.pg.psql("CREATE ROLE by_hand; CREATE ROLE foreign_one").unwrap();
    world.pg.psql("COMMENT ON ROLE foreign_one IS 'leasehold:another-installation:abc'").unwrap();
    let mut found = owned(&world).await;
    found.sort();
    assert_eq!(found, made);
}

#[tokio::test]
async fn a_role_without_a_lease_is_dropped_as_by_default_whatever_its_revocation_was() {
    let world = world().await;
    let owner = format!("{MEMBER} GRANT CREATE ON SCHEMA public TO \"{{{{name}}}}\";");
    let more = json!({ "revocation_statements": "SELECT no_such_function()" });
    world.role("owner", &owner, more).await;
    let issued = world.issue("owner").await;
    let session = world.log_in(&issued).await.unwrap();
    session.batch_execute("CREATE TABLE left_behind (x int)").await.unwrap();

    let lost = role(&world, &issued);
    assert_eq!(drop_orphan(&world, &lost).await.unwrap(), OrphanEnd::Gone);
    assert!(!world.role_exists(&issued.username));
    assert!(session.simple_query("SELECT 1").await.is_err(), "its session has ended");
    let owner = world.pg.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'left_behind'").unwrap();
    assert_eq!(owner, format!("leasehold_orphaned_{}", lost.lease), "of which role it was nobody knows");
    assert_eq!(drop_orphan(&world, &lost).await.unwrap(), OrphanEnd::Gone);
}

/// The way of a role that has a session and owns something: whoever comes by its name between two steps keeps what he has.
#[tokio::test]
async fn every_step_that_acts_on_an_orphan_by_name_first_makes_sure_of_its_number() {
    let world = World::on(Arc::new(own_server(Options { log_statements: true, ..Options::default() })));
    world.connect("pg", json!({})).await;
    world.role("owner", &format!("{MEMBER} GRANT CREATE ON SCHEMA public TO \"{{{{name}}}}\";"), json!({})).await;
    let issued = world.issue("owner").await;
    let session = world.log_in(&issued).await.unwrap();
    session.batch_execute("CREATE TABLE left_behind (x int)").await.unwrap();
    let lost = role(&world, &issued);
    let before = world.pg.log().unwrap().len();
    assert_eq!(drop_orphan(&world, &lost).await.unwrap(), OrphanEnd::Gone);

    let log = world.pg.log().unwrap();
    let messages: Vec<&str> = log[before..].split("statement: ").skip(1).collect();
    let (check, name) = (format!("r.oid = {} AND", lost.id), format!("\"{}\"", lost.name));
    // Within a transaction that is not ended with its message, the check at its beginning counts for all of it.
    let mut checked = false;
    let mut acts = Vec::new();
    for message in messages {
        checked = message.contains(&check) || checked && !message.starts_with("COMMIT");
        for act in ["GRANT ", "REASSIGN OWNED BY ", "DROP OWNED BY ", "DROP ROLE IF EXISTS "] {
            if message.contains(&format!("{act}{name}")) {
                assert!(checked, "{message}");
                acts.push(act.trim_end());
            }
        }
        checked &= message.starts_with("BEGIN") || !message.contains(&check);
    }
    assert_eq!(acts, ["GRANT", "REASSIGN OWNED BY", "DROP OWNED BY", "DROP ROLE IF EXISTS"]);
}

#[tokio::test]
async fn a_role_whose_comment_was_taken_off_or_changed_stays() {
    let world = world().await;
    let (bare, other) = (world.issue("readonly").await, world.issue("readonly").await);
    world.pg.psql(&format!("COMMENT ON ROLE \"{}\" IS NULL", bare.username)).unwrap();
    world.pg.psql(&format!("COMMENT ON ROLE \"{}\" IS 'keep this one'", other.username)).unwrap();
    assert!(owned(&world).await.is_empty());
    for issued in [&bare, &other] {
        assert_eq!(drop_orphan(&world, &role(&world, issued)).await.unwrap(), OrphanEnd::Kept);
        world.log_in(issued).await.unwrap();
    }
}

#[tokio::test]
async fn a_role_made_anew_under_the_name_of_an_orphan_stays() {
    let world = world().await;
    let issued = world.issue("readonly").await;
    let (name, lost) = (issued.username.as_str(), role(&world, &issued));
    let comment = format!("leasehold:{}:{}", world.context.mount.installation, lost.lease);
    let anew = format!("DROP ROLE \"{name}\"; CREATE ROLE \"{name}\" LOGIN; COMMENT ON ROLE \"{name}\" IS '{comment}'");
    // By the admin: from PostgreSQL 16 on it may drop only what it made.
    let admin = log_in(&world.pg, world.pg.admin_user(), world.pg.admin_password(), "myapp").await.unwrap();
    admin.batch_execute(&anew).await.unwrap();
    let owning = format!("CREATE TABLE of_another (x int); ALTER TABLE of_another OWNER TO \"{name}\"");
    world.pg.psql(&owning).unwrap();
    assert_eq!(drop_orphan(&world, &lost).await.unwrap(), OrphanEnd::Kept);
    let kept = format!(
        "SELECT rolcanlogin, tableowner = rolname FROM pg_roles, pg_tables WHERE rolname = '{name}' AND tablename = 'of_another'"
    );
    assert_eq!(world.pg.psql(&kept).unwrap(), "t|t", "nothing was done to it");
    // By its own number it goes, what it owns first.
    let found = owned(&world).await;
    assert_ne!(found, [lost]);
    assert_eq!(drop_orphan(&world, &found[0]).await.unwrap(), OrphanEnd::Gone);
}

/// Somebody makes it anew just when it is dropped: after we have looked, before we act.
#[tokio::test]
async fn a_role_that_is_made_anew_while_it_is_dropped_stays() {
    let world = world().await;
    let issued = world.issue("readonly").await;
    let (name, lost) = (issued.username.clone(), role(&world, &issued));
    let comment = format!("leasehold:{}:{}", world.context.mount.installation, lost.lease);
    let anew = format!(
        "BEGIN; DROP ROLE \"{name}\"; CREATE ROLE \"{name}\" LOGIN; COMMENT ON ROLE \"{name}\" IS '{comment}'; \
         SELECT pg_sleep(1); COMMIT"
    );
    let pg = world.pg.clone();
    let other = tokio::task::spawn_blocking(move || pg.psql(&anew).unwrap());
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND wait_event = 'PgSleep'";
    while world.pg.psql(waits).unwrap() == "0" {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let dropped = drop_orphan(&world, &lost).await;
    other.await.unwrap();
    assert!(!matches!(dropped, Ok(OrphanEnd::Gone)), "{dropped:?}");
    assert!(world.role_exists(&name));
    assert_ne!(number(&world, &name), lost.id);
}

#[tokio::test]
async fn the_connections_own_user_is_never_dropped() {
    let world = world().await;
    let admin = world.pg.admin_user().to_owned();
    let mark = format!("leasehold:{}:x", world.context.mount.installation);
    world.pg.psql(&format!("COMMENT ON ROLE \"{admin}\" IS '{mark}'")).unwrap();
    let orphan = OwnedRole { id: number(&world, &admin), name: admin.clone(), lease: "x".to_owned() };
    assert_eq!(owned(&world).await, std::slice::from_ref(&orphan));
    assert!(matches!(drop_orphan(&world, &orphan).await, Err(EngineError::Failed(_))));
    world.issue("readonly").await;
}

/// Leases over the storage of a world, with an engine of its own.
struct Server {
    leases: Leases,
    mounts: Arc<MountTable>,
    token: TokenHash,
}

impl Server {
    async fn over(world: &World) -> Self {
        let storage: Arc<dyn Storage> = world.store.clone();
        let (clock, templates) = (world.context.clock.clone(), world.context.templates.clone());
        let view = &world.context.mount;
        let mounts = Arc::new(MountTable::load(storage.clone(), &Urandom).await.unwrap());
        let entry = MountEntry::new(Table::Mount, view.path.clone(), "database", &Urandom);
        mounts.add(MountEntry { accessor: view.accessor.clone(), ..entry }).await.unwrap();
        let tokens = Arc::new(Tokens::new(
            storage.clone(),
            clock.clone(),
            Arc::new(Urandom),
            &TokenKeys { hash: SecretKey(Default::default()), batch: SecretKey(Default::default()) },
            MountAccessor::new("auth_token_1"),
        ));
        let record = TokenRecord {
            kind: TokenKind::Service,
            accessor: tokens.new_accessor(),
            parent: None,
            policies: vec!["default".to_owned()],
            path: "auth/token/create".to_owned(),
            display_name: "token".to_owned(),
            meta: None,
            num_uses: 0,
            creation_uses: 0,
            created_at: clock.now(),
            creation_ttl: Ttl::ZERO,
            explicit_max_ttl: Ttl::ZERO,
            period: Ttl::ZERO,
            renewable: true,
            expires_at: None,
            last_renewed_at: None,
            renewed_ttl: None,
            agreed_end: None,
            mount: None,
            bound_cidrs: Vec::new(),
            role: None,
            wraps: None,
            entity: None,
            login: None,
        };
        let token = tokens.insert(&TokenId::new("t"), &record).await.unwrap();
        let engines = Engines {
            kinds: BTreeMap::from([("database", Arc::new(DatabaseEngine::new()) as Arc<dyn SecretsEngine>)]),
            mounts: mounts.clone(),
            leases: LeaseCounts::new(storage.clone(), storage.clone(), clock.clone(), Arc::new(Urandom)),
            storage: storage.clone(),
            clock,
            entropy: Arc::new(Urandom),
            templates,
            installation: view.installation.clone(),
            ttls: SystemTtls { default_lease_ttl: view.default_lease_ttl, max_lease_ttl: view.max_lease_ttl },
        };
        Self { leases: Leases::new(storage, tokens, Arc::new(engines)), mounts, token }
    }

    async fn issue(&self, world: &World) -> LeaseId {
        let plan = world.plan("readonly").await.unwrap();
        let mount = self.mounts.by_path("database/").unwrap();
        let path = "database/creds/readonly";
        let order = IssueRequest {
            path,
            holder: Leaseholder::Service(&self.token),
            entity: None,
            mount: &mount,
            plan,
            ceiling: None,
        };
        self.leases.issue(order).await.unwrap().lease.id
    }
}

#[tokio::test]
async fn the_lease_room_finds_both_kinds_and_drops_one_when_it_may() {
    let world = world().await;
    let server = Server::over(&world).await;
    let mut last = LastTime::default();
    let (kept, missing) = (server.issue(&world).await, server.issue(&world).await);
    assert_eq!(server.leases.compare(&mut last).await.unwrap(), Findings::default());

    // No row names this one, as after the storage was restored from an old copy.
    let lost = world.issue("readonly").await;
    world.pg.psql(&format!("DROP ROLE \"{}\"", name_of(&world, &missing).await)).unwrap();
    let orphan = role(&world, &lost);
    let both = Findings { orphans: vec![orphan.clone()], missing: vec![missing.clone()], dropped: Vec::new() };
    for _ in 0..2 {
        assert_eq!(server.leases.compare(&mut last).await.unwrap(), both);
    }
    world.write("config/pg", json!({ "drop_orphans": true })).await.unwrap();
    let dropped = Findings { orphans: Vec::new(), missing: vec![missing], dropped: vec![orphan] };
    assert_eq!(server.leases.compare(&mut last).await.unwrap(), dropped);
    assert!(!world.role_exists(&lost.username) && world.role_exists(&name_of(&world, &kept).await));
}

/// A role that our user may not comment on is known by its name, and what makes no role misses none.
#[tokio::test]
async fn a_lease_whose_role_carries_no_mark_is_not_reported_as_missing() {
    let world = world().await;
    let server = Server::over(&world).await;
    let (unmarked, missing) = (server.issue(&world).await, server.issue(&world).await);
    let name = name_of(&world, &unmarked).await;
    world
        .pg
        .psql(&format!("COMMENT ON ROLE \"{name}\" IS NULL; DROP ROLE \"{}\"", name_of(&world, &missing).await))
        .unwrap();
    world.role("readonly", "SELECT '{{name}}'", json!({})).await;
    server.issue(&world).await;
    let found = server.leases.compare(&mut LastTime::default()).await.unwrap();
    assert_eq!(found, Findings { missing: vec![missing], ..Findings::default() });
}

async fn name_of(world: &World, id: &LeaseId) -> String {
    owned(world).await.into_iter().find(|role| role.lease == id.random()).expect("its role stands").name
}
