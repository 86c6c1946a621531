//! What a role demands, against tokens that meet it and tokens that nearly do.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leasehold_core::fields::Fields;
use serde_json::json;

use super::super::routes;
use super::*;
use crate::auth::jose::testing::{SignKey, set};
use crate::auth::jose::{Algorithm, Compact};

fn fields(data: &Value) -> Fields {
    let op = routes::ROUTES.iter().find(|route| route.pattern == "role/:name").unwrap();
    let takes = op.operations.iter().map(|op| op.fields).find(|fields| !fields.is_empty()).unwrap();
    Fields::coerce(takes, data.as_object().unwrap()).unwrap()
}

fn role(data: &Value) -> Result<Role, String> {
    let mut all = json!({ "role_type": "jwt", "user_claim": "sub", "token_bound_cidrs": "127.0.0.1" });
    for (name, value) in data.as_object().unwrap() {
        all[name] = value.clone();
    }
    let mut role = Role::default();
    role.update(&fields(&all), true).map(|()| role).map_err(|error| error.to_string())
}

/// As claims come in earnest: through a signature.
fn claims(value: &Value) -> Claims {
    let key = SignKey::for_algorithm(Algorithm::EdDsa);
    let token = key.token(None, value);
    assert!(token.contains(&URL_SAFE_NO_PAD.encode(value.to_string())));
    Compact::read(&token).unwrap().verify(&set(&[(None, &key)])).unwrap()
}

fn admitted(role: &Role, token: &Value) -> Result<Identity, Unfit> {
    let mut all = json!({ "sub": "bob" });
    for (name, value) in token.as_object().unwrap() {
        all[name] = value.clone();
    }
    role.admit(&claims(&all))
}

#[test]
fn what_makes_no_sense_is_refused_in_vaults_words() {
    for (data, why) in [
        (json!({ "role_type": "zz" }), "invalid 'role_type': zz"),
        (json!({ "user_claim": "" }), "a user claim must be defined on the role"),
        (json!({ "token_bound_cidrs": "" }), "must have at least one bound constraint when creating/updating a role"),
        (json!({ "bound_claims_type": "regex" }), "invalid 'bound_claims_type': regex"),
        (json!({ "bound_claims_type": "glob", "bound_claims": { "a": 1 } }), "claim is not a string: 1"),
        (
            json!({ "bound_claims": { "a": { "b": 1 } } }),
            "the bound claim \"a\" is not a string, bool, number or a list of these",
        ),
        (
            json!({ "bound_claims": { "a": [["b"]] } }),
            "the bound claim \"a\" is not a string, bool, number or a list of these",
        ),
        (json!({ "claim_mappings": { "a": "m", "b": "m" } }), "multiple keys are mapped to metadata key \"m\""),
        (
            json!({ "claim_mappings": { "a": "role" } }),
            "metadata key \"role\" is reserved and may not be a mapping destination",
        ),
        (json!({ "token_policies_template_claims": true }), "'token_policies_template_claims' is not offered"),
    ] {
        assert_eq!(role(&data).unwrap_err(), why, "{data}");
    }
    for data in [json!({ "role_type": "oidc" }), json!({ "role_type": "" }), json!({ "role_type": null })] {
        let why = role(&data).unwrap_err();
        assert!(why.contains("is the browser flow"), "{data}: {why}");
    }
}

#[test]
fn a_later_write_changes_what_it_names_and_the_type_stays() {
    let mut role = role(&json!({ "bound_claims": { "a": "b" } })).unwrap();
    role.update(&fields(&json!({ "bound_subject": "bob" })), false).unwrap();
    assert_eq!(role.bound_subject, "bob");
    assert_eq!(role.bound_claims.len(), 1);
    assert!(role.update(&fields(&json!({ "role_type": "oidc" })), false).is_err());
    role.update(&fields(&json!({ "bound_claims": {} })), false).unwrap();
    assert!(role.bound_claims.is_empty());
}

#[test]
fn leeways_are_durations_and_may_be_less_than_zero() {
    for (given, wanted) in
        [(json!("5m"), 300), (json!(7), 7), (json!(-1), -1), (json!("-1"), -1), (json!("-2m"), -120), (json!(""), 0)]
    {
        assert_eq!(role(&json!({ "expiration_leeway": given })).unwrap().expiration_leeway, wanted, "{given}");
    }
    for wrong in [json!("soon"), json!([]), json!(true), json!("--1")] {
        assert!(role(&json!({ "clock_skew_leeway": wrong })).is_err(), "{wrong}");
    }
}

#[test]
fn a_bound_claim_is_met_by_the_same_value_of_the_same_type() {
    let missing = || Err(Unfit::Missing("c".to_owned()));
    let other = || Err(Unfit::NoMatch("c".to_owned()));
    let odd = || Err(Unfit::NoValue("c".to_owned()));
    for (bound, claim, wanted) in [
        (json!("x"), json!("x"), Ok(())),
        (json!(["w", "x"]), json!("x"), Ok(())),
        (json!("x"), json!(["a", "x"]), Ok(())),
        (json!(["w", "x"]), json!(["x", "y"]), Ok(())),
        (json!("x"), json!("X"), other()),
        (json!("x"), json!("x "), other()),
        (json!("x"), json!([]), other()),
        (json!([]), json!("x"), other()),
        (json!("x"), Value::Null, missing()),
        (json!("x"), json!({ "x": 1 }), odd()),
        (json!("x"), json!([["x"]]), odd()),
        (json!("x"), json!(["x", null]), odd()),
        (json!(5), json!(5), Ok(())),
        (json!(5), json!(5.0), Ok(())),
        // OpenBao cuts the fraction off.
        (json!(5), json!(5.7), other()),
        (json!(5), json!("5"), other()),
        (json!("5"), json!(5), other()),
        (json!(true), json!(true), Ok(())),
        (json!(true), json!("true"), other()),
        (json!(true), json!(1), other()),
        (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64), other()),
        // A star is a letter where nobody asked for patterns.
        (json!("a*"), json!("ab"), other()),
        (json!("a*"), json!("a*"), Ok(())),
    ] {
        let role = role(&json!({ "bound_claims": { "c": bound } })).unwrap();
        assert_eq!(admitted(&role, &json!({ "c": claim })).map(|_| ()), wanted, "{bound} {claim}");
    }
    let role = role(&json!({ "bound_claims": { "c": "x", "/d/e": "y" } })).unwrap();
    assert!(admitted(&role, &json!({ "c": "x", "d": { "e": "y" } })).is_ok());
    assert_eq!(
        admitted(&role, &json!({ "c": "x", "d": {} })).unwrap_err(),
        Unfit::Missing("/d/e".to_owned()),
        "all count"
    );
}

/// The pattern is the operator's; whatever the other side writes into a claim is text.
#[test]
fn patterns_in_a_claim_widen_nothing() {
    let role =
        role(&json!({ "bound_claims_type": "glob", "bound_claims": { "c": ["repo:me/app:*", "exact"] } })).unwrap();
    for (claim, wanted) in [
        (json!("repo:me/app:ref"), true),
        (json!(["other", "repo:me/app:"]), true),
        (json!("exact"), true),
        (json!("repo:me/app2:ref"), false),
        (json!("repo:ME/app:ref"), false),
        (json!("*"), false),
        (json!("repo:*"), false),
        (json!("exac?"), false),
        (json!("exact*"), false),
        (json!(".*"), false),
        (json!("[e]xact"), false),
        (json!("x\nrepo:me/app:ref"), false),
        (json!(["*", "+", "/", ","]), false),
        (json!(5), false),
        (json!(true), false),
    ] {
        assert_eq!(admitted(&role, &json!({ "c": claim })).is_ok(), wanted, "{claim}");
    }
}

#[test]
fn the_user_claim_is_a_text_by_name_or_by_pointer() {
    let plain = role(&json!({ "user_claim": "/u/n" })).unwrap();
    let token = json!({ "u": { "n": "deep" }, "/u/n": "flat" });
    assert_eq!(admitted(&plain, &token).unwrap().name, "flat");
    let pointer = role(&json!({ "user_claim": "/u/n", "user_claim_json_pointer": true })).unwrap();
    assert_eq!(admitted(&pointer, &token).unwrap().name, "deep");
    let role = role(&json!({ "user_claim": "u" })).unwrap();
    for (claim, wanted) in [
        (Value::Null, Unfit::NoClaim("u".to_owned())),
        (json!(5), Unfit::NoText("u".to_owned())),
        (json!(["bob"]), Unfit::NoText("u".to_owned())),
        (json!({}), Unfit::NoText("u".to_owned())),
        (json!(""), Unfit::NoName("u".to_owned())),
        (json!("x".repeat(NAME_MAX + 1)), Unfit::NoName("u".to_owned())),
    ] {
        assert_eq!(admitted(&role, &json!({ "u": claim })).unwrap_err(), wanted);
    }
}

#[test]
fn texts_become_metadata_and_what_is_not_there_is_left_out() {
    let role = role(&json!({ "claim_mappings": { "email": "mail", "/x/y": "xy", "none": "none" } })).unwrap();
    let found = admitted(&role, &json!({ "email": "e@x", "x": { "y": "1" }, "other": "z" })).unwrap().metadata;
    let wanted = BTreeMap::from([("mail".to_owned(), "e@x".to_owned()), ("xy".to_owned(), "1".to_owned())]);
    assert_eq!(found, wanted);
    for odd in [json!(5), json!(true), json!({}), json!([])] {
        assert_eq!(admitted(&role, &json!({ "email": odd })).unwrap_err(), Unfit::NoText("email".to_owned()), "{odd}");
    }
}

#[test]
fn groups_are_a_text_or_a_list_of_texts() {
    let role = role(&json!({ "groups_claim": "g" })).unwrap();
    for (claim, wanted) in [
        (json!("a"), Ok(())),
        (json!(["a", "b"]), Ok(())),
        (json!([]), Ok(())),
        (Value::Null, Err(Unfit::NoClaim("g".to_owned()))),
        (json!([1]), Err(Unfit::NoGroups("g".to_owned()))),
        (json!({}), Err(Unfit::NoGroups("g".to_owned()))),
    ] {
        assert_eq!(admitted(&role, &json!({ "g": claim })).map(|_| ()), wanted, "{claim}");
    }
}

#[test]
fn why_a_token_is_unfit_quotes_nothing_of_it() {
    let role = role(&json!({ "bound_claims": { "c": "x" }, "claim_mappings": { "m": "m" } })).unwrap();
    for token in [json!({ "c": "canary" }), json!({ "c": { "canary": 1 } }), json!({ "c": "x", "m": ["canary"] })] {
        let why = admitted(&role, &token).unwrap_err().to_string();
        assert!(!why.contains("canary"), "{why}");
    }
}
