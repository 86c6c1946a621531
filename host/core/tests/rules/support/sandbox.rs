//! Policies in plain Rust: one rule a line, `path: capability, capability`, a final `*` in the path matches any rest. The longest
//! matching rule counts; `deny` in it wins.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use leasehold_core::seams::sandbox::{
    AclError, AclEvaluator, AclRequest, CompiledPolicies, ControlGroup, Diagnostic, Dialect, Digest, EvaluationFailed,
    IdentityValues, LoadError, ModuleFacts, ModuleHost, ModuleRequest, ModuleVerdict, PolicyReport, PolicySetId,
    PolicySource, Purpose, Reason, RenderError, SandboxError, Severity, TemplateRenderer, TemplateReport,
    UsernameError, UsernameFacts, Verdict,
};
use leasehold_model::{Capabilities, Operation, Ttl};

#[derive(Debug, Default)]
pub struct ScriptedSandbox {
    /// The ACL fails like this.
    pub acl_fails: Mutex<Option<SandboxError>>,
    /// What every module says.
    pub module: Mutex<Option<Result<ModuleVerdict, SandboxError>>>,
    /// What the ACL was asked: path, operation, sudo.
    pub asked: Mutex<Vec<(String, Operation, bool)>>,
    pub module_asked: Mutex<Vec<ModuleRequest>>,
    /// Whose places each call to a module took.
    pub bindings_asked: Mutex<Vec<String>>,
    /// Modules are loaded while nobody holds this.
    pub may_load: tokio::sync::Mutex<()>,
    /// The digests of modules that were loaded, in order.
    pub loaded: Mutex<Vec<String>>,
    pub may_inspect: tokio::sync::Mutex<()>,
    pub may_configure: tokio::sync::Mutex<()>,
    /// How many sets were compiled.
    pub compiled: AtomicUsize,
    /// Whoever may have this path needs approval for it, which nobody has given.
    pub unapproved: Mutex<Option<&'static str>>,
    /// Lists are cut to this.
    pub limit: Mutex<Option<u32>>,
}

impl ScriptedSandbox {
    pub fn last_asked(&self) -> (String, Operation, bool) {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }
}

fn capability(name: &str) -> Capabilities {
    match name {
        "create" => Capabilities::CREATE,
        "read" => Capabilities::READ,
        "update" => Capabilities::UPDATE,
        "delete" => Capabilities::DELETE,
        "list" => Capabilities::LIST,
        "sudo" => Capabilities::SUDO,
        "patch" => Capabilities::PATCH,
        _ => Capabilities::DENY,
    }
}

/// What the longest rule for a path grants; `None`: no rule.
fn granted(set: &str, path: &str) -> Option<Capabilities> {
    let rules = set.lines().filter_map(|line| line.split_once(": "));
    let mut best: Option<(usize, Capabilities)> = None;
    for (pattern, names) in rules {
        let matches = match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == pattern,
        };
        let bits = names.split(", ").map(capability).fold(Capabilities::NONE, Capabilities::union);
        match best {
            _ if !matches => {}
            Some((length, old)) if length == pattern.len() => best = Some((length, old.union(bits))),
            Some((length, _)) if length > pattern.len() => {}
            _ => best = Some((pattern.len(), bits)),
        }
    }
    best.map(|(_, bits)| bits)
}

fn finding(code: &str, message: String, at: &str) -> Diagnostic {
    let (severity, code, at) = (Severity::Error, code.to_owned(), at.to_owned());
    Diagnostic { severity, code, message, line: 1, column: 1, help: None, at }
}

fn wanted(operation: Operation) -> Capabilities {
    match operation {
        Operation::Create => Capabilities::CREATE,
        Operation::Read => Capabilities::READ,
        Operation::Delete => Capabilities::DELETE,
        Operation::List => Capabilities::LIST,
        Operation::Scan => Capabilities::SCAN,
        Operation::Patch => Capabilities::PATCH,
        Operation::Update | Operation::Renew | Operation::Revoke | Operation::Help => Capabilities::UPDATE,
    }
}

#[async_trait]
impl AclEvaluator for ScriptedSandbox {
    async fn compile_acl(
        &self,
        sources: &[PolicySource],
        identity: &IdentityValues,
    ) -> Result<CompiledPolicies, AclError> {
        self.compiled.fetch_add(1, Ordering::SeqCst);
        // The one policy that the server writes itself is in the real notation.
        let text_of = |source: &'_ PolicySource| match &*source.name {
            "response-wrapping" => "sys/wrapping/unwrap: update".to_owned(),
            _ => source.text.to_string(),
        };
        let texts: Vec<String> = sources.iter().map(text_of).collect();
        if let Some(broken) =
            sources.iter().find(|source| source.text.starts_with("broken") && !source.text.contains("expired"))
        {
            return Err(AclError::Refused(vec![finding("syntax", "At 1:1: broken".to_owned(), &broken.name)]));
        }
        if texts.iter().any(|text| text.starts_with("dear")) {
            return Err(AclError::Sandbox(SandboxError::Memory));
        }
        if let Some(large) = sources.iter().find(|source| source.text.starts_with("large")) {
            let message = "the policies have more than 20000 paths together".to_owned();
            return Err(AclError::Refused(vec![finding("too-large", message, &large.name)]));
        }
        let text = texts.join("\n");
        let mut template_names: Vec<String> =
            text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.to_owned())).collect();
        template_names.sort();
        template_names.dedup();
        let filled = |line: &str| {
            template_names.iter().fold(line.to_owned(), |line, name| match identity.get(name) {
                Some(value) => line.replace(&format!("{{{{{name}}}}}"), value),
                None => line,
            })
        };
        let lines: Vec<String> = text.lines().map(filled).filter(|line| !line.contains("{{")).collect();
        Ok(CompiledPolicies { id: PolicySetId(lines.join("\n").into()), template_names })
    }

    async fn decide(&self, set: &PolicySetId, ask: &AclRequest<'_>) -> Result<Verdict, SandboxError> {
        self.asked.lock().unwrap().push((ask.path.to_owned(), ask.operation, ask.needs_sudo));
        if let Some(error) = self.acl_fails.lock().unwrap().clone() {
            return Err(error);
        }
        let capabilities = granted(&set.0, ask.path).unwrap_or(Capabilities::NONE);
        let mut needed = wanted(ask.operation);
        if ask.needs_sudo {
            needed = needed.union(Capabilities::SUDO);
        }
        let allowed = capabilities.contains(needed) && !capabilities.contains(Capabilities::DENY);
        if allowed && *self.unapproved.lock().unwrap() == Some(ask.path) {
            let (reason, ttl) = (Reason::Unapproved, Ttl::from_secs(600));
            let control_group = Some(ControlGroup { ttl, factors: Vec::new() });
            return Ok(Verdict { allowed: false, capabilities, reason, rules: Vec::new(), limit: None, control_group });
        }
        let reason = if allowed { Reason::Granted } else { Reason::NoRule };
        let limit = *self.limit.lock().unwrap();
        Ok(Verdict { allowed, capabilities, reason, rules: Vec::new(), limit, control_group: None })
    }

    async fn capabilities(&self, set: &PolicySetId, paths: &[&str]) -> Result<Vec<Capabilities>, SandboxError> {
        Ok(paths.iter().map(|path| granted(&set.0, path).unwrap_or(Capabilities::NONE)).collect())
    }

    async fn grants_below(&self, set: &PolicySetId, prefix: &str) -> Result<bool, SandboxError> {
        Ok(set.0.lines().any(|line| line.starts_with(prefix)))
    }

    async fn lint(&self, source: &PolicySource) -> Result<PolicyReport, SandboxError> {
        let report = |diagnostics| PolicyReport { diagnostics, groups: Vec::new() };
        if source.text.starts_with("twice") {
            return Ok(report(vec![finding("repeated-attribute", "At 1:1: twice".to_owned(), &source.name)]));
        }
        if !source.text.starts_with("broken") {
            let odd = source.text.lines().filter(|line| line.contains("odd"));
            let warned = odd.enumerate().flat_map(|(index, line)| {
                let line_number = u32::try_from(index).unwrap() + 1;
                let warning = Diagnostic {
                    severity: Severity::Warning,
                    line: line_number,
                    column: 6,
                    help: Some("write it even".to_owned()),
                    ..finding("odd", format!("{line:?} is odd"), &source.name)
                };
                let hint = Diagnostic { severity: Severity::Hint, ..finding("hint", "hm".to_owned(), &source.name) };
                [warning, hint]
            });
            return Ok(report(warned.collect()));
        }
        Ok(report(vec![finding("syntax", "At 1:1: broken".to_owned(), &source.name)]))
    }

    fn digest(&self) -> Digest {
        Digest("ac1".to_owned())
    }
}

#[async_trait]
impl TemplateRenderer for ScriptedSandbox {
    async fn check_template(&self, _: &[String], _: Purpose, _: Dialect) -> Result<TemplateReport, SandboxError> {
        Err(SandboxError::Host("no templates here".to_owned()))
    }

    async fn render(&self, _: &[String], _: Dialect, _: &[(&str, &str)]) -> Result<Vec<String>, RenderError> {
        Err(RenderError::Sandbox(SandboxError::Host("no templates here".to_owned())))
    }

    async fn check_username(&self, _: &str) -> Result<Vec<String>, UsernameError> {
        Err(SandboxError::Host("no templates here".to_owned()).into())
    }

    async fn username(&self, _: &str, _: &UsernameFacts<'_>) -> Result<String, UsernameError> {
        Err(SandboxError::Host("no templates here".to_owned()).into())
    }

    fn digest(&self) -> Digest {
        Digest("5ta7e".to_owned())
    }
}

#[async_trait]
impl ModuleHost for ScriptedSandbox {
    async fn inspect(&self, module: &[u8]) -> Result<ModuleFacts, LoadError> {
        let _turn = self.may_inspect.lock().await;
        Ok(ModuleFacts {
            digest: hex::encode(module),
            size: module.len(),
            world: "leasehold:policy@0.1.0".to_owned(),
            functions: 1,
            exports: Vec::new(),
            imports: Vec::new(),
            name: "probe".to_owned(),
            version: "1".to_owned(),
            description: String::new(),
        })
    }

    async fn load(&self, module: &[u8]) -> Result<Digest, LoadError> {
        let _turn = self.may_load.lock().await;
        let digest = hex::encode(module);
        self.loaded.lock().unwrap().push(digest.clone());
        Ok(Digest(digest))
    }

    async fn unload(&self, _: &Digest) {}

    async fn configure(&self, _: &Digest, _: &[u8]) -> Result<(), SandboxError> {
        let _turn = self.may_configure.lock().await;
        Ok(())
    }

    async fn evaluate(
        &self,
        binding: &str,
        module: &Digest,
        _: &[u8],
        ask: &ModuleRequest,
    ) -> Result<ModuleVerdict, EvaluationFailed> {
        self.bindings_asked.lock().unwrap().push(binding.to_owned());
        self.module_asked.lock().unwrap().push(ask.clone());
        let script = self.module.lock().unwrap().clone();
        Ok(script.unwrap_or_else(|| Err(SandboxError::Unknown(module.0.clone())))?)
    }
}
