//! Stretches of time, once or every week. All numbers are Unix seconds or seconds of a week that starts on Monday.

pub(crate) const WEEK: i64 = 7 * 24 * 3600;

/// The week that holds 1 January 1970, a Thursday, began three days before it.
const MONDAY: i64 = 3 * 24 * 3600;

#[derive(Clone, Debug)]
pub(crate) enum Window {
    Once { from: i64, to: i64 },
    Weekly { from: i64, length: i64, offset: i64 },
}

impl Window {
    /// When this window ends, if it is on at `now`. A window holds its first second, not its last.
    pub(crate) fn end_if_on(&self, now: i64) -> Option<i64> {
        match self {
            Self::Once { from, to } => (*from..*to).contains(&now).then_some(*to),
            Self::Weekly { from, length, offset } => {
                let since = week_second(now, *offset).saturating_sub(*from).rem_euclid(WEEK);
                (since < *length).then(|| now.saturating_sub(since).saturating_add(*length))
            }
        }
    }

    /// When it begins next, strictly after `now`; none when that never happens again.
    pub(crate) fn next_start(&self, now: i64) -> Option<i64> {
        match self {
            Self::Once { from, .. } => (*from > now).then_some(*from),
            Self::Weekly { from, offset, .. } => {
                let left = from.saturating_sub(week_second(now, *offset)).rem_euclid(WEEK);
                Some(now.saturating_add(if left == 0 { WEEK } else { left }))
            }
        }
    }
}

fn week_second(now: i64, offset: i64) -> i64 {
    now.saturating_add(offset).saturating_add(MONDAY).rem_euclid(WEEK)
}
