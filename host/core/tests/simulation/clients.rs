//! What clients do, and what they hold servers to.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::seams::error::RequestError;
use leasehold_model::{LeaseId, Operation, TokenId};
use serde_json::{Value, json};

use super::model::Met;
use super::servers::{Answer, NODES, ROOT, Server, Servers, policy};
use super::target::{MAX_TTL_SECS, TTL_SECS};
use super::world::{Breakage, STOPPED, World};

/// What a change may need to arrive whose sender was killed.
const SETTLED_AFTER: Duration = Duration::from_millis(1_000);

/// One of several at once. Each changes a policy of its own, and uses everybody's tokens and leases.
pub struct Client {
    pub servers: Arc<Servers>,
    /// Also its policy's.
    pub number: usize,
}

fn met(answer: Option<&Answer>) -> Met {
    match answer {
        Some(Ok(_)) => Met::Accepted,
        Some(Err(RequestError::Denied)) => Met::Denied,
        Some(Err(RequestError::BadToken)) => Met::BadToken,
        _ => Met::Other,
    }
}

fn said(answer: Option<&Answer>) -> String {
    match answer {
        None => "the connection broke".to_owned(),
        Some(Ok(_)) => "done".to_owned(),
        Some(Err(error)) => error.to_string(),
    }
}

impl Client {
    fn world(&self) -> &Arc<World> {
        &self.servers.world
    }

    /// Until `end`.
    pub async fn live(self, end: u64) {
        while self.world().millis() < end {
            let pause = self.world().chance.below(4);
            let limit = self.world().pace * if pause == 0 { 900 } else { 60 };
            let pause = self.world().chance.millis(0, limit);
            tokio::time::sleep(pause).await;
            match self.world().chance.below(100) {
                0..12 => self.change_policy().await,
                12..14 => self.change_mount().await,
                14..26 => self.make_token().await,
                26..54 => self.probe().await,
                54..58 => self.probe_mount().await,
                58..78 => self.issue().await,
                78..84 => self.renew().await,
                84..92 => self.revoke_lease().await,
                _ => self.revoke_token().await,
            }
        }
    }

    fn any_server(&self) -> Arc<Server> {
        self.servers.at(self.world().chance.index(NODES))
    }

    /// One that can tell when it has waited long enough.
    fn any_to_change(&self) -> Arc<Server> {
        let nodes = if self.world().is_broken(Breakage::CacheLeaseNeverEnds) { STOPPED } else { NODES };
        self.servers.at(self.world().chance.index(nodes))
    }

    async fn ask(&self, at: &Server, token: &str, operation: Operation, path: &str, data: Value) -> Option<Answer> {
        let (world, client, node) = (self.world(), self.number, at.machine.node);
        let shown = token.get(..6).unwrap_or(token);
        world.note(0xC0, format_args!("client {client} to node {node} as {shown}: {operation:?} {path} {data}"));
        let answer = at.ask(token, operation, path, data).await;
        let code = 0xD0 + u64::from(met(answer.as_ref()) as u8);
        world.note(code, format_args!("client {client} from node {node}, {path}: {}", said(answer.as_ref())));
        if let Some(Err(RequestError::Internal(why))) = &answer {
            world.complain(format!("a fault in node {node}: {why}"));
        }
        answer
    }

    async fn change_policy(&self) {
        let (world, grant) = (self.world(), self.number);
        let granted = world.chance.percent(50);
        let path = format!("sys/policies/acl/p{grant}");
        let server = self.any_to_change();
        world.model().grants[grant].change_begins(granted);
        let answer = match granted || world.chance.percent(50) {
            true => {
                let text = json!({ "policy": policy(grant, granted) });
                self.ask(&server, ROOT, Operation::Update, &path, text).await
            }
            false => self.ask(&server, ROOT, Operation::Delete, &path, Value::Null).await,
        };
        let is_answered = matches!(answer, Some(Ok(_)));
        if !is_answered {
            tokio::time::sleep(SETTLED_AFTER).await;
        }
        world.model().grants[grant].change_ends(is_answered);
        // What was answered counts on every server.
        let known = world.model().token_that_lives(grant, world.millis());
        if let Some(token) = known.filter(|_| is_answered) {
            for node in 0..NODES {
                self.use_token(&self.servers.at(node), token, "static").await;
            }
        }
    }

    /// Makes a mount of its own, or takes it away.
    async fn change_mount(&self) {
        let (world, mount) = (self.world(), self.number);
        // Where the last answer did not come, either may be so.
        let is_there = match world.model().is_mounted(mount) {
            Some(is_mounted) => !is_mounted,
            None => world.chance.percent(50),
        };
        let path = format!("sys/mounts/m{mount}");
        let server = self.any_to_change();
        world.model().mounts[mount].change_begins(is_there);
        let answer = match is_there {
            true => self.ask(&server, ROOT, Operation::Update, &path, json!({ "type": "scripted" })).await,
            false => self.ask(&server, ROOT, Operation::Delete, &path, Value::Null).await,
        };
        let is_answered = matches!(answer, Some(Ok(_)));
        if !is_answered {
            tokio::time::sleep(SETTLED_AFTER).await;
        }
        world.model().mounts[mount].change_ends(is_answered);
    }

    async fn probe_mount(&self) {
        let (world, server) = (self.world(), self.any_server());
        let mount = world.chance.index(world.model().mounts.len());
        let path = format!("m{mount}/static/x");
        let (asked_at, asked) = (world.millis(), world.model().mounts[mount].ask());
        let answer = self.ask(&server, ROOT, Operation::Read, &path, Value::Null).await;
        let wrong = match answer {
            Some(Ok(_)) if !world.model().mounts[mount].might_be(&asked, true) => "served after it was taken away",
            Some(Err(RequestError::NoRoute(_) | RequestError::NotFound))
                if !world.model().mounts[mount].might_be(&asked, false) =>
            {
                "not found after it was made"
            }
            _ => return,
        };
        world.complain(format!("{path} at node {}, asked at {asked_at} ms: {wrong}", server.machine.node));
    }

    async fn make_token(&self) {
        let world = self.world();
        let grants = world.model().grants.len();
        let (ttl, uses) = (world.chance.below(12) + 2, world.chance.below(6));
        let uses = u32::try_from(uses).ok().filter(|uses| (1..4).contains(uses));
        let parent = self.any_token().filter(|at| world.model().may_have_children(*at) && world.chance.percent(40));
        let (grant, maker) = match parent {
            Some(at) => self.shown(at),
            None => (world.chance.index(grants), ROOT.to_owned()),
        };
        let server = self.any_server();
        let asked_at = world.millis();
        let fields = json!({
            "policies": [format!("p{grant}")],
            "no_default_policy": true,
            "ttl": format!("{ttl}s"),
            "num_uses": uses.unwrap_or_default(),
        });
        let answer = self.ask(&server, &maker, Operation::Update, "auth/token/create", fields).await;
        let Some(Ok(answer)) = answer else { return };
        let text = answer.auth.unwrap().client_token.unwrap().expose().to_owned();
        // The machine may be sealed by now; each would give the same hash.
        let hashed = self.servers.all().iter().find_map(|server| server.core.unsealed().ok());
        let Some(unsealed) = hashed else { return };
        let hash = unsealed.tokens.hash(&TokenId::new(&text));
        let times = (asked_at, world.millis(), ttl * 1_000);
        world.model().token_made((text, hash), grant, parent, uses, times);
    }

    /// The policy of a token, and its text.
    fn shown(&self, token: usize) -> (usize, String) {
        let model = self.world().model();
        (model.tokens[token].grant, model.tokens[token].text.clone())
    }

    fn any_token(&self) -> Option<usize> {
        let (world, len) = (self.world(), self.world().model().tokens.len());
        // Those made last are the ones that live.
        let back = world.chance.index(8.min(len.max(1)));
        len.checked_sub(1 + back)
    }

    /// One whose role is there; now and then one that is gone.
    fn any_lease(&self) -> Option<LeaseId> {
        let leases = self.world().target.roles();
        let (known, is_any) = (self.world().model().leases(), self.world().chance.percent(10));
        let known: Vec<LeaseId> = known.into_iter().filter(|id| is_any || leases.contains(id)).collect();
        known.get(self.world().chance.index(known.len())).cloned()
    }

    async fn use_token(&self, server: &Server, token: usize, kind: &str) -> (u64, Option<Answer>) {
        let world = self.world();
        let (grant, text) = self.shown(token);
        let asked_at = world.millis();
        let asked = world.model().ask(token, asked_at);
        let path = format!("db/{kind}/p{grant}");
        let answer = self.ask(server, &text, Operation::Read, &path, Value::Null).await;
        let now = world.millis();
        let wrong = world.model().met(&asked, met(answer.as_ref()), now);
        if let Some(wrong) = wrong {
            let node = server.machine.node;
            let shown = text.get(..6).unwrap_or_default();
            world.complain(format!("{path} by {shown} at node {node}, asked at {asked_at} ms: {wrong}"));
        }
        (asked_at, answer)
    }

    async fn probe(&self) {
        let Some(token) = self.any_token() else { return };
        self.use_token(&self.any_server(), token, "static").await;
    }

    async fn issue(&self) {
        let Some(token) = self.any_token() else { return };
        let (asked_at, answer) = self.use_token(&self.any_server(), token, "creds").await;
        let Some(Ok(answer)) = answer else { return };
        let Some(lease) = answer.lease else { return };
        let (world, now) = (self.world(), self.world().millis());
        let why = {
            let mut model = world.model();
            model.lease_made(lease.id.clone(), token, (asked_at, now, lease.ttl.as_secs() * 1_000));
            model.must_live(&lease.id, now)
        };
        if let Some(why) = why.filter(|_| !world.target.has(&lease.id)) {
            world.complain(format!("{} was handed out and has no role: {why}", lease.id));
        }
    }

    async fn renew(&self) {
        let Some(id) = self.any_lease() else { return };
        let (world, server) = (self.world(), self.any_server());
        let asked_at = world.millis();
        // However long it takes, none goes beyond the greatest end that was agreed when the lease began.
        world.model().renewal_asked(&id, asked_at + MAX_TTL_SECS * 1_000 + 2_000);
        let data = json!({ "lease_id": id.as_str(), "increment": TTL_SECS });
        let answer = self.ask(&server, ROOT, Operation::Update, "sys/leases/renew", data).await;
        let now = world.millis();
        let Some(Ok(answer)) = answer else { return };
        let Some(lease) = answer.lease else { return };
        let wrong = world.model().renewed(&id, (asked_at, now, lease.ttl.as_secs() * 1_000));
        if let Some(wrong) = wrong {
            world.complain(format!("{id}: {wrong}"));
        }
    }

    async fn revoke_lease(&self) {
        let Some(id) = self.any_lease() else { return };
        let (world, server, waits) = (self.world(), self.any_server(), self.world().chance.percent(60));
        world.model().lease_end_asked(&id);
        let data = json!({ "lease_id": id.as_str(), "sync": waits });
        let answer = self.ask(&server, ROOT, Operation::Update, "sys/leases/revoke", data).await;
        if matches!(answer, Some(Ok(_))) {
            world.model().lease_end_answered(&id, waits, world.millis());
            if waits && world.target.has(&id) {
                world.complain(format!("{id} was said to be gone, and its role is there"));
            }
        }
    }

    async fn revoke_token(&self) {
        let Some(token) = self.any_token() else { return };
        let (world, server) = (self.world(), self.any_server());
        let text = world.model().tokens[token].text.clone();
        world.model().token_end_asked(token);
        let answer = self.ask(&server, ROOT, Operation::Update, "auth/token/revoke", json!({ "token": text })).await;
        if matches!(answer, Some(Ok(_))) {
            world.model().token_end_answered(token, world.millis());
        }
    }
}
