//! Old names of `token_*` fields (`policies`, `ttl`, …), which Vault still takes and shows to whoever used them.

use std::collections::BTreeSet;

use leasehold_core::fields::Fields;
use leasehold_core::request::Object;
use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::token_params::TokenParams;
use leasehold_core::seams::token_params::{blocks, sanitized};
use serde::{Deserialize, Serialize};

/// An old name, and the name that took its place.
pub(super) type Renamed = (&'static str, &'static str);

/// The old names under which values were given last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct OldNames(BTreeSet<String>);

impl OldNames {
    /// Takes what old names give, except where the new name is given too: then the new one counts.
    pub(super) fn update(
        &mut self,
        params: &mut TokenParams,
        fields: &Fields,
        renamed: &[Renamed],
    ) -> Result<(), RequestError> {
        for (old, new) in renamed {
            match (fields.has(old), fields.has(new)) {
                (true, false) => {
                    take(params, fields, old, new)?;
                    self.0.insert((*old).to_owned());
                }
                (true, true) => {
                    self.0.insert((*old).to_owned());
                }
                (false, true) => {
                    self.0.remove(*old);
                }
                (false, false) => {}
            }
        }
        params.check()
    }

    pub(super) fn forget(&mut self, old: &str) {
        self.0.remove(old);
    }

    /// Repeats values under the old names, where they are not empty.
    pub(super) fn show(&self, data: &mut Object, renamed: &[Renamed]) {
        for (old, new) in renamed.iter().filter(|(old, _)| self.0.contains(*old)) {
            let value = data.get(*new).filter(|value| **value != 0 && value.as_array().is_none_or(|a| !a.is_empty()));
            if let Some(value) = value.cloned() {
                data.insert((*old).to_owned(), value);
            }
        }
    }
}

fn take(params: &mut TokenParams, fields: &Fields, old: &str, new: &str) -> Result<(), RequestError> {
    let list = || fields.list(old).unwrap_or_default();
    let ttl = || fields.ttl(old).unwrap_or_default();
    match new {
        "token_policies" => params.policies = sanitized(list()),
        "token_bound_cidrs" => params.bound_cidrs = blocks(list())?,
        "token_ttl" => params.ttl = ttl(),
        "token_max_ttl" => params.max_ttl = ttl(),
        "token_period" => params.period = ttl(),
        other => return Err(RequestError::Internal(format!("{other} never had another name"))),
    }
    Ok(())
}
