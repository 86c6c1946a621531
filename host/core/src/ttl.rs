//! How long something may live from now on: Vault's one calculation, for what is made and for what is renewed.
//!
//! Must not know: tokens, leases, fields of a request.
//!
//! Start with [`end`].

use leasehold_model::{Timestamp, Ttl};

/// The least of the TTLs that are set.
#[must_use]
pub(crate) fn least(ttls: &[Ttl]) -> Option<Ttl> {
    ttls.iter().copied().filter_map(Ttl::if_set).min()
}

/// Vault's warning for a TTL beyond its maximum.
#[must_use]
pub(crate) fn capped(wanted: Ttl, max: Ttl) -> String {
    format!("TTL of \"{wanted}\" exceeded the effective max_ttl of \"{max}\"; TTL value is capped accordingly")
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RequestedTtl {
    /// So much from now, and never past the maximum counted from the making.
    Ttl(Ttl),
    /// So much from now, again and again: only an explicit maximum ends it.
    Period(Ttl),
}

/// What there is to keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TtlBounds {
    pub created_at: Timestamp,
    pub now: Timestamp,
    /// Of mount and role, from `created_at` on.
    pub max: Ttl,
    /// Of this one alone; zero: none.
    pub explicit_max: Ttl,
    /// What was agreed besides.
    pub agreed_end: Timestamp,
    /// The least that policy modules allow, from `now` on.
    pub ceiling: Option<Ttl>,
}

/// The end, and what the client should know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub at: Timestamp,
    pub ttl: Ttl,
    pub warnings: Vec<String>,
}

/// `None`: the maximum has passed. Warnings name what is left of the maximum, not the whole.
pub(crate) fn end(wanted: RequestedTtl, bounds: &TtlBounds) -> Option<End> {
    let TtlBounds { created_at, now, explicit_max, .. } = *bounds;
    let max = least(&[bounds.max, explicit_max]).unwrap_or(bounds.max);
    let mut warnings = Vec::new();
    let (wanted, until) = match wanted {
        RequestedTtl::Ttl(wanted) => (wanted, created_at + max),
        RequestedTtl::Period(period) => {
            if period > max {
                warnings.push(format!(
                    "period of \"{period}\" exceeded the effective max_ttl of \"{max}\"; period value is capped accordingly"
                ));
            }
            (period.min(max), explicit_max.if_set().map_or(Timestamp::NEVER, |max| created_at + max))
        }
    };
    let until = until.min(bounds.agreed_end);
    // Whole seconds on both sides, as in Vault: a fraction that is missing is worth no warning.
    let left = u64::try_from(until.as_secs().saturating_sub(now.as_secs())).ok().filter(|left| *left > 0)?;
    let left = bounds.ceiling.map_or(Ttl::from_secs(left), |ceiling| ceiling.min(Ttl::from_secs(left)));
    if wanted > left {
        warnings.push(capped(wanted, left));
    }
    let ttl = wanted.min(left);
    Some(End { at: (now + ttl).min(until), ttl, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Ttl = Ttl::from_secs(3_600);

    /// Made at 1,000 s, with an hour at most.
    fn bounds(now: i64) -> TtlBounds {
        TtlBounds {
            created_at: Timestamp::from_secs(1_000),
            now: Timestamp::from_secs(now),
            max: HOUR,
            explicit_max: Ttl::ZERO,
            agreed_end: Timestamp::NEVER,
            ceiling: None,
        }
    }

    #[test]
    fn nothing_passes_its_maximum_and_warnings_name_what_is_left() {
        let end = end(RequestedTtl::Ttl(Ttl::from_secs(600)), &bounds(4_300)).unwrap();
        assert_eq!((end.at, end.ttl), (Timestamp::from_secs(4_600), Ttl::from_secs(300)));
        assert_eq!(
            end.warnings,
            ["TTL of \"10m\" exceeded the effective max_ttl of \"5m\"; TTL value is capped accordingly"]
        );
    }

    #[test]
    fn what_was_agreed_and_a_modules_ceiling_bound_it_too() {
        let agreed = TtlBounds { agreed_end: Timestamp::from_secs(1_100), ..bounds(1_050) };
        assert_eq!(end(RequestedTtl::Ttl(HOUR), &agreed).unwrap().at, Timestamp::from_secs(1_100));
        let ceiling = TtlBounds { ceiling: Some(Ttl::from_secs(10)), ..agreed };
        for wanted in [RequestedTtl::Ttl(HOUR), RequestedTtl::Period(HOUR)] {
            assert_eq!(end(wanted, &ceiling).unwrap().at, Timestamp::from_secs(1_060));
        }
        assert_eq!(end(RequestedTtl::Ttl(HOUR), &bounds(4_600)), None, "the maximum has passed");
    }

    #[test]
    fn a_period_ends_only_with_an_explicit_maximum() {
        let late = TtlBounds { now: Timestamp::from_secs(1_000_000), ..bounds(0) };
        assert_eq!(end(RequestedTtl::Period(HOUR), &late).unwrap().ttl, HOUR);
        let explicit = TtlBounds { explicit_max: Ttl::from_secs(1_800), ..bounds(1_000) };
        let end = end(RequestedTtl::Period(HOUR), &explicit).unwrap();
        assert_eq!(end.ttl, Ttl::from_secs(1_800));
        assert_eq!(
            end.warnings,
            ["period of \"1h\" exceeded the effective max_ttl of \"30m\"; period value is capped accordingly"]
        );
        let all = self::end(RequestedTtl::Period(HOUR), &bounds(1_000)).unwrap();
        assert_eq!((all.ttl, all.warnings), (HOUR, Vec::<String>::new()), "as long as the maximum is not too long");
    }

    #[test]
    fn a_missing_fraction_of_a_second_is_worth_no_warning() {
        let half = std::time::Duration::from_millis(500);
        let renewed = TtlBounds { now: Timestamp::from_secs(1_000) + half, ..bounds(0) };
        let end = end(RequestedTtl::Ttl(HOUR), &renewed).unwrap();
        assert_eq!((end.at, end.ttl), (Timestamp::from_secs(4_600), HOUR));
        assert!(end.warnings.is_empty(), "{:?}", end.warnings);
    }
}
