//! Numbers that only grow, in the signed columns that databases have.

/// Versions and fences count up one by one from zero: they fit a signed column for ever.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn number(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}
