//! The glue between the world `policy-module` and the plain logic. Nothing is decided here.

use std::cell::RefCell;

use crate::{Freeze, Operation, Request, Verdict};

// Generated: exports are unsafe functions.
wit_bindgen::generate!({ path: "../../wit/policy", world: "policy-module" });

use exports::leasehold::policy::policy as wit;
use leasehold::policy::types;

struct Module;

export!(Module);

thread_local! {
    /// `configure` comes before `evaluate` on every instance.
    static FREEZE: RefCell<Option<Freeze>> = const { RefCell::new(None) };
}

impl wit::Guest for Module {
    fn describe() -> wit::Metadata {
        wit::Metadata {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            extra: Vec::new(),
        }
    }

    fn configure(config: Vec<u8>) -> Result<(), String> {
        let freeze = Freeze::from_json(&config)?;
        FREEZE.with_borrow_mut(|held| *held = Some(freeze));
        Ok(())
    }

    fn evaluate(request: wit::Request) -> Result<wit::Verdict, String> {
        FREEZE.with_borrow(|held| {
            let freeze = held.as_ref().ok_or("evaluate was called before configure")?;
            let now = i64::try_from(request.now).map_err(|_| "the time is beyond all times")?;
            Ok(verdict(freeze.judge(&Request {
                operation: operation(request.operation),
                display_name: &request.identity.display_name,
                policies: &request.identity.token_policies,
                now,
            })))
        })
    }
}

fn operation(operation: types::Operation) -> Operation {
    match operation {
        types::Operation::Create | types::Operation::Read | types::Operation::Update | types::Operation::Patch => {
            Operation::Obtain
        }
        types::Operation::Renew => Operation::Renew,
        types::Operation::List | types::Operation::Scan | types::Operation::Delete | types::Operation::Revoke => {
            Operation::Harmless
        }
    }
}

fn verdict(verdict: Verdict) -> wit::Verdict {
    match verdict {
        Verdict::Allow { max_ttl, note } => {
            let ceiling = max_ttl.map(types::Obligation::MaxTtl);
            let note = note.map(|note| types::Obligation::AnnotateAudit(("change-freeze".to_owned(), note)));
            wit::Verdict {
                decision: types::Decision::Allow,
                messages: Vec::new(),
                obligations: ceiling.into_iter().chain(note).collect(),
            }
        }
        Verdict::Deny { message } => {
            wit::Verdict { decision: types::Decision::Deny, messages: vec![message], obligations: Vec::new() }
        }
    }
}
