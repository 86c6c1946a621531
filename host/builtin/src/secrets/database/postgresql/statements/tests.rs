//! What holds for statement texts, by example and for arbitrary text.

use proptest::collection::vec;
use proptest::prelude::*;
use secrecy::{ExposeSecret, SecretString};

use super::properties::{self, HOLE};
use super::secret::{Placed, SubstituteError};
use super::*;

const SCRAM: &str = "SCRAM-SHA-256$4096:c2FsdHNhbHQ+Lw==$a+/b=:c+/d=";

fn put(sql: &str, secret: &str) -> Result<String, SubstituteError> {
    substitute(sql, HOLE, &SecretString::from(secret)).map(|text| text.expose_secret().to_owned())
}

fn places(sql: &str) -> Vec<Placement> {
    placements(sql, HOLE).into_iter().map(|place| place.placement).collect()
}

#[test]
fn an_element_is_unpacked_from_base64_and_json() {
    for (element, statements) in [
        ("CREATE ROLE a; SELECT 1", vec!["CREATE ROLE a; SELECT 1"]),
        ("Q1JFQVRFIFJPTEUgYTs=", vec!["CREATE ROLE a;"]),
        ("Q1JFQVRF\nIFJPTEUgYTs=\n", vec!["CREATE ROLE a;"]),
        (r#"["a; b", "c"]"#, vec!["a; b", "c"]),
        ("WyJhOyBiIiwgImMiXQ==", vec!["a; b", "c"]),
        ("[]", vec![]),
        // Base64 of something that nobody wrote; Vault sends the bytes to the database.
        ("COMMIT12", vec!["COMMIT12"]),
        ("abcd", vec!["abcd"]),
        ("ABCDEFGH", vec!["ABCDEFGH"]),
        ("", vec![""]),
        ("[1, 2]", vec!["[1, 2]"]),
        ("null", vec!["null"]),
        ("[[[[", vec!["[[[["]),
    ] {
        assert_eq!(unpack(element), statements, "{element}");
    }
}

#[test]
fn a_semicolon_splits_only_between_statements() {
    for (sql, statements) in [
        ("a; b ;;\n c", vec!["a", "b", "c"]),
        ("", vec![]),
        (" ; -- only; a comment\n; /* ; /* ; */ ; */ ;", vec![]),
        ("-- why; so\nSELECT 1;", vec!["-- why; so\nSELECT 1"]),
        ("SELECT 1 -- a; b\r; SELECT 2", vec!["SELECT 1 -- a; b", "SELECT 2"]),
        ("'a;''b;' x; y", vec!["'a;''b;' x", "y"]),
        (r"'a\'; b", vec![r"'a\'", "b"]),
        (r"E'a\'; b'; c", vec![r"E'a\'; b'", "c"]),
        ("E'a'\n -- ;\n 'b\\'; c'; d", vec!["E'a'\n -- ;\n 'b\\'; c'", "d"]),
        ("namee'a\\'; b", vec!["namee'a\\'", "b"]),
        (r"U&'a\'; b", vec![r"U&'a\'", "b"]),
        (r#""a;""b;" x; U&"c;d"; e"#, vec![r#""a;""b;" x"#, r#"U&"c;d""#, "e"]),
        ("$$a;b$$; $t$ ; $$ ; $t$; c", vec!["$$a;b$$", "$t$ ; $$ ; $t$", "c"]),
        ("a$$;b$$;c", vec!["a$$", "b$$", "c"]),
        ("$1;$2", vec!["$1", "$2"]),
        ("1$$;$$;a", vec!["1$$;$$", "a"]),
        ("$é$;$é$;a", vec!["$é$;$é$", "a"]),
        ("DO $$ begin perform 1; end $$; b", vec!["DO $$ begin perform 1; end $$", "b"]),
        (
            "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); b",
            vec!["CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "b"],
        ),
        ("a); b", vec!["a)", "b"]),
        (
            "create function f() returns int begin atomic select case when true then 1 end as end; select t.end; end; b",
            vec![
                "create function f() returns int begin atomic select case when true then 1 end as end; select t.end; end",
                "b",
            ],
        ),
        ("BEGIN; CREATE ROLE a; END; b", vec!["BEGIN", "CREATE ROLE a", "END", "b"]),
        ("a; 'never; closed", vec!["a", "'never; closed"]),
        ("a; /* never; closed", vec!["a"]),
        // A no-break space is a letter of a name: with it gone the second would be an escape literal that goes on.
        ("a;\u{a0}; b", vec!["a", "b"]),
        ("\u{a0}E'a\\'; b", vec!["\u{a0}E'a\\'", "b"]),
        ("a; $x$ never; closed", vec!["a", "$x$ never; closed"]),
    ] {
        assert_eq!(split(sql), statements, "{sql}");
    }
}

#[test]
fn a_placeholder_is_found_where_it_stands() {
    use Placement as P;
    for (sql, expected) in [
        ("PASSWORD Ph0lder", vec![P::Bare]),
        ("xPh0ldery", vec![P::Bare]),
        ("\"Ph0lder\" U&\"Ph0lder\"", vec![P::QuotedIdentifier, P::QuotedIdentifier]),
        ("'Ph0lder' E'Ph0lder' e'Ph0lder'", vec![P::Literal, P::EscapeLiteral, P::EscapeLiteral]),
        ("'a Ph0lder Ph0lder'", vec![P::PartOfLiteral, P::PartOfLiteral]),
        ("E'a'\n'Ph0lder'", vec![P::PartOfLiteral]),
        ("U&'Ph0lder'", vec![P::UnicodeLiteral]),
        ("$$Ph0lder$$ $q$Ph0lder$q$", vec![P::DollarQuoted, P::DollarQuoted]),
        ("$Ph0lder$x$Ph0lder$", vec![P::Bare, P::Bare]),
        ("-- Ph0lder\n/* Ph0lder */", vec![P::Comment, P::Comment]),
        ("'Ph0lder", vec![P::Bare]),
        ("ph0lder", vec![]),
    ] {
        assert_eq!(places(sql), expected, "{sql}");
    }
    let inside = placements("DO $$ BEGIN EXECUTE 'x Ph0lder'; PERFORM f('Ph0lder'); PERFORM Ph0lder; END $$", HOLE);
    assert_eq!(inside[0], Placed { placement: P::PartOfLiteral, offset: 23, bodies: 1 });
    assert_eq!(inside[1], Placed { placement: P::Literal, offset: 44, bodies: 1 });
    assert_eq!(inside[2].placement, P::Bare);
}

#[test]
fn a_secret_in_a_literal_of_its_own_means_itself() {
    for (sql, secret, expected) in [
        ("PASSWORD 'Ph0lder'", "a'b\\c\"d", "PASSWORD 'a''b\\c\"d'"),
        ("PASSWORD E'Ph0lder'", "a'b\\c", "PASSWORD E'a''b\\\\c'"),
        ("PASSWORD 'Ph0lder' -- x", "'; DROP ROLE x; --", "PASSWORD '''; DROP ROLE x; --' -- x"),
        ("PASSWORD 'Ph0lder'", "", "PASSWORD ''"),
        ("PASSWORD 'Ph0lder'", SCRAM, "PASSWORD 'SCRAM-SHA-256$4096:c2FsdHNhbHQ+Lw==$a+/b=:c+/d='"),
        (
            "$$Ph0lder$$ $q$Ph0lder$q$",
            SCRAM,
            "$$SCRAM-SHA-256$4096:c2FsdHNhbHQ+Lw==$a+/b=:c+/d=$$ $q$SCRAM-SHA-256$4096:c2FsdHNhbHQ+Lw==$a+/b=:c+/d=$q$",
        ),
        (
            "DO $$ BEGIN EXECUTE format('x %L', 'Ph0lder'); END $$",
            "a'b",
            "DO $$ BEGIN EXECUTE format('x %L', 'a''b'); END $$",
        ),
        (
            "EXECUTE 'PASSWORD ''Ph0lder'''",
            SCRAM,
            "EXECUTE 'PASSWORD ''SCRAM-SHA-256$4096:c2FsdHNhbHQ+Lw==$a+/b=:c+/d='''",
        ),
        ("\"Ph0lder\" Ph0lder -- Ph0lder", "abc123", "\"abc123\" abc123 -- abc123"),
        ("no place", "any'thing", "no place"),
    ] {
        assert_eq!(put(sql, secret).as_deref(), Ok(expected), "{sql} {secret}");
    }
}

#[test]
fn a_secret_that_could_mean_something_else_is_refused() {
    use SubstituteError as E;
    for (sql, secret, why) in [
        ("PASSWORD Ph0lder", SCRAM, E::Place(Placement::Bare)),
        ("PASSWORD Ph0lder", "", E::Place(Placement::Bare)),
        ("\"Ph0lder\"", "a\"b", E::Place(Placement::QuotedIdentifier)),
        ("\"Ph0lder\"", "a-b", E::Place(Placement::QuotedIdentifier)),
        ("-- Ph0lder", "a\nDROP ROLE x", E::Place(Placement::Comment)),
        ("/* Ph0lder */", "*/", E::Place(Placement::Comment)),
        ("U&'Ph0lder'", "a\\b", E::Place(Placement::UnicodeLiteral)),
        ("DO $$ PERFORM Ph0lder $$", SCRAM, E::Place(Placement::Bare)),
        ("EXECUTE 'PASSWORD ''Ph0lder'''", "a'b", E::PartOfLiteral),
        ("EXECUTE 'PASSWORD ''Ph0lder'''", "a\\b", E::PartOfLiteral),
        ("EXECUTE 'DO $x$ Ph0lder $x$'", "a$x$b", E::PartOfLiteral),
        ("EXECUTE 'DO $$ Ph0lder $$'", "a$$b", E::PartOfLiteral),
        ("EXECUTE 'x -Ph0lder'", "-b", E::PartOfLiteral),
        ("$$Ph0lder$$", "a$$; DROP ROLE x; $$", E::Structure),
        ("$$Ph0lder$$", "a$", E::Structure),
        ("$q$Ph0lder$q$", "$q$ || $q$", E::Structure),
        ("DO $$ PERFORM 'Ph0lder' $$", "$$; DROP ROLE x; $$", E::Structure),
        ("SELECT Ph0lder", "1a", E::Structure),
        ("'Ph0lder'", "a\0b", E::Nul),
        ("'Ph0lder", "a'b", E::Place(Placement::Bare)),
    ] {
        assert_eq!(put(sql, secret), Err(why), "{sql} {secret}");
    }
    for placeholder in ["", "a b", "'", "é", "1a", "a-b"] {
        let refused = substitute("x", placeholder, &SecretString::from("a")).map(|_| ());
        assert_eq!(refused, Err(SubstituteError::Placeholder), "{placeholder}");
        assert_eq!(placements("x a b 1a", placeholder), [], "{placeholder}");
    }
}

#[test]
fn a_refusal_never_shows_the_secret() {
    let refused = put("PASSWORD Ph0lder", "s3cret-value").unwrap_err();
    assert!(!format!("{refused} {refused:?}").contains("s3cret"), "{refused}");
}

#[test]
fn bodies_are_looked_into_only_so_deep() {
    let mut sql = "'Ph0lder'".to_owned();
    for depth in 0..2_000 {
        sql = format!("$t{depth}$ {sql} $t{depth}$");
    }
    assert_eq!(placements(&sql, HOLE).first().map(|place| place.bodies), Some(4));
    assert_eq!(put(&sql, SCRAM), Err(SubstituteError::Place(Placement::Bare)));
    assert!(put(&sql, "abc").is_ok());
}

#[test]
fn only_what_changes_rows_of_the_leased_role_alone_runs_beside_others() {
    for alone in [
        "CREATE ROLE \"v-x\" LOGIN PASSWORD 'p' VALID UNTIL 'x' IN ROLE readers;",
        "create user \"v-x\" in group g",
        "ALTER ROLE \"v-x\" VALID UNTIL 'x'",
        "ALTER USER \"v-x\" SET search_path = app",
        "DROP ROLE IF EXISTS \"v-x\";",
        "drop role \"v-x\"",
        "GRANT readers, writers TO \"v-x\"",
        "GRANT readers TO \"v-x\" WITH ADMIN OPTION",
        "REVOKE readers FROM \"v-x\" CASCADE",
        "COMMENT ON ROLE \"v-x\" IS 'GRANT ALL ON t'",
        "SET search_path = app; RESET ROLE",
        "",
        "-- nothing",
    ] {
        assert!(!touches_shared(alone, "v-x"), "{alone}");
    }
    for shared in [
        "GRANT SELECT ON t TO \"v-x\"",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"v-x\"",
        "REVOKE ALL ON t FROM \"v-x\"",
        "GRANT readers TO \"v-x\", other",
        "GRANT \"v-x\" TO readers",
        "DROP OWNED BY \"v-x\"",
        "REASSIGN OWNED BY \"v-x\" TO g",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO \"v-x\"",
        "COMMENT ON TABLE t IS 'x'",
        "ALTER ROLE readers VALID UNTIL 'x'",
        "ALTER ROLE ALL SET search_path = app",
        "ALTER GROUP readers ADD USER \"v-x\"",
        "ALTER GROUP \"v-x\" ADD USER readers",
        "ALTER USER MAPPING FOR \"v-x\" SERVER s OPTIONS (SET user 'x')",
        "CREATE USER MAPPING FOR \"v-x\" SERVER s",
        "DROP ROLE \"v-x\", readers",
        "DROP ROLE readers",
        "DROP USER MAPPING FOR \"v-x\" SERVER s",
        "CREATE SCHEMA a",
        "DO $$ BEGIN END $$",
        "SELECT make_role('v-x')",
        "CREATE ROLE \"v-x\"; GRANT SELECT ON t TO \"v-x\"",
        "/* CREATE ROLE x */ GRANT SELECT ON t TO \"v-x\"",
        "GRANT",
        "ALTER ROLE",
        "'",
    ] {
        assert!(touches_shared(shared, "v-x"), "{shared}");
    }
    assert!(!touches_shared("ALTER ROLE V_x NOLOGIN", "v_x"), "an unquoted name is folded");
    assert!(touches_shared("ALTER ROLE \"V_x\" NOLOGIN", "v_x"), "a quoted one is not");
}

/// Text in which everything that matters to quoting is likely.
fn sql() -> impl Strategy<Value = String> {
    let pieces = vec![
        "'",
        "''",
        "E'",
        "e'",
        "U&'",
        "U&\"",
        "N'",
        "\"",
        "\"\"",
        "\\",
        "\\'",
        "$$",
        "$t$",
        "$",
        "$1",
        "t$",
        "--",
        "\n",
        "\r",
        " ",
        "/*",
        "*/",
        ";",
        "(",
        ")",
        "a",
        "Ph0lder",
        "'Ph0lder'",
        "E'Ph0lder'",
        "$$Ph0lder$$",
        "1",
        "1E",
        "é",
        "\u{0}",
        "begin ",
        "atomic ",
        "end ",
        "case ",
        "create ",
        "as ",
        ".",
        "GRANT x TO y",
        "DROP ROLE ",
        "CREATE ROLE ",
        ",",
    ];
    prop_oneof![
        6 => vec(prop::sample::select(pieces), 0..24).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_whole(sql in sql()) {
        properties::any_text_is_read_whole(&sql);
    }

    #[test]
    fn unpacking_takes_any_text(element in prop_oneof![any::<String>(), "[A-Za-z0-9+/]{0,40}={0,2}", "\\[(\"[a-z;]{0,3}\",?){0,4}\\]"]) {
        properties::any_text_is_read_whole(&element);
    }

    #[test]
    fn a_secret_never_leaves_its_place(sql in sql(), secret in prop_oneof![sql(), "[a-zA-Z0-9]{1,30}", Just(SCRAM.to_owned())]) {
        properties::a_secret_never_leaves_its_place(&sql, &secret);
    }

    #[test]
    fn a_secret_of_any_kind_goes_into_a_literal(secret in any::<String>()) {
        prop_assume!(!secret.contains('\0'));
        prop_assert!(put("PASSWORD 'Ph0lder' E'Ph0lder'", &secret).is_ok());
    }
}
