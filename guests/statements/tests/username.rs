//! Names by templates: what Go and Vault make of them, and what never comes out.

// A test may fail by `unwrap`.
#![allow(clippy::unwrap_used)]

use leasehold_statements::{UsernameFacts, check_username, username};
use proptest::prelude::*;

fn bytes(seed: u8) -> Vec<u8> {
    (0..512_u32).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn made(template: &str, display_name: &str, role_name: &str) -> Result<String, String> {
    let randomness = bytes(3);
    // 2026-06-09T07:05:04.078Z, a Tuesday.
    let facts = UsernameFacts { display_name, role_name, now_millis: 1_780_988_704_078, randomness: &randomness };
    username(template, &facts)
}

#[test]
fn templates_make_what_go_makes_of_them() {
    for (template, wanted) in [
        ("plain", "plain"),
        ("{{ .RoleName }}-{{.DisplayName}}", "a.role-token"),
        ("  {{- .RoleName -}}  x", "a.rolex"),
        ("{{/* nothing */}}x", "x"),
        ("{{ .RoleName | uppercase | truncate 3 }}", "A.R"),
        ("{{ truncate 3 .RoleName }}{{ (lowercase \"AB\") }}", "a.rab"),
        ("{{ printf \"%s_%d_%v\" .RoleName 7 \"z\" }}", "a.role_7_z"),
        ("{{ printf \"%x\" \"ab\" }}{{ printf `%x` 255 }}", "6162ff"),
        ("{{ print \"a\" 1 2 \"b\" }}", "a1 2b"),
        ("{{ replace \".\" \"_\" .RoleName }}", "a_role"),
        ("{{ sha256 \"a\" | truncate 8 }}", "ca978112"),
        ("{{ base64 \"ab\" }}{{ decode_base64 \"YWI=\" }}", "YWI=ab"),
        ("{{ hex \"ab\" }}{{ decode_hex \"6162\" }}", "6162ab"),
        ("{{ unix_time }}.{{ unix_time_millis }}", "1780988704.1780988704078"),
        ("{{ timestamp \"2006-01-02T15:04:05Z07:00\" }}", "2026-06-09T07:05:04Z"),
        ("{{ timestamp \"Mon-Jan-2-3PM-06\" }}", "Tue-Jun-9-7AM-26"),
        ("{{ timestamp \"Monday-January-_2.5\" }}", "Tuesday-June- 9.4"),
        ("{{ truncate_sha256 12 \"abcdefghijklmnop\" }}", "abcdc1bd5d19"),
    ] {
        let made = made(template, "token", "a.role");
        if wanted.contains(' ') {
            assert!(made.unwrap_err().contains("could mean something to SQL"), "{template}");
        } else {
            assert_eq!(made.unwrap(), wanted, "{template}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_said_in_gos_words() {
    let parse = "unable to initialize username template: unable to parse template: template: template:1: ";
    let apply = "invalid username template: unable to apply template: template: template:1:";
    for (template, why) in [
        ("{{ bad }}", format!("{parse}function \"bad\" not defined")),
        ("{{", format!("{parse}unclosed action")),
        ("{{ .RoleName", format!("{parse}unclosed action")),
        ("{{ (random 5 }}", format!("{parse}unclosed left paren")),
        ("{{ \"x }}", format!("{parse}unterminated quoted string")),
        ("{{ if true }}{{ end }}", format!("{parse}\"if\" is not offered in a username_template")),
        ("{{ $x }}", format!("{parse}variables are not offered in a username_template")),
        ("{{ }}", format!("{parse}missing value for command")),
        ("{{/* open }}", format!("{parse}unclosed comment")),
        (
            "{{.Foo}}",
            format!(
                "{apply}2: executing \"template\" at <.Foo>: can't evaluate field Foo in type dbplugin.UsernameMetadata"
            ),
        ),
        (
            "{{ random }}",
            format!("{apply}3: executing \"template\" at <random>: wrong number of args for random: want 1 got 0"),
        ),
        ("{{ random \"x\" }}", format!("{apply}10: executing \"template\" at <\"x\">: expected integer; found \"x\"")),
        (
            "{{ truncate 0 .DisplayName }}",
            format!(
                "{apply}3: executing \"template\" at <truncate 0 .DisplayName>: error calling truncate: max length must be > 0 but was 0"
            ),
        ),
    ] {
        assert_eq!(check_username(template).unwrap_err(), why, "{template}");
    }
    let line = check_username("a\nb{{ bad }}").unwrap_err();
    assert!(line.contains("template:2: function"), "{line}");
}

#[test]
fn a_template_without_a_random_part_is_warned_of() {
    for (template, warnings) in [
        ("{{.RoleName}}", 1),
        ("{{.RoleName}}-{{unix_time}}", 1),
        ("{{.RoleName}}-{{random 1}}", 0),
        ("{{ uuid }}", 0),
        ("{{ random 20 | sha256 | truncate 20 }}", 0),
    ] {
        assert_eq!(check_username(template).unwrap().len(), warnings, "{template}");
    }
}

#[test]
fn a_name_that_is_too_long_loses_what_comes_from_outside_and_nothing_else() {
    let long = "x".repeat(300);
    for template in [
        "{{.DisplayName}}-{{.RoleName}}-{{random 20}}",
        "{{.DisplayName}}-{{.RoleName}}-{{random 20}}-{{unix_time}}",
        // The cut would take the random part.
        "{{ printf \"v-%s-%s-%s\" .DisplayName .RoleName (random 20) | truncate 63 }}",
        "{{ printf \"%s%s%s%s\" .RoleName .RoleName .RoleName .RoleName }}-{{uuid}}",
    ] {
        let (whole, short) = (made(template, &long, &long).unwrap(), made(template, "", "").unwrap());
        assert!(whole.len() <= 63 && whole.len() > 50, "{template}: {whole}");
        let random = short.split('-').max_by_key(|part| part.len()).unwrap();
        assert!(whole.contains(random), "{template}: {whole} has no {random}");
    }
    assert!(
        made("{{random 40}}{{random 40}}", "a", "b").unwrap_err().contains("even without display name and role name")
    );
}

proptest! {
    /// Whatever the template and whoever asks: no panic, no long name, nothing that means something to SQL.
    #[test]
    fn every_name_is_a_name(
        template in r#"([a-zA-Z0-9 '"$;(){}|.\\`-]|\{\{|\}\}|\.RoleName|\.DisplayName|random|truncate|printf|replace|"|[0-9]){0,24}"#,
        display_name in ".{0,80}",
        role_name in ".{0,80}",
    ) {
        let _ = check_username(&template);
        for text in [template, "{{.DisplayName}}{{.RoleName}}{{random 5}}".to_owned()] {
            if let Ok(name) = made(&text, &display_name, &role_name) {
                prop_assert!(!name.is_empty() && name.len() <= 63);
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@+/=:".contains(c)), "{name:?}");
            }
        }
    }
}
