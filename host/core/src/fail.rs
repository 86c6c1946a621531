//! Named points at which the crash tests kill the process. Without the feature `fail-points` they are nothing.

/// Ends the process as `kill -9` does, when `LEASEHOLD_FAIL_POINT` names this point.
#[cfg(feature = "fail-points")]
pub fn point(name: &str) {
    if std::env::var("LEASEHOLD_FAIL_POINT").is_ok_and(|wanted| wanted == name) {
        std::process::abort();
    }
}

#[cfg(not(feature = "fail-points"))]
#[inline]
pub fn point(_name: &str) {}
