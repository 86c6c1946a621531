//! What holds for every template.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

use leasehold_statements::{Dialect, Purpose, check, engine, plain, render};
use proptest::collection::vec;
use proptest::prelude::*;

const KEYS: [&str; 4] = ["name", "username", "password", "expiration"];

fn purposes() -> impl Strategy<Value = Purpose> {
    prop::sample::select(vec![
        Purpose::Creation,
        Purpose::Renewal,
        Purpose::Revocation,
        Purpose::Rollback,
        Purpose::Rotation,
    ])
}

/// Any value but one that spells a placeholder with the text around it: there Vault itself is random. The `#` is in no key.
fn values() -> impl Strategy<Value = Vec<(String, String)>> {
    vec("[a-zA-Z0-9 '\"\\\\$&<>\n-]{0,9}#", 4)
        .prop_map(|values| KEYS.iter().map(|key| (*key).to_owned()).zip(values).collect())
}

/// Text in which no brace and no backslash touches a tag.
fn text() -> impl Strategy<Value = String> {
    "([a-zA-Z0-9 '\"$;,.=~!#/^>&*|@\t\r\n\u{e9}\u{20ac}-]|[{}\\\\][ x'\n]){0,12}"
}

fn bare_template() -> impl Strategy<Value = String> {
    let piece = prop_oneof![text(), prop::sample::select(KEYS.to_vec()).prop_map(|key| format!("{{{{{key}}}}}"))];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// What template authors and fingers produce: tags, halves of tags, and everything that means something to handlebars.
fn wild_template() -> impl Strategy<Value = String> {
    let pieces = vec![
        "{{",
        "}}",
        "{",
        "}",
        "{{{",
        "}}}",
        "{{{{",
        "}}}}",
        "\\",
        "\\{{",
        "{{#",
        "{{/",
        "{{^}}",
        "{{else}}",
        "{{else if ",
        "{{#if name}}",
        "{{/if}}",
        "{{#unless (eq name \"x\")}}",
        "{{/unless}}",
        "{{name}}",
        "{{ name }}",
        "{{~name~}}",
        "{{ident name}}",
        "{{literal name}}",
        "{{dollar (literal name)}}",
        "{{!--",
        "--}}",
        "{{! x }}",
        "{{> p}}",
        "{{this}}",
        "{{@root}}",
        "{{#each this}}",
        "{{/each}}",
        "name",
        "username",
        "nosuch",
        "this",
        "(",
        ")",
        "not ",
        "eq ",
        "and ",
        "\"",
        "'",
        "1",
        "-0",
        "true",
        " ",
        "\n",
        "\t",
        "~",
        "&",
        "as |x|",
        "=",
        ".",
        "/",
        "[",
        "]",
        "@",
        "é",
        "$$",
        ";",
        "\0",
        "{{#eq name 1}}",
        "{{/eq}}",
        "{{else unless name}}",
        "{{else}}x",
        "{{#if (and name (or name 1))}}",
    ];
    prop_oneof![
        4 => vec(prop::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
        1 => vec(any::<u8>(), 0..64).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

/// Templates that pass the gate: blocks that nest and close.
fn handlebars_template() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        text(),
        prop::sample::select(vec![
            "{{name}}",
            "{{ password }}",
            "{{~username}}",
            "{{expiration~}}",
            "{{ident username}}",
            "{{literal expiration}}",
            "{{dollar password}}",
            "{{literal (ident name)}}",
            "{{!-- c --}}",
            "{{! c }}",
            "\\{{name}}",
            "\\\\{{name}}",
        ])
        .prop_map(str::to_owned),
    ];
    let condition = prop::sample::select(vec![
        "name",
        "(eq name 'x#')",
        "(not expiration)",
        "(and name password)",
        "(or (eq name username) (not true))",
        "1",
        "''",
    ]);
    leaf.prop_recursive(4, 40, 4, move |inner| {
        let body = vec(inner, 0..4).prop_map(|pieces| pieces.concat());
        let tail = prop_oneof![
            Just(""),
            Just("{{else}}"),
            Just("{{^}}"),
            Just("{{else if name}}"),
            Just("{{~else unless name~}}")
        ];
        (prop::sample::select(vec!["if", "unless"]), condition.clone(), vec((body.clone(), tail), 1..4), body).prop_map(
            |(block, condition, arms, last)| {
                let mut template = format!("{{{{#{block} {condition}}}}}");
                let mut ended = false;
                for (body, tail) in arms {
                    template += &body;
                    if !ended {
                        template += tail;
                    }
                    ended |= tail == "{{else}}" || tail == "{{^}}";
                }
                template + &last + &format!("{{{{/{block}}}}}")
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_renders_bare_tags_as_replacement_does(template in bare_template(), values in values()) {
        let replaced = plain::render(&template, &values, 1 << 20).unwrap();
        prop_assert_eq!(engine::render(&template, &values).unwrap(), replaced.as_str());
        let both = [Dialect::Handlebars, Dialect::Plain].map(|dialect| render(std::slice::from_ref(&template), dialect, &values));
        for rendered in both {
            prop_assert_eq!(rendered.unwrap(), vec![replaced.clone()]);
        }
    }

    #[test]
    fn replacement_is_vaults(template in wild_template(), values in values()) {
        let vaults = values.iter().fold(template.clone(), |text, (key, value)| text.replace(&format!("{{{{{key}}}}}"), value));
        prop_assert_eq!(plain::render(&template, &values, 1 << 20).unwrap(), vaults);
    }

    #[test]
    fn a_checked_template_renders_in_the_dialect_that_the_check_named(
        template in prop_oneof![wild_template(), bare_template(), handlebars_template()],
        purpose in purposes(),
        wished in prop::sample::select(vec![Dialect::Handlebars, Dialect::Plain]),
    ) {
        let report = check(std::slice::from_ref(&template), purpose, wished);
        let values: Vec<(String, String)> =
            purpose.variables().iter().map(|name| ((*name).to_owned(), "v-token-x".to_owned())).collect();
        prop_assert!(render(std::slice::from_ref(&template), report.dialect, &values).is_ok());
        if wished == Dialect::Plain {
            prop_assert_eq!(report.dialect, Dialect::Plain);
        }
        if wished != report.dialect {
            prop_assert!(report.diagnostics.iter().any(|found| found.code == "kept-plain"));
        }
    }

    #[test]
    fn every_position_is_inside_its_statement(template in wild_template(), purpose in purposes()) {
        let lines = u32::try_from(template.split('\n').count()).unwrap();
        for found in check(std::slice::from_ref(&template), purpose, Dialect::Handlebars).diagnostics {
            prop_assert!(found.line >= 1 && found.line <= lines);
            let line = template.split('\n').nth(found.line as usize - 1).unwrap();
            prop_assert!(found.column >= 1 && found.column as usize <= line.len() + 1, "{:?}", found);
        }
    }

    #[test]
    fn nothing_panics_and_a_value_leaves_only_where_its_name_stands(template in wild_template()) {
        let values = vec![("name".to_owned(), "N".to_owned()), ("password".to_owned(), "SECRET".to_owned())];
        for dialect in [Dialect::Handlebars, Dialect::Plain] {
            match render(std::slice::from_ref(&template), dialect, &values) {
                Ok(rendered) => prop_assert!(!rendered[0].contains("SECRET")),
                Err(refused) => {
                    let shown = format!("{:?}", refused);
                    prop_assert!(!shown.contains("SECRET"), "{}", shown);
                }
            }
        }
    }

    #[test]
    fn every_block_that_nests_and_closes_is_handlebars(template in handlebars_template()) {
        let report = check(std::slice::from_ref(&template), Purpose::Creation, Dialect::Handlebars);
        let refused = report.diagnostics.iter().find(|found| found.code == "kept-plain" && !found.message.contains("backslash"));
        prop_assert!(refused.is_none(), "{:?}", refused);
    }
}
