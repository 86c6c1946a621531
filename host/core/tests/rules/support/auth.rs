//! An auth method that lets everybody in, when the test says so, and has a chore to do for each of its mounts.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_core::auth_handler;
use leasehold_core::request::LogicalResponse;
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::auth::{
    AuthContext, AuthHandler, AuthMethod, AuthOutcome, AuthRequest, LoginAlias, LoginLimits, LoginPlan, LoginToken,
    Refusal,
};
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::job::MountJob;
use leasehold_core::seams::token_params::ChosenKind;
use leasehold_core::seams::token_params::TokenParams;
use leasehold_model::Ttl;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// A login as `slow` waits until the test opens the door; one as `wrong` is refused; one as `batch` gets a batch token.
#[derive(Debug)]
pub struct ScriptedMethod {
    /// One permit for each login that has arrived.
    pub arrived: Semaphore,
    /// One permit lets one slow login in.
    pub door: Semaphore,
    /// What it says when a token of its own is renewed.
    pub limits: Mutex<LoginLimits>,
    /// The mounts whose chore this process has begun, in order.
    pub chores: Mutex<Vec<String>>,
    pub chores_take: Mutex<Duration>,
    pub chores_fail: Mutex<Option<&'static str>>,
    /// Of chores that were begun and have not ended.
    pub chores_at_once: Mutex<usize>,
}

/// Counts a chore for as long as it is being done.
struct UnderWay<'a>(&'a ScriptedMethod);

impl<'a> UnderWay<'a> {
    fn begin(method: &'a ScriptedMethod) -> Self {
        *method.chores_at_once.lock().unwrap() += 1;
        Self(method)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.chores_at_once.lock().unwrap() -= 1;
    }
}

pub const CHORE: MountJob = MountJob { name: "chore", every: Ttl::from_secs(900) };

impl Default for ScriptedMethod {
    fn default() -> Self {
        Self {
            arrived: Semaphore::new(0),
            door: Semaphore::new(0),
            limits: Mutex::new(LoginLimits { ttl: Ttl::ZERO, max_ttl: Ttl::ZERO, period: Ttl::ZERO }),
            chores: Mutex::default(),
            chores_take: Mutex::default(),
            chores_fail: Mutex::default(),
            chores_at_once: Mutex::default(),
        }
    }
}

const ROUTES: &[Route<AuthHandler>] = &[
    Route::new(
        "login/:name",
        Access::Unauthenticated,
        "Lets everybody in.",
        &[Op::update("Lets everybody in.", auth_handler!(ScriptedMethod, log_in)).answers(Answer::Auth)],
    ),
    Route::new(
        "chore",
        Access::Token,
        "Has the chore done.",
        &[Op::update("Has the chore done.", auth_handler!(ScriptedMethod, ask_for_chore))],
    ),
];

/// `slow-bob.ops.dev` is Bob, who is in two groups.
fn alias_of(name: &str) -> LoginAlias {
    let mut parts = name.trim_start_matches("slow-").split('.').map(str::to_owned);
    let name = parts.next().unwrap_or_default();
    let groups: Vec<String> = parts.collect();
    LoginAlias { name, metadata: None, groups: Some(groups) }
}

impl ScriptedMethod {
    async fn ask_for_chore(&self, _: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let said = |words: &str| LogicalResponse::empty().warn(words);
        Ok(AuthOutcome::Job { name: CHORE.name, begun: said("begun"), under_way: said("under way") })
    }

    async fn log_in(&self, request: &AuthRequest) -> Result<AuthOutcome, RequestError> {
        let name = request.capture("name");
        self.arrived.add_permits(1);
        if name.starts_with("slow") {
            self.door.acquire().await.expect("a door").forget();
        }
        if name.ends_with("wrong") {
            return Ok(AuthOutcome::Refused(Refusal { said: "no", reason: "the test says so".to_owned() }));
        }
        let kind = if name == "batch" { ChosenKind::Batch } else { ChosenKind::Default };
        Ok(AuthOutcome::Login(Box::new(LoginPlan {
            display_name: name.to_owned(),
            metadata: BTreeMap::new(),
            alias: alias_of(name),
            token: TokenParams { kind, ttl: Ttl::from_secs(600), ..TokenParams::default() },
            internal: json!({ "role": name }),
        })))
    }
}

#[async_trait]
impl AuthMethod for ScriptedMethod {
    fn routes(&self) -> &'static [Route<AuthHandler>] {
        ROUTES
    }

    async fn exists(&self, _: &AuthRequest) -> Result<bool, RequestError> {
        Ok(true)
    }

    /// All names that end alike are counted together.
    fn alias(&self, request: &AuthRequest) -> Option<String> {
        Some(request.capture("name").trim_start_matches("slow-").trim_end_matches("-wrong").to_owned())
    }

    fn has_roles(&self) -> bool {
        true
    }

    async fn role_of_login(&self, request: &AuthRequest) -> Option<String> {
        Some(request.capture("name").to_owned())
    }

    fn role_of<'a>(&self, internal: &'a Value) -> Option<&'a str> {
        internal.get("role")?.as_str()
    }

    async fn renew(&self, _: &AuthContext, _: &LoginToken<'_>) -> Result<LoginLimits, RequestError> {
        Ok(*self.limits.lock().unwrap())
    }

    fn jobs(&self) -> &'static [MountJob] {
        &[CHORE]
    }

    async fn run_job(&self, at: &AuthContext, name: &str) -> Result<(), RequestError> {
        assert_eq!(name, CHORE.name);
        let _under_way = UnderWay::begin(self);
        self.chores.lock().unwrap().push(at.mount.path.to_string());
        let takes = *self.chores_take.lock().unwrap();
        tokio::time::sleep(takes).await;
        match *self.chores_fail.lock().unwrap() {
            Some(why) => Err(RequestError::Engine(why.to_owned())),
            None => Ok(()),
        }
    }
}
