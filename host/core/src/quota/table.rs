//! Lease count quotas as they are stored: all in one record, whose version every commit names that begins or ends a lease.

use leasehold_model::{MountAccessor, Timestamp};
use serde::{Deserialize, Serialize};

use super::scope::{At, Scope, below, deciding};
use crate::mount::MountTable;
use crate::rows::lease::LeaseRow;
use crate::rows::state::LeaseKind;

/// How many leases there may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseCount {
    /// New with each change: names the places that count.
    pub id: String,
    pub name: String,
    pub scope: Scope,
    /// Greater than zero.
    pub max_leases: u64,
    pub inheritable: bool,
    /// Over how many places the count is spread.
    pub places: u32,
    /// What an engine limits in its own configuration, as `max_leases` of a database role: it counts the leases of one path besides the
    /// quota that decides on them, and no client sees it as a quota.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_engines: bool,
}

impl LeaseCount {
    /// Whether it counts the leases of a path that an engine limits.
    fn limits(&self, row: &LeaseRow, suffix: &str) -> bool {
        self.is_engines && self.scope.mount.as_ref() == Some(&row.mount) && self.scope.suffix == suffix
    }

    /// As a client is told of it.
    pub(super) fn described(&self) -> String {
        if self.is_engines { self.name.clone() } else { format!("quota {:?}", self.name) }
    }
}

/// All lease count quotas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTable {
    pub quotas: Vec<LeaseCount>,
    /// Leases are being looked through for a change that depends on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
    /// Names the last change after which leases were opened with the quotas as they were: what two of them store must not be the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub opened_by: String,
}

/// While leases are being looked through, none of them begins and the row of none goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Of this mount; none: of all.
    pub mount: Option<MountAccessor>,
    /// Whoever counts has given up by then, or was killed.
    pub until: Timestamp,
    /// Names the change.
    pub by: String,
}

impl Closed {
    pub(super) fn covers(&self, mount: &MountAccessor) -> bool {
        self.mount.as_ref().is_none_or(|closed| closed == mount)
    }
}

impl LeaseTable {
    /// What counts a lease: of several quotas that cover it the one that fits it best, and the limit of its engine. By their places in
    /// the table.
    pub(super) fn counting(&self, row: &LeaseRow, mounts: &MountTable) -> Vec<usize> {
        if self.quotas.is_empty() {
            return Vec::new();
        }
        let body = row.opened_body();
        // Quotas are no matter of root tokens: with one of them operators get out of whatever has happened.
        if body.as_ref().is_some_and(|body| body.is_root) {
            return Vec::new();
        }
        let (role, made) = body.map(|body| (body.role, body.below)).unwrap_or_default();
        let (role, path) = (role.unwrap_or_default(), path_of(row));
        let entry = mounts.by_accessor(&row.mount);
        let suffix = match &made {
            Some(made) => made,
            None => entry.as_ref().map_or("", |entry| below(path, entry.path.as_str())),
        };
        let limits = |quota: &&LeaseCount| row.kind == LeaseKind::Secret && quota.limits(row, suffix);
        let limit = self.quotas.iter().find(limits).and_then(|limit| self.place_of(limit));
        self.covering(&At::of_row(path, &row.mount, suffix, &role)).into_iter().chain(limit).collect()
    }

    fn place_of(&self, quota: &LeaseCount) -> Option<usize> {
        self.quotas.iter().position(|known| known.id == quota.id)
    }

    /// The quota that covers what stands there. One whose mount is gone goes on counting what that has left behind, until it goes itself
    /// and the others take over what it has counted.
    pub(super) fn covering(&self, at: &At<'_>) -> Option<usize> {
        let quotas = self.quotas.iter().filter(|quota| !quota.is_engines);
        self.place_of(deciding(quotas, |quota| &quota.scope, at)?)
    }
}

/// The path of the request that has made a lease.
pub(super) fn path_of(row: &LeaseRow) -> &str {
    row.id.as_str().rsplit_once('/').map_or("", |(path, _)| path)
}
