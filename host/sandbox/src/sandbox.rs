//! The three seams: every call goes to the part that it belongs to.

use std::sync::Arc;

use async_trait::async_trait;
use leasehold_core::seams::host::Clock;
use leasehold_core::seams::sandbox::{
    AclError, AclEvaluator, AclRequest, CompiledPolicies, Dialect, Digest, EvaluationFailed, IdentityValues, LoadError,
    ModuleFacts, ModuleHost, ModuleRequest, ModuleVerdict, PolicyReport, PolicySetId, PolicySource, Purpose,
    RenderError, SandboxError, TemplateRenderer, TemplateReport, UsernameError, UsernameFacts, Verdict,
};
use leasehold_model::{Capabilities, Timestamp};

use crate::acl::AclRoom;
use crate::config::{Config, GuestLimits};
use crate::engine::Instances;
use crate::modules::{self, ModulesRoom};
use crate::statements::StatementsRoom;
use crate::{compile, engine, gate};

/// Runs guests. One for a process; it stands behind [`AclEvaluator`], [`TemplateRenderer`] and [`ModuleHost`].
#[derive(Debug)]
pub struct Sandbox {
    acl: AclRoom,
    statements: StatementsRoom,
    modules: ModulesRoom,
    acl_digest: Digest,
    statements_digest: Digest,
}

impl Sandbox {
    /// Makes the engine and loads the components that ship with the server.
    ///
    /// Takes a few milliseconds when they bring machine code for this machine, half a second when they do not. Install the
    /// recorder of metrics before. `clock` also measures how long calls take.
    ///
    /// # Errors
    /// When the engine cannot be made, or a shipped component does not answer for its world.
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Self, LoadError> {
        let Config { builtins, limits, compiler } = config;
        let failed = |what: &'static str| move |error: wasmtime::Error| LoadError(format!("{what}: {error:#}"));
        let engine = engine::running(instances(&limits)).map_err(failed("could not make the engine for guests"))?;
        let acl_digest = Digest(gate::digest(&builtins.acl.component));
        let statements_digest = Digest(gate::digest(&builtins.statements.component));
        let acl = compile::builtin(&engine, "acl", &builtins.acl)
            .and_then(|component| AclRoom::new(&engine, &component, limits.clone(), Arc::clone(&clock)))
            .map_err(failed("could not load the component `acl`"))?;
        let statements = compile::builtin(&engine, "statements", &builtins.statements)
            .and_then(|component| StatementsRoom::new(&engine, &component, &limits, Arc::clone(&clock)))
            .map_err(failed("could not load the component `statements`"))?;
        let modules = ModulesRoom::new(&engine, compiler, limits, clock);
        Ok(Self { acl, statements, modules, acl_digest, statements_digest })
    }
}

/// Every instance that may live at a time; one ACL instance is made to compare with.
fn instances(limits: &GuestLimits) -> Instances {
    let warm = u32::try_from(limits.warm.saturating_add(limits.warm_wide)).unwrap_or(64);
    let shipped = [limits.acl_at_once, warm, 1, limits.statements_at_once].into_iter().fold(0u32, u32::saturating_add);
    let looking = u32::try_from(modules::LOOKS_AT_ONCE).unwrap_or(2);
    Instances {
        shipped: shipped.clamp(1, 4096),
        modules: limits.modules_at_once.saturating_add(looking).clamp(1, 1024),
    }
}

#[async_trait]
impl AclEvaluator for Sandbox {
    async fn compile_acl(
        &self,
        sources: &[PolicySource],
        identity: &IdentityValues,
    ) -> Result<CompiledPolicies, AclError> {
        self.acl.compile(sources, identity).await
    }

    async fn decide(&self, set: &PolicySetId, ask: &AclRequest<'_>) -> Result<Verdict, SandboxError> {
        self.acl.decide(set, ask).await
    }

    async fn capabilities(&self, set: &PolicySetId, paths: &[&str]) -> Result<Vec<Capabilities>, SandboxError> {
        self.acl.capabilities(set, paths).await
    }

    async fn grants_below(&self, set: &PolicySetId, prefix: &str) -> Result<bool, SandboxError> {
        self.acl.grants_below(set, prefix).await
    }

    async fn lint(&self, source: &PolicySource) -> Result<PolicyReport, SandboxError> {
        self.acl.lint(source).await
    }

    fn digest(&self) -> Digest {
        self.acl_digest.clone()
    }
}

#[async_trait]
impl TemplateRenderer for Sandbox {
    async fn check_template(
        &self,
        statements: &[String],
        purpose: Purpose,
        wished: Dialect,
    ) -> Result<TemplateReport, SandboxError> {
        self.statements.check(statements, purpose, wished).await
    }

    async fn render(
        &self,
        statements: &[String],
        dialect: Dialect,
        values: &[(&str, &str)],
    ) -> Result<Vec<String>, RenderError> {
        self.statements.render(statements, dialect, values).await
    }

    async fn check_username(&self, template: &str) -> Result<Vec<String>, UsernameError> {
        self.statements.check_username(template).await
    }

    async fn username(&self, template: &str, facts: &UsernameFacts<'_>) -> Result<String, UsernameError> {
        self.statements.username(template, facts).await
    }

    fn digest(&self) -> Digest {
        self.statements_digest.clone()
    }
}

#[async_trait]
impl ModuleHost for Sandbox {
    async fn inspect(&self, module: &[u8]) -> Result<ModuleFacts, LoadError> {
        self.modules.inspect(module).await
    }

    async fn load(&self, module: &[u8]) -> Result<Digest, LoadError> {
        self.modules.load(module).await
    }

    async fn unload(&self, module: &Digest) {
        self.modules.unload(module);
    }

    async fn configure(&self, module: &Digest, config: &[u8]) -> Result<(), SandboxError> {
        self.modules.configure(module, config).await
    }

    async fn evaluate(
        &self,
        binding: &str,
        module: &Digest,
        config: &[u8],
        ask: &ModuleRequest,
    ) -> Result<ModuleVerdict, EvaluationFailed> {
        self.modules.evaluate(binding, module, config, ask).await
    }
}

/// Looks at a module without a server, as `module inspect` and `module check` do: the load gate, then `describe`.
///
/// # Errors
/// The text says what to change. Compiles in this process; an author waits for his own module.
pub fn inspect_offline(module: &[u8]) -> Result<ModuleFacts, LoadError> {
    modules::inspect_offline(module, GuestLimits::default(), Arc::new(NoClock))
}

/// Nobody measures offline.
struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(0)
    }

    fn steady(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}
