//! What each form of template does in each dialect, and what is said about it.

// A test fails by panicking, in its helpers too.
#![allow(clippy::unwrap_used)]

use leasehold_statements::{Diagnostic, Dialect, Purpose, check, render};

fn values() -> Vec<(String, String)> {
    [("name", "VALUE"), ("username", "VALUE"), ("password", "PLACEHOLDER"), ("expiration", "2030-01-01 00:00:00+0000")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
}

fn plain(template: &str) -> String {
    render(&[template.to_owned()], Dialect::Plain, &values()).unwrap().remove(0)
}

fn handlebars(template: &str) -> Result<String, Diagnostic> {
    render(&[template.to_owned()], Dialect::Handlebars, &values()).map(|mut all| all.remove(0))
}

fn dialect_of(template: &str) -> Dialect {
    check(&[template.to_owned()], Purpose::Creation, Dialect::Handlebars).dialect
}

fn said(template: &str, purpose: Purpose, wished: Dialect) -> Vec<(&'static str, u32, u32, Option<String>)> {
    check(&[template.to_owned()], purpose, wished)
        .diagnostics
        .into_iter()
        .map(|found| (found.code, found.line, found.column, found.help))
        .collect()
}

fn codes(template: &str) -> Vec<&'static str> {
    said(template, Purpose::Creation, Dialect::Handlebars).into_iter().map(|(code, ..)| code).collect()
}

#[test]
fn bare_tags_render_as_in_vault_and_stay_handlebars() {
    for (template, rendered) in [
        (r#""{{name}}""#, r#""VALUE""#),
        ("'}}' || '{{name}}'", "'}}' || 'VALUE'"),
        (r#"{"a":{"b":"{{name}}"}}"#, r#"{"a":{"b":"VALUE"}}"#),
        ("$${{name}}$$", "$$VALUE$$"),
        ("{{name}}}", "VALUE}"),
        ("{{name}}{{username}}\n\n  {{password}} ", "VALUEVALUE\n\n  PLACEHOLDER "),
        ("\n{{name}}\n", "\nVALUE\n"),
        ("  {{name}}\r\n", "  VALUE\r\n"),
        ("é{{name}}é", "éVALUEé"),
        (r"a\b {{name}} \ ", r"a\b VALUE \ "),
        ("no tag <&\">", "no tag <&\">"),
        ("", ""),
    ] {
        assert_eq!(plain(template), rendered, "{template}");
        assert_eq!(handlebars(template).unwrap(), rendered, "{template}");
        assert_eq!(dialect_of(template), Dialect::Handlebars, "{template}");
        let engine = leasehold_statements::engine::render(template, &values()).unwrap();
        assert_eq!(engine, rendered, "the engine itself: {template}");
    }
}

#[test]
fn what_handlebars_would_refuse_or_change_is_kept_plain() {
    for (template, rendered) in [
        ("{{{name}}}", "{VALUE}"),
        ("{{{{name}}}}", "{{VALUE}}"),
        ("{{&name}}", "{{&name}}"),
        ("{{@root.name}}", "{{@root.name}}"),
        ("{{unknown}}", "{{unknown}}"),
        ("{{NAME}}", "{{NAME}}"),
        ("{{name.x}}", "{{name.x}}"),
        ("{{name-x}}", "{{name-x}}"),
        ("{{#if nosuch}}x{{else}}y{{/if}}", "{{#if nosuch}}x{{else}}y{{/if}}"),
        (r"\{{name}}", r"\VALUE"),
        (r"\\{{name}}", r"\\VALUE"),
        ("SELECT '{{'", "SELECT '{{'"),
        ("{{}}", "{{}}"),
        ("{{{name}}", "{VALUE"),
        ("{{> part}}", "{{> part}}"),
        ("{{* dec}}", "{{* dec}}"),
        ("{{#*inline \"x\"}}{{/inline}}", "{{#*inline \"x\"}}{{/inline}}"),
        ("{{#> part}}{{/part}}", "{{#> part}}{{/part}}"),
        ("{{name password}}", "{{name password}}"),
        ("{{this}}", "{{this}}"),
        ("{{log name}}", "{{log name}}"),
        ("{{log}}{{raw}}{{else}}", "{{log}}{{raw}}{{else}}"),
        ("{{lookup this \"name\"}}", "{{lookup this \"name\"}}"),
        ("{{#each this}}{{@key}}={{this}}{{/each}}", "{{#each this}}{{@key}}={{this}}{{/each}}"),
        ("{{#with name}}{{this}}{{/with}}", "{{#with name}}{{this}}{{/with}}"),
        ("{{#raw}}{{name}}{{/raw}}", "{{#raw}}VALUE{{/raw}}"),
        ("{{{{raw}}}}{{name}}{{{{/raw}}}}", "{{{{raw}}}}VALUE{{{{/raw}}}}"),
        ("{{#if name}}x", "{{#if name}}x"),
        ("{{/if}}", "{{/if}}"),
        ("{{#if name}}x{{/unless}}", "{{#if name}}x{{/unless}}"),
        ("{{#if name}}a{{else}}b{{else}}c{{/if}}", "{{#if name}}a{{else}}b{{else}}c{{/if}}"),
        ("{{#if name as |x|}}a{{/if}}", "{{#if name as |x|}}a{{/if}}"),
        ("{{#if (nosuch name)}}a{{/if}}", "{{#if (nosuch name)}}a{{/if}}"),
        ("{{#if this}}a{{/if}}", "{{#if this}}a{{/if}}"),
        ("{{#if @root}}a{{/if}}", "{{#if @root}}a{{/if}}"),
        ("{{#if ../name}}a{{/if}}", "{{#if ../name}}a{{/if}}"),
        ("{{#if [name]}}a{{/if}}", "{{#if [name]}}a{{/if}}"),
        ("{{ident}}", "{{ident}}"),
        ("{{ident name username}}", "{{ident name username}}"),
        ("{{(ident name)}}", "{{(ident name)}}"),
        ("{{literal x=name}}", "{{literal x=name}}"),
        ("{{literal (literal (literal name))}}", "{{literal (literal (literal name))}}"),
        ("{{ident \"\"}}", "{{ident \"\"}}"),
        ("{{!-- never closed", "{{!-- never closed"),
        ("{{#if name", "{{#if name"),
        ("{{name", "{{name"),
    ] {
        assert_eq!(dialect_of(template), Dialect::Plain, "{template}");
        assert!(codes(template).contains(&"kept-plain"), "{template}: {:?}", codes(template));
        assert_eq!(plain(template), rendered, "{template}");
        if !template.starts_with('\\') {
            assert!(handlebars(template).is_err(), "{template}");
        }
    }
}

#[test]
fn handlebars_does_what_it_is_for() {
    for (template, rendered) in [
        ("{{ name }}", "VALUE"),
        ("a {{~name~}} b", "aVALUEb"),
        ("{{!-- c --}}x{{! c }}", "x"),
        ("{{!-- }} --}}x", "x"),
        ("{{ident name}} {{literal name}} {{dollar name}}", r#""VALUE" 'VALUE' $$VALUE$$"#),
        ("{{literal \"it's\"}}", "'it''s'"),
        ("{{literal (ident name)}}", "'\"VALUE\"'"),
        ("{{#if expiration}}VALID{{/if}}", "VALID"),
        ("{{#unless expiration}}a{{else}}b{{/unless}}", "b"),
        ("{{#unless expiration}}a{{^}}b{{/unless}}", "b"),
        ("{{#if (eq name \"VALUE\")}}same{{/if}}", "same"),
        ("{{#if (and name (not (eq name '}}')))}}both{{/if}}", "both"),
        ("{{#if (or (eq 1 2) (eq true true))}}one{{/if}}", "one"),
        ("{{#eq name \"x\"}}a{{else}}b{{/eq}}", "b"),
        ("{{#if (eq name \"a\")}}1{{else if (eq name \"VALUE\")}}2{{else}}3{{/if}}", "2"),
        ("{{#if (eq name \"a\")}}1{{else if (eq name \"b\")}}2{{else}}3{{/if}}", "3"),
        ("{{#if name}}{{#if username}}in{{/if}}ner{{/if}}", "inner"),
        ("a\n  {{#if name}}\n  b\n  {{/if}}\nc", "a\n  b\nc"),
        (r"{{ name }} \{{name}} \\{{name}}", r"VALUE {{name}} \VALUE"),
    ] {
        assert_eq!(handlebars(template).as_deref(), Ok(rendered), "{template}");
        assert_eq!(dialect_of(template), Dialect::Handlebars, "{template}: {:?}", codes(template));
    }
}

#[test]
fn an_unknown_variable_inside_a_block_is_found_where_it_stands() {
    let text = "CREATE ROLE x VALID UNTIL 'a';\n{{#if nmae}}x{{/if}}";

    let found = said(text, Purpose::Creation, Dialect::Handlebars);

    assert!(found.contains(&("unknown-variable", 2, 7, Some("did you mean `name`?".into()))), "{found:?}");
    assert!(found.iter().any(|(code, line, column, _)| (*code, *line, *column) == ("kept-plain", 2, 7)), "{found:?}");
    let refused = handlebars(text).unwrap_err();
    assert_eq!((refused.code, refused.line, refused.column), ("unknown-variable", 2, 7));
}

#[test]
fn a_misspelt_placeholder_is_pointed_at_with_what_was_meant() {
    for (template, code, column, help) in [
        ("é{{nmae}}", "unknown-variable", 3, "did you mean `{{name}}`?"),
        ("{{ nmae }}", "near-miss", 1, "did you mean `{{name}}`?"),
        ("{{ name }}", "near-miss", 1, "write `{{name}}`"),
        ("{{NAME}}", "near-miss", 1, "write `{{name}}`"),
        ("{{~name}}", "near-miss", 1, "write `{{name}}`"),
        ("{{role_name}}", "unknown-variable", 1, "did you mean `{{name}}`?"),
        (
            "{{x}}",
            "unknown-variable",
            1,
            "at creation there are `{{name}}`, `{{username}}`, `{{password}}`, `{{expiration}}`",
        ),
    ] {
        let found = said(template, Purpose::Creation, Dialect::Plain);
        assert!(found.contains(&(code, 1, column, Some(help.to_owned()))), "{template}: {found:?}");
    }
    for fine in ["{{name}}", "'{{'", r#"{"a":{"b":1}}"#, "{{\"a\": 1}}", "{{{name}}}"] {
        let found = said(fine, Purpose::Renewal, Dialect::Plain);
        assert!(found.is_empty(), "{fine}: {found:?}");
    }
}

#[test]
fn a_variable_of_another_purpose_is_unknown() {
    let found = said("DROP ROLE \"{{name}}\" -- {{password}}", Purpose::Revocation, Dialect::Plain);
    assert_eq!(found.len(), 1, "{found:?}");
    let (code, _, column, help) = &found[0];
    assert_eq!((*code, *column), ("unknown-variable", 25));
    assert!(help.as_deref().unwrap().starts_with("`password` does not exist at revocation"), "{help:?}");
    assert_eq!(Purpose::Renewal.variables(), ["name", "username", "expiration"]);
    assert_eq!(Purpose::Rollback.variables(), ["name", "username"]);
    assert_eq!(Purpose::Rotation.variables(), ["name", "username", "password"]);
}

const GOOD: &str =
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readers;";

#[test]
fn nothing_is_said_about_good_statements() {
    for (text, purpose) in [
        (GOOD, Purpose::Creation),
        (
            "create user \"{{name}}\" password '{{password}}' valid until '{{expiration}}'; GRANT readers TO \"{{name}}\"",
            Purpose::Creation,
        ),
        ("ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'", Purpose::Renewal),
        ("DROP ROLE IF EXISTS \"{{name}}\"", Purpose::Revocation),
        ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'", Purpose::Revocation),
        ("ALTER ROLE \"{{username}}\" WITH PASSWORD '{{password}}'", Purpose::Rotation),
    ] {
        for wished in [Dialect::Handlebars, Dialect::Plain] {
            let report = check(&[text.to_owned()], purpose, wished);
            assert_eq!(report.dialect, wished, "{text}");
            assert_eq!(report.diagnostics, [], "{text}");
        }
    }
}

#[test]
fn create_role_without_an_end_is_pointed_at() {
    let text = " CREATE ROLE \"{{name}}\" PASSWORD '{{password}}' -- VALID UNTIL\n";
    let found = said(text, Purpose::Creation, Dialect::Handlebars);
    assert!(matches!(found.as_slice(), [("no-valid-until", 1, 2, Some(_))]), "{found:?}");
    let split = [text.to_owned(), "ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'".to_owned()];
    assert_eq!(check(&split, Purpose::Creation, Dialect::Handlebars).diagnostics, []);
}

#[test]
fn a_right_granted_to_the_leased_role_is_pointed_at() {
    for grant in [
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\"",
        "grant usage on schema app to other, \"{{username}}\"",
        "GRANT SELECT ON t TO {{ident name}}",
        "DO $$ BEGIN GRANT SELECT ON t TO \"{{name}}\"; END $$",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO \"{{name}}\"",
    ] {
        let text = format!("{GOOD}\n{grant}");
        let found = said(&text, Purpose::Creation, Dialect::Handlebars);
        let column = u32::try_from(grant.to_lowercase().find("grant").unwrap()).unwrap() + 1;
        assert!(matches!(found.as_slice(), [("direct-grant", 2, at, Some(_))] if *at == column), "{grant}: {found:?}");
    }
    for fine in [
        "GRANT readers TO \"{{name}}\"",
        "GRANT SELECT ON t TO readers",
        "GRANT SELECT ON t TO g; GRANT g TO \"{{name}}\"",
    ] {
        assert_eq!(codes(&format!("{GOOD} {fine}")), Vec::<&str>::new(), "{fine}");
    }
}

#[test]
fn a_name_in_single_quotes_is_pointed_at() {
    for (text, purpose, column) in [
        ("CREATE ROLE '{{name}}' VALID UNTIL 'x'", Purpose::Creation, 13),
        ("DROP ROLE IF EXISTS '{{name}}'", Purpose::Revocation, 21),
        ("GRANT g TO '{{name}}'", Purpose::Rollback, 12),
        ("DROP OWNED BY '{{name}}'", Purpose::Revocation, 15),
    ] {
        let found = said(text, purpose, Dialect::Handlebars);
        assert!(
            matches!(found.as_slice(), [("single-quoted-name", 1, at, Some(_))] if *at == column),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn creation_without_create_role_is_a_hint() {
    let found = check(&["SELECT make('{{name}}')".to_owned()], Purpose::Creation, Dialect::Handlebars);
    assert_eq!(found.diagnostics.len(), 1);
    assert_eq!(found.diagnostics[0].code, "no-create-role");
    assert_eq!(check(&[], Purpose::Creation, Dialect::Handlebars).diagnostics, []);
}

#[test]
fn the_statement_is_named_by_its_index() {
    let report = check(&[GOOD.to_owned(), "{{nope}}".to_owned()], Purpose::Creation, Dialect::Handlebars);
    assert!(!report.diagnostics.is_empty());
    assert!(report.diagnostics.iter().all(|found| found.statement == 1), "{:?}", report.diagnostics);
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = |depth: usize| format!("{}x{}", "{{#if name}}".repeat(depth), "{{/if}}".repeat(depth));
    assert_eq!(handlebars(&deep(16)).as_deref(), Ok("x"));
    assert!(handlebars(&deep(17)).unwrap_err().message.contains("nested deeper"));
    let parentheses =
        |depth: usize| format!("{{{{#if {}name{}}}}}x{{{{/if}}}}", "(not ".repeat(depth), ")".repeat(depth));
    assert!(handlebars(&parentheses(15)).is_ok());
    assert!(handlebars(&parentheses(16)).unwrap_err().message.contains("nested deeper"));
    assert!(handlebars(&parentheses(9_999)).is_err());
    // Each `else if` is a block inside of the one before: two hundred overran the guest's stack.
    let chain = |links: usize| {
        format!("{{{{#if (not name)}}}}a{}{{{{else}}}}c{{{{/if}}}}", "{{else if (not name)}}b".repeat(links))
    };
    assert_eq!(handlebars(&chain(15)).as_deref(), Ok("c"));
    assert!(handlebars(&chain(16)).unwrap_err().message.contains("nested deeper"));
    assert!(handlebars(&"{{#if name}}".repeat(5_000)).is_err());
    assert!(handlebars(&"{{ name }}".repeat(257)).is_err());
    assert!(handlebars(&format!("{{{{#if name}}}}{}{{{{/if}}}}", "x".repeat(64 << 10))).is_err());
    let huge = "x".repeat((1 << 20) + 1);
    assert_eq!(codes(&huge), ["too-large"]);
    assert_eq!(render(std::slice::from_ref(&huge), Dialect::Plain, &values()).unwrap_err().code, "too-large");
    let long = vec![("name".to_owned(), "x".repeat(1 << 20))];
    assert_eq!(render(&["{{name}}".repeat(5)], Dialect::Plain, &long).unwrap_err().code, "too-large");
    assert_eq!(render(&["{{ name }}".repeat(5)], Dialect::Handlebars, &long).unwrap_err().code, "too-large");
    let diagnostics = check(&["{{x}}".repeat(10_000)], Purpose::Creation, Dialect::Handlebars).diagnostics;
    assert_eq!(diagnostics.len(), 64);
}

#[test]
fn a_value_is_never_read_as_a_template() {
    let hostile = "{{password}} {{#if name}} \\{{name}} '\" &<>";
    let values = vec![("name".to_owned(), hostile.to_owned()), ("password".to_owned(), "SECRET".to_owned())];
    for template in ["{{name}}", "{{ name }}"] {
        let rendered = render(&[template.to_owned()], Dialect::Handlebars, &values).unwrap();
        assert_eq!(rendered, [hostile], "{template}");
    }
}

#[test]
fn an_error_never_shows_a_value() {
    let values = vec![("name".to_owned(), "s3cret".repeat(20))];
    let refused = render(&["{{ident name}}".to_owned()], Dialect::Handlebars, &values).unwrap_err();
    assert_eq!(refused.message, "`ident`: PostgreSQL cuts an identifier off after 63 bytes");
}
