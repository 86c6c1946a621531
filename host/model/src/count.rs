//! Things with their number, as messages name them.

use std::fmt;

/// `1 lease`, `2 leases`: of a noun whose plural only takes an `s`.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    count: u64,
    noun: &'static str,
}

/// So many of what `noun` says.
#[must_use]
pub fn counted(count: impl TryInto<u64>, noun: &'static str) -> Counted {
    Counted { count: count.try_into().unwrap_or(u64::MAX), noun }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.count == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.count, self.noun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_no_plural() {
        let said: Vec<String> = [0_usize, 1, 2].into_iter().map(|count| counted(count, "lease").to_string()).collect();
        assert_eq!(said, ["0 leases", "1 lease", "2 leases"]);
    }
}
