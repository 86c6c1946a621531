//! What a quota covers, and which of several quotas decides on a request or counts a lease.

use leasehold_model::MountAccessor;
use serde::{Deserialize, Serialize};

use crate::mount::{MountEntry, MountTable, Table};
use crate::names;
use crate::seams::error::RequestError;

use super::{NAME_LEN_MAX, PATH_LEN_MAX};

/// What a quota covers. It names a mount by its accessor: the quota moves with the mount and ends with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope {
    /// None: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<MountAccessor>,
    /// The path below the mount, without a slash at its end; empty: the whole mount. A `*` at its end stands for any rest.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suffix: String,
    /// Logins with this role only; empty: everything.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
}

/// Where a request or a lease stands, to be held against what quotas cover.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    mount: Option<&'a MountAccessor>,
    /// Below the mount, as [`below`] cuts it.
    suffix: &'a str,
    /// Of a login; empty: none is known.
    pub role: &'a str,
    /// Whoever serves the path may fold its names: a suffix fits in every case.
    folds: bool,
}

impl<'a> At<'a> {
    /// `mount`: the one of `path`; none is there.
    pub(crate) fn new(path: &'a str, mount: Option<&'a MountEntry>, role: &'a str) -> Self {
        Self {
            mount: mount.map(|mount| &mount.accessor),
            suffix: mount.map_or("", |mount| below(path, mount.path.as_str())),
            role,
            folds: names::fold(path),
        }
    }

    /// Of a row, which names its mount whatever has become of that. `suffix`: as [`below`] cut it when the row was made.
    pub(super) fn of_row(path: &str, mount: &'a MountAccessor, suffix: &'a str, role: &'a str) -> Self {
        Self { mount: Some(mount), suffix, role, folds: names::fold(path) }
    }

    pub(crate) const fn mount(&self) -> Option<&'a MountAccessor> {
        self.mount
    }
}

/// The greater one decides: a role before a path, a path before the beginning of one, the longest beginning before shorter ones, any of
/// them before the whole mount, and that before everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Everything,
    Mount,
    Beginning(usize),
    Path,
    Role,
}

impl Scope {
    fn fit(&self, at: &At<'_>) -> Option<Fit> {
        let Some(mount) = &self.mount else { return Some(Fit::Everything) };
        if at.mount != Some(mount) {
            return None;
        }
        if !self.role.is_empty() {
            return is_same_role(&self.role, at.role).then_some(Fit::Role);
        }
        if self.suffix.is_empty() {
            return Some(Fit::Mount);
        }
        if at.folds {
            return fit_path(&self.suffix.to_lowercase(), &at.suffix.to_lowercase());
        }
        fit_path(&self.suffix, at.suffix)
    }

    /// Whether another quota covers the same. Of two that differ in the case of a name alone, one would never decide.
    pub(super) fn is_same(&self, other: &Self, mounts: &MountTable) -> bool {
        let folds = || {
            let entry = self.mount.as_ref().and_then(|mount| mounts.by_accessor(mount));
            entry.is_some_and(|entry| names::fold(&format!("{}{}", entry.path, self.suffix)))
        };
        self.mount == other.mount
            && is_same_role(&self.role, &other.role)
            && (self.suffix == other.suffix || (self.suffix.to_lowercase() == other.suffix.to_lowercase() && folds()))
    }

    /// As a client reads it; `None`: the mount is gone, and the quota with it.
    pub(crate) fn shown(&self, mounts: &MountTable) -> Option<String> {
        match &self.mount {
            None => Some(String::new()),
            Some(accessor) => mounts.by_accessor(accessor).map(|entry| format!("{}{}", entry.path, self.suffix)),
        }
    }

    /// # Errors
    /// OpenBao's words for a path or a role that no quota can have.
    pub(crate) fn parse(
        path: &str,
        role: &str,
        mounts: &MountTable,
        has_roles: impl Fn(&MountEntry) -> bool,
    ) -> Result<Self, RequestError> {
        let path = path.trim_start_matches('/');
        if path.len() > PATH_LEN_MAX || role.len() > NAME_LEN_MAX {
            return Err(RequestError::invalid("the path or the role is too long"));
        }
        let slashed = if path.is_empty() || path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
        let mut scope = Self { role: role.to_owned(), ..Self::default() };
        let mut entry = None;
        if !slashed.is_empty() {
            let (found, rest) = mounts
                .route(&slashed)
                .ok_or_else(|| RequestError::Invalid(format!("invalid mount path {slashed:?}")))?;
            rest.trim_end_matches('/').clone_into(&mut scope.suffix);
            scope.mount = Some(found.accessor.clone());
            entry = Some(found);
        }
        if role.is_empty() {
            return Ok(scope);
        }
        if !scope.suffix.is_empty() {
            return Err(RequestError::invalid(
                "Quotas cannot contain both a path suffix and a role. If a role is provided, path must be a valid auth mount with a \
                 concept of roles",
            ));
        }
        match entry {
            Some(entry) if entry.table == Table::Auth && has_roles(&entry) => Ok(scope),
            Some(entry) if entry.table == Table::Auth => Err(RequestError::Invalid(format!(
                "Mount path {:?} does not support use with role-based quotas",
                entry.path.as_str()
            ))),
            other => Err(RequestError::Invalid(format!(
                "Mount path {:?} is not a valid auth method and therefore unsuitable for use with role-based quotas",
                other.as_ref().map(|entry| entry.path.as_str()).unwrap_or_default()
            ))),
        }
    }
}

/// All methods that have roles fold their names.
fn is_same_role(one: &str, other: &str) -> bool {
    one == other || one.to_lowercase() == other.to_lowercase()
}

fn fit_path(suffix: &str, path: &str) -> Option<Fit> {
    if suffix == path {
        return Some(Fit::Path);
    }
    let beginning = suffix.strip_suffix('*')?;
    path.starts_with(beginning).then_some(Fit::Beginning(beginning.len()))
}

/// What stands below a mount in a path, as scopes name it.
pub(super) fn below<'a>(path: &'a str, mount: &str) -> &'a str {
    path.strip_prefix(mount).unwrap_or_default().trim_end_matches('/')
}

/// Of `quotas`, the one that decides.
pub(crate) fn deciding<'a, Q>(
    quotas: impl IntoIterator<Item = &'a Q>,
    scope: impl Fn(&Q) -> &Scope,
    at: &At<'_>,
) -> Option<&'a Q> {
    let fits = quotas.into_iter().filter_map(|quota| scope(quota).fit(at).map(|fit| (fit, quota)));
    fits.max_by_key(|(fit, _)| *fit).map(|(_, quota)| quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(mount: &str, suffix: &str, role: &str) -> Scope {
        let mount = (!mount.is_empty()).then(|| MountAccessor::new(mount));
        Scope { mount, suffix: suffix.to_owned(), role: role.to_owned() }
    }

    #[test]
    fn the_quota_that_fits_best_decides() {
        let all = [
            scope("", "", ""),
            scope("kv", "", ""),
            scope("kv", "a*", ""),
            scope("kv", "a/b*", ""),
            scope("kv", "a/b/c", ""),
            scope("jwt", "", "App"),
            scope("jwt", "login", ""),
        ];
        let kv = MountAccessor::new("kv");
        let jwt = MountAccessor::new("jwt");
        let other = MountAccessor::new("other");
        for (mount, suffix, role, wanted) in [
            (Some(&kv), "a/b/c", "", 4),
            (Some(&kv), "a/b/d", "", 3),
            (Some(&kv), "a/b", "", 3),
            (Some(&kv), "abc", "", 2),
            (Some(&kv), "x", "", 1),
            (Some(&kv), "", "", 1),
            (Some(&other), "a/b/c", "", 0),
            (None, "a/b/c", "", 0),
            (Some(&jwt), "login", "app", 5),
            (Some(&jwt), "login", "web", 6),
            (Some(&jwt), "x", "", 0),
        ] {
            let found = deciding(&all, |scope| scope, &At { mount, suffix, role, folds: false });
            assert_eq!(found, Some(&all[wanted]), "{mount:?} {suffix} {role}");
        }
        let named = [scope("jwt", "role/App", ""), scope("jwt", "users/Ad*", "")];
        for (suffix, folds, fits) in [
            ("role/app", true, true),
            ("role/APP", true, true),
            ("role/apps", true, false),
            ("users/ada", true, true),
            ("role/app", false, false),
            ("users/ada", false, false),
            ("role/App", false, true),
        ] {
            let at = At { mount: Some(&jwt), suffix, role: "", folds };
            assert_eq!(deciding(&named, |scope| scope, &at).is_some(), fits, "{suffix} {folds}");
        }
        assert_eq!(deciding(&all[1..], |scope| scope, &At { mount: None, suffix: "", role: "", folds: false }), None);
    }

    #[test]
    fn a_path_is_cut_at_its_mount_and_loses_its_last_slash() {
        for (path, wanted) in [("kv/a/b", "a/b"), ("kv/a/", "a"), ("kv/", ""), ("other/a", "")] {
            assert_eq!(below(path, "kv/"), wanted, "{path}");
        }
    }
}
