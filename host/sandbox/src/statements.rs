//! Statement templates: a fresh instance for every check and every render.
//!
//! Must not know: SQL. No credential comes here; a placeholder stands where one belongs.
//!
//! Invariant: what comes back has the shape of what went in, one rendered statement for each template.

use std::sync::Arc;

use leasehold_core::seams::host::Clock;
use leasehold_core::seams::sandbox::{
    Diagnostic, Dialect, Purpose, RenderError, SandboxError, Severity, TemplateReport, UsernameError, UsernameFacts,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::acl::blocking;
use crate::bindings::statements::exports::leasehold::statements::templates as wit;
use crate::bindings::statements::{Statements, StatementsPre};
use crate::config::{Budget, GuestLimits};
use crate::metrics::Meter;
use crate::store::{self, Guest};

/// Fuel of a render that is tried on the caller's thread, some 0.3 ms at most: what the statements of most roles need is done
/// before another thread would have begun. One that runs out begins anew on a thread that may block, with all its fuel.
const BRIEF: u64 = 4_000_000;

pub(crate) struct StatementsRoom {
    shared: Arc<Shared>,
    lane: Arc<Semaphore>,
    templates_max: usize,
}

struct Shared {
    engine: Engine,
    pre: StatementsPre<Guest>,
    budget: Budget,
    clock: Arc<dyn Clock>,
    meter: Meter,
}

impl StatementsRoom {
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        limits: &GuestLimits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, wasmtime::Error> {
        let pre = StatementsPre::new(Linker::new(engine).instantiate_pre(component)?)?;
        let lane = Arc::new(Semaphore::new(limits.statements_at_once as usize));
        let meter = Meter::new("statements");
        let shared = Shared { engine: engine.clone(), pre, budget: limits.statements, clock, meter };
        Ok(Self { shared: Arc::new(shared), lane, templates_max: limits.templates })
    }

    pub(crate) async fn check(
        &self,
        statements: &[String],
        purpose: Purpose,
        wished: Dialect,
    ) -> Result<TemplateReport, SandboxError> {
        let place = self.place(statements, &[])?;
        let (shared, statements) = (Arc::clone(&self.shared), statements.to_vec());
        let purpose = match purpose {
            Purpose::Creation => wit::Purpose::Creation,
            Purpose::Renewal => wit::Purpose::Renewal,
            Purpose::Revocation => wit::Purpose::Revocation,
            Purpose::Rollback => wit::Purpose::Rollback,
            Purpose::Rotation => wit::Purpose::Rotation,
        };
        let checked = blocking(move || {
            let _place = place;
            let count = statements.len();
            let report = shared.call(shared.budget.fuel, |guest, store| {
                guest.leasehold_statements_templates().call_check(store, &statements, purpose, dialect_in(wished))
            })?;
            let diagnostics = report.diagnostics.into_iter().map(|one| diagnostic(one, count));
            Ok(TemplateReport {
                dialect: match report.dialect {
                    wit::Dialect::Handlebars => Dialect::Handlebars,
                    wit::Dialect::Plain => Dialect::Plain,
                },
                diagnostics: diagnostics.collect::<Result<_, _>>()?,
            })
        });
        self.shared.meter.seen(checked.await?)
    }

    pub(crate) async fn render(
        &self,
        statements: &[String],
        dialect: Dialect,
        values: &[(&str, &str)],
    ) -> Result<Vec<String>, RenderError> {
        let place = self.place(statements, values)?;
        let statements = statements.to_vec();
        let values: Vec<(String, String)> =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let rendered = match self.shared.render(BRIEF, &statements, dialect, &values) {
            Err(SandboxError::Fuel) => {
                let shared = Arc::clone(&self.shared);
                blocking(move || {
                    let _place = place;
                    shared.render(shared.budget.fuel, &statements, dialect, &values)
                })
                .await?
            }
            done => done,
        };
        let rendered = self.shared.meter.seen(rendered)?;
        rendered.map_err(|refused| RenderError::Refused(Box::new(refused)))
    }

    pub(crate) async fn check_username(&self, template: &str) -> Result<Vec<String>, UsernameError> {
        let template = template.to_owned();
        self.named(&template.clone(), move |guest, store| {
            guest.leasehold_statements_templates().call_check_username(store, &template)
        })
        .await
    }

    pub(crate) async fn username(&self, template: &str, facts: &UsernameFacts<'_>) -> Result<String, UsernameError> {
        let facts = wit::UsernameFacts {
            display_name: facts.display_name.to_owned(),
            role_name: facts.role_name.to_owned(),
            now_millis: u64::try_from(facts.now.as_nanos() / 1_000_000).unwrap_or(0),
            randomness: facts.randomness.to_vec(),
        };
        let template = template.to_owned();
        self.named(&template.clone(), move |guest, store| {
            guest.leasehold_statements_templates().call_username(store, &template, &facts)
        })
        .await
    }

    /// On a thread that may block: a template may make its name in many steps.
    async fn named<T: Send + 'static>(
        &self,
        template: &str,
        ask: impl FnOnce(&Statements, &mut wasmtime::Store<Guest>) -> Result<Result<T, String>, wasmtime::Error>
        + Send
        + 'static,
    ) -> Result<T, UsernameError> {
        let place = self.place(&[template.to_owned()], &[])?;
        let shared = Arc::clone(&self.shared);
        let named = blocking(move || {
            let _place = place;
            shared.call(shared.budget.fuel, ask)
        })
        .await?;
        self.shared.meter.seen(named)?.map_err(UsernameError::Refused)
    }

    /// Room for one more instance, if the texts are within bounds.
    fn place(&self, statements: &[String], values: &[(&str, &str)]) -> Result<OwnedSemaphorePermit, SandboxError> {
        let texts: usize = statements.iter().map(String::len).sum();
        let given: usize = values.iter().map(|(name, value)| name.len() + value.len()).sum();
        let max = self.templates_max;
        let room = if texts.saturating_add(given) > max {
            Err(SandboxError::Host(format!("the statements are longer than {max} bytes")))
        } else {
            Arc::clone(&self.lane).try_acquire_owned().map_err(|_| SandboxError::Busy)
        };
        self.shared.meter.seen(room)
    }
}

impl Shared {
    fn render(
        &self,
        fuel: u64,
        statements: &[String],
        dialect: Dialect,
        values: &[(String, String)],
    ) -> Result<Result<Vec<String>, Diagnostic>, SandboxError> {
        let count = statements.len();
        let rendered = self.call(fuel, |guest, store| {
            guest.leasehold_statements_templates().call_render(store, statements, dialect_in(dialect), values)
        })?;
        match rendered {
            Ok(texts) if texts.len() == count => Ok(Ok(texts)),
            Ok(texts) => {
                Err(SandboxError::Answer(format!("{} statements came back for {count} templates", texts.len())))
            }
            Err(refused) => diagnostic(refused, count).map(Err),
        }
    }

    fn call<T>(
        &self,
        fuel: u64,
        ask: impl FnOnce(&Statements, &mut wasmtime::Store<Guest>) -> Result<T, wasmtime::Error>,
    ) -> Result<T, SandboxError> {
        let begun = self.clock.now();
        let budget = Budget { fuel: fuel.min(self.budget.fuel), ..self.budget };
        let mut store = store::fresh(&self.engine, &budget, None);
        store::arm(&mut store, &budget)?;
        let answer = self.pre.instantiate(&mut store).and_then(|guest| ask(&guest, &mut store));
        let answer = answer.map_err(|error| store::stopped(&store, &error))?;
        self.meter.answered(self.clock.now().since(begun).as_secs_f64(), store::used(&store, budget.fuel));
        Ok(answer)
    }
}

impl std::fmt::Debug for StatementsRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatementsRoom").finish_non_exhaustive()
    }
}

fn dialect_in(dialect: Dialect) -> wit::Dialect {
    match dialect {
        Dialect::Handlebars => wit::Dialect::Handlebars,
        Dialect::Plain => wit::Dialect::Plain,
    }
}

/// `count`: how many statements there are for it to name.
fn diagnostic(from: wit::Diagnostic, count: usize) -> Result<Diagnostic, SandboxError> {
    if from.statement as usize >= count.max(1) {
        return Err(SandboxError::Answer(format!("a diagnostic names statement {} of {count}", from.statement)));
    }
    Ok(Diagnostic {
        severity: match from.severity {
            wit::Severity::Warning => Severity::Warning,
            wit::Severity::Hint => Severity::Hint,
        },
        code: from.code,
        message: from.message,
        line: from.line,
        column: from.column,
        help: from.help,
        at: from.statement.to_string(),
    })
}
