//! Associated data: what a sealed value is bound to, so that it opens nowhere else.
//!
//! A value is bound to its storage key. The body of a lease row is bound to the row's id and to those of its columns that work on it
//! does not change: whoever moves its end, or hands it to another token, mount or connection in the file, makes it unreadable.

use leasehold_core::lease::LeaseRow;
use leasehold_model::LeaseId;

/// A byte that no key can begin with: a lease's body never opens as the value of a key, nor the other way round.
const ROW: &[u8] = b"\xfflease 2:";
const FIRST_ROW: &[u8] = b"\xfflease:";

/// Every part with its length before it, so that no two rows have one domain.
pub(super) fn of_row(row: &LeaseRow) -> Vec<u8> {
    let end = row.expires_at.as_nanos().to_be_bytes();
    let parts: [&[u8]; 6] = [
        row.id.as_str().as_bytes(),
        row.kind.as_str().as_bytes(),
        &end,
        row.token.as_str().as_bytes(),
        row.mount.as_str().as_bytes(),
        row.connection.as_bytes(),
    ];
    let mut domain = ROW.to_vec();
    for part in parts {
        domain.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        domain.extend_from_slice(part);
    }
    domain
}

/// What keys of the first format bound a row's body to: its id alone.
pub(super) fn first_of_row(id: &LeaseId) -> Vec<u8> {
    [FIRST_ROW, id.as_str().as_bytes()].concat()
}
