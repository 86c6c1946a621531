//! What an operator relies on.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use change_freeze::{Freeze, Operation, Request, Verdict};

/// 2026-12-24T12:00:00Z, a Thursday.
const EVE: i64 = 1_798_113_600;
const HOUR: i64 = 3600;

fn freeze(config: &str) -> Freeze {
    Freeze::from_json(config.as_bytes()).unwrap()
}

fn ask(freeze: &Freeze, now: i64) -> Verdict {
    judged(freeze, now, Operation::Obtain, "token-app", &["default"])
}

fn judged(freeze: &Freeze, now: i64, operation: Operation, display_name: &str, policies: &[&str]) -> Verdict {
    let policies: Vec<String> = policies.iter().map(|name| (*name).to_owned()).collect();
    freeze.judge(&Request { operation, display_name, policies: &policies, now })
}

fn allowed(max_ttl: Option<u32>) -> Verdict {
    Verdict::Allow { max_ttl, note: None }
}

const YEAR_END: &str = r#"{
    "windows": [{ "from": "2026-12-20T00:00:00Z", "to": "2027-01-04T08:00:00+01:00", "message": "year-end freeze" }],
    "max_ttl": "1h", "end_before_freeze": false,
    "exempt": { "policies": ["break-glass"], "display_names": ["token-oncall-*"] }
}"#;

#[test]
fn in_a_freeze_credentials_are_refused_with_its_end_and_its_message() {
    let message = "credentials are frozen until 2027-01-04T07:00:00Z: year-end freeze".to_owned();
    assert_eq!(ask(&freeze(YEAR_END), EVE), Verdict::Deny { message });
}

#[test]
fn a_window_holds_its_first_second_and_not_its_last() {
    let freeze = freeze(r#"{ "windows": [{ "from": 1000, "to": 2000 }], "end_before_freeze": false }"#);
    for (now, refused) in [(999, false), (1000, true), (1999, true), (2000, false)] {
        assert_eq!(matches!(ask(&freeze, now), Verdict::Deny { .. }), refused, "{now}");
    }
}

#[test]
fn outside_a_freeze_the_ceiling_holds() {
    assert_eq!(ask(&freeze(YEAR_END), EVE + 30 * 24 * HOUR), allowed(Some(3600)));
    assert_eq!(ask(&freeze("{}"), EVE), allowed(None));
}

#[test]
fn a_lease_does_not_reach_into_the_next_freeze() {
    let freeze = freeze(r#"{ "windows": [{ "from": 10000, "to": 20000 }], "max_ttl": 3600 }"#);
    assert_eq!(ask(&freeze, 1000), allowed(Some(3600)));
    assert_eq!(ask(&freeze, 9000), allowed(Some(1000)));
    assert_eq!(ask(&freeze, 9999), allowed(Some(1)));
    assert_eq!(ask(&freeze, 20000), allowed(Some(3600)));
}

#[test]
fn ending_access_and_looking_are_never_refused() {
    let verdict = judged(&freeze(YEAR_END), EVE, Operation::Harmless, "token-app", &["default"]);
    assert_eq!(verdict, allowed(None));
}

#[test]
fn renewals_pass_a_freeze_unless_they_are_to_be_denied() {
    let renew = |freeze: &Freeze| judged(freeze, EVE, Operation::Renew, "token-app", &["default"]);
    assert!(matches!(renew(&freeze(YEAR_END)), Verdict::Allow { max_ttl: Some(3600), .. }));
    let strict = YEAR_END.replacen('{', r#"{ "renewals": "deny", "#, 1);
    assert!(matches!(renew(&freeze(&strict)), Verdict::Deny { .. }));
}

#[test]
fn the_exempt_pass_and_audit_says_why() {
    let by = |name: &str, policies: &[&str]| judged(&freeze(YEAR_END), EVE, Operation::Obtain, name, policies);
    for (verdict, why) in [
        (by("token-app", &["default", "break-glass"]), "exempt from the freeze by the policy break-glass"),
        (by("token-oncall-ann", &["default"]), "exempt from the freeze by the display name token-oncall-*"),
    ] {
        assert_eq!(verdict, Verdict::Allow { max_ttl: Some(3600), note: Some(why.to_owned()) });
    }
    assert!(matches!(by("token-oncal", &["break-glas"]), Verdict::Deny { .. }));
}

#[test]
fn a_weekly_window_may_span_the_weekend_and_has_its_own_offset() {
    let freeze = freeze(
        r#"{ "weekly": [{ "from": "Fri 16:00", "to": "Mon 07:00", "utc_offset": "+01:00", "message": "weekend" }] }"#,
    );
    // Friday 25 December: 15:00 UTC is 16:00 there.
    let friday = EVE + 24 * HOUR;
    for (now, refused) in [
        (friday + 3 * HOUR - 1, false),
        (friday + 3 * HOUR, true),
        (friday + 40 * HOUR, true),
        (friday + 3 * HOUR + 63 * HOUR - 1, true),
        (friday + 3 * HOUR + 63 * HOUR, false),
    ] {
        assert_eq!(matches!(ask(&freeze, now), Verdict::Deny { .. }), refused, "{now}");
    }
    let Verdict::Deny { message } = ask(&freeze, friday + 4 * HOUR) else { panic!("allowed") };
    assert_eq!(message, "credentials are frozen until 2026-12-28T06:00:00Z: weekend");
    // Three hours before it begins, a lease gets three hours.
    assert_eq!(ask(&freeze, friday), allowed(Some(3 * 3600)));
}

#[test]
fn windows_that_follow_each_other_are_one_freeze() {
    let freeze = freeze(
        r#"{ "windows": [{ "from": 1000, "to": 2000 }, { "from": 1500, "to": 3000 }, { "from": 3000, "to": 4000 }] }"#,
    );
    let Verdict::Deny { message } = ask(&freeze, 1200) else { panic!("allowed") };
    assert!(message.contains("1970-01-01T01:06:40Z"), "{message}");
}

#[test]
fn a_configuration_that_could_mean_something_else_is_refused() {
    for (config, expected) in [
        ("", "EOF"),
        ("[]", "expected struct"),
        (r#"{ "window": [] }"#, "unknown field `window`"),
        (r#"{ "windows": [{ "from": 2, "to": 1 }] }"#, "windows[0]: it ends before it begins"),
        (r#"{ "windows": [{ "from": "tomorrow", "to": 1 }] }"#, "windows[0]: `tomorrow` is no time"),
        (r#"{ "weekly": [{ "from": "Fri 16:00", "to": "Fri 16:00" }] }"#, "weekly[0]: it ends when it begins"),
        (r#"{ "weekly": [{ "from": "Friday", "to": "Mon 07:00" }] }"#, "`Friday` is no time of the week"),
        (r#"{ "weekly": [{ "from": "Fri 25:00", "to": "Mon 07:00" }] }"#, "`Fri 25:00`"),
        (r#"{ "weekly": [{ "from": "Fri 16:00", "to": "Mon 07:00", "utc_offset": "CET" }] }"#, "`CET` is no offset"),
        (r#"{ "max_ttl": 0 }"#, "max_ttl"),
        (r#"{ "max_ttl": "1 hour" }"#, "max_ttl"),
        (r#"{ "max_ttl": "99999999999h" }"#, "max_ttl"),
        (r#"{ "exempt": { "policies": ["*"] } }"#, "would exempt everybody"),
        (r#"{ "renewals": "maybe" }"#, "unknown variant"),
    ] {
        let why = Freeze::from_json(config.as_bytes()).unwrap_err();
        assert!(why.contains(expected), "{config}: {why}");
    }
}

#[test]
fn extreme_times_do_not_panic() {
    let freeze = freeze(
        r#"{ "windows": [{ "from": -9223372036854775808, "to": 9223372036854775807 }],
             "weekly": [{ "from": "Mon 00:00", "to": "Sun 23:00", "utc_offset": "-14:00" }] }"#,
    );
    for now in [i64::MIN, -1, 0, 1, i64::MAX - 1, i64::MAX] {
        ask(&freeze, now);
    }
}
