//! No credentials in a change freeze, and none that live long.
//!
//! Start with [`Freeze::from_json`] (what the operator wrote) and [`Freeze::judge`] (one request). Plain Rust, tested
//! natively; `component` is the only part that knows of WebAssembly.
//!
//! Which paths this is asked about is the operator's binding, not ours. What ends access (delete, revoke) and what only
//! looks (list, scan) is never refused.

#[cfg(target_arch = "wasm32")]
mod component;

mod config;
mod window;

pub use config::Freeze;

/// What this module looks at of a request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub operation: Operation,
    pub display_name: &'a str,
    pub policies: &'a [String],
    /// Unix seconds.
    pub now: i64,
}

/// What a request does, as far as a freeze cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Create, read, update, patch: may hand out a credential or change what hands them out.
    Obtain,
    Renew,
    /// List, scan, delete, revoke.
    Harmless,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow {
        /// Seconds; none when nothing limits the lease.
        max_ttl: Option<u32>,
        /// For the audit record.
        note: Option<String>,
    },
    Deny {
        message: String,
    },
}

impl Freeze {
    #[must_use]
    pub fn judge(&self, request: &Request<'_>) -> Verdict {
        if request.operation == Operation::Harmless {
            return Verdict::Allow { max_ttl: None, note: None };
        }
        let frozen = self.frozen_at(request.now);
        if let Some(why) = self.exemption(request) {
            let note = frozen.map(|_| format!("exempt from the freeze by {why}"));
            return Verdict::Allow { max_ttl: self.max_ttl(), note };
        }
        let Some(freeze) = frozen else {
            return Verdict::Allow { max_ttl: self.ceiling(request.now), note: None };
        };
        if request.operation == Operation::Renew && self.renewals_pass() {
            return Verdict::Allow { max_ttl: self.max_ttl(), note: Some("renewed in the freeze".to_owned()) };
        }
        let until = config::written(freeze.ends);
        let reason = freeze.message.map(|message| format!(": {message}")).unwrap_or_default();
        Verdict::Deny { message: format!("credentials are frozen until {until}{reason}") }
    }
}
