//! What is stored of a job: a row beside those of leases, and what its sealed body holds.

use leasehold_model::{LeaseId, MountAccessor, Timestamp, TokenHash};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lease::LeaseRow;
use super::state::{LeaseKind, LeaseState};
use crate::codec::encode;
use crate::seams::storage::StorageError;

/// The ids of all jobs begin so. No lease's does: nothing can be mounted below `sys/`.
pub const PREFIX: &str = "sys/jobs/";

/// The `connection` of every job's row: who claims rows passes over jobs by it. The connections of engines are named after mounts.
pub const CONNECTION: &str = "sys/jobs";

/// The owner, in an id, of a job that is the server's own.
const CORE: &str = "core";

/// What is stored of a job besides the columns of its row. Holds no credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JobBody {
    /// Tries in a row that have not succeeded. A try counts from its beginning, so that one which kills its server counts as well.
    #[serde(default)]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
    /// How long the last run that succeeded took.
    #[serde(default)]
    pub took_millis: u64,
    /// The last failure, also when the job has succeeded since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<JobFailure>,
    /// The job's own: what its last run gave back. Null before the first.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub state: Value,
}

/// Why a run of a job failed, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    pub at: Timestamp,
    pub why: String,
}

impl JobBody {
    /// The body of a job's row; `None`: it is damaged.
    #[must_use]
    pub fn of(row: &LeaseRow) -> Option<Self> {
        serde_json::from_slice(&row.body).ok()
    }
}

/// Names a job of a mount, or of the server itself.
///
/// # Errors
/// `Corrupt` for a name that no id can have.
pub fn id(name: &str, owner: Option<&MountAccessor>) -> Result<LeaseId, StorageError> {
    let owner = owner.map_or(CORE, MountAccessor::as_str);
    format!("{PREFIX}{name}/{owner}").parse().map_err(|_| StorageError::Corrupt(format!("the name of job {name:?}")))
}

/// The name of a job, as whoever owns it declares it.
#[must_use]
pub fn name(id: &LeaseId) -> &str {
    id.path().strip_prefix(PREFIX).unwrap_or_default()
}

/// A job that has not run yet.
///
/// # Errors
/// As [`id`].
pub fn new_row(name: &str, owner: Option<&MountAccessor>, due: Timestamp) -> Result<LeaseRow, StorageError> {
    Ok(LeaseRow {
        id: id(name, owner)?,
        kind: LeaseKind::Job,
        state: LeaseState::Active,
        next_at: due,
        expires_at: Timestamp::NEVER,
        fence: 0,
        holder: None,
        held_until: None,
        token: TokenHash::from_hex(""),
        mount: owner.cloned().unwrap_or_else(|| MountAccessor::new("")),
        connection: CONNECTION.to_owned(),
        body: encode(&JobBody::default())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_the_name_of_its_job() {
        let mount = MountAccessor::new("auth_approle_1");
        for (owner, wanted) in [(None, "sys/jobs/tidy/core"), (Some(&mount), "sys/jobs/tidy/auth_approle_1")] {
            let id = id("tidy", owner).unwrap();
            assert_eq!((id.as_str(), name(&id)), (wanted, "tidy"));
        }
        assert_eq!(name(&"db/creds/app/x".parse().unwrap()), "");
        assert!(id("a\nb", None).is_err());
    }

    /// A newer server may store more, an older one has stored less.
    #[test]
    fn a_body_is_read_whatever_fields_it_has() {
        let mut row = new_row("tidy", None, Timestamp::from_secs(1)).unwrap();
        for body in ["{}", r#"{"attempts":0,"another":[1]}"#] {
            row.body = body.as_bytes().to_vec();
            assert_eq!(JobBody::of(&row), Some(JobBody::default()), "{body}");
        }
        row.body.clear();
        assert_eq!(JobBody::of(&row), None);
    }
}
