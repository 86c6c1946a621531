use super::*;
use crate::config::settings::SETTINGS;
use crate::config::{Address, TlsVersion};

fn read_one(text: &str) -> Result<Config, Refused> {
    read(&[Source { name: "x.hcl".to_owned(), text: text.to_owned() }])
}

fn problems(text: &str) -> Vec<(usize, String)> {
    read_one(text).unwrap_err().problems.into_iter().map(|problem| (problem.line, problem.what)).collect()
}

const STORE: &str = "storage \"inmem\" {}\n";
const LISTENER: &str = "listener \"tcp\" {\n  address = \"127.0.0.1:1\"\n  tls_disable = true\n}\n";

/// A configuration whose one listener says this besides, on its fourth line.
fn listening(settings: &str) -> String {
    format!("{STORE}listener \"tcp\" {{\n  tls_disable = true\n  {settings}\n}}\n")
}

#[test]
fn what_only_a_start_takes_over_is_named() {
    let with = |rest: &str| read_one(&format!("{STORE}{LISTENER}{rest}\n")).unwrap();
    let running = with("");
    for (rest, names) in [
        ("", vec![]),
        ("log_level = \"debug\"", vec![]),
        ("default_lease_ttl = \"2h\"\ncluster_name = \"x\"", vec!["default_lease_ttl", "cluster_name"]),
        ("listener \"tcp\" {\n  address = \"127.0.0.1:2\"\n  tls_disable = true\n}", vec!["listener"]),
        ("audit \"file\" \"main\" {\n  options = { file_path = \"/tmp/a.log\" }\n}", vec!["audit"]),
        ("pid_file = \"/tmp/x.pid\"\nconnections_max = 7", vec!["pid_file", "connections_max"]),
    ] {
        assert_eq!(running.needs_restart_for(&with(rest)), names, "{rest}");
    }
    let tls = |name: &str| {
        Some(crate::config::TlsSettings {
            cert: name.into(),
            key: "key.pem".into(),
            client_ca: None,
            asks_client: true,
            requires_client: false,
            min: TlsVersion::Tls12,
            max: TlsVersion::Tls13,
            suites: Vec::new(),
        })
    };
    let mut renewed = running.clone();
    renewed.listeners[0].tls = tls("new.pem");
    assert_eq!(running.needs_restart_for(&renewed), ["listener"], "TLS turned on");
    let mut started = running.clone();
    started.listeners[0].tls = tls("old.pem");
    assert!(started.needs_restart_for(&renewed).is_empty(), "other files are read at once");
}

#[test]
fn a_development_server_takes_what_neither_keeps_anything_nor_seals_it() {
    let read = |text: &str| read_development(&[Source { name: "x.hcl".to_owned(), text: text.to_owned() }]);
    let config = read(&format!("{STORE}{LISTENER}max_lease_ttl = \"900h\"\n")).unwrap();
    assert_eq!((config.listeners.len(), config.max_lease_ttl.as_secs()), (1, 3_240_000));
    assert_eq!(read("disable_mlock = true").unwrap().listeners.len(), 0);
    assert_eq!(read_development(&[]), Ok(Config::with_defaults()));
    for (text, line, what) in [
        ("\nstorage \"sqlite\" {\n path = \"/tmp/x.db\"\n}\n", 2, "in memory: leave `storage` out"),
        ("storage \"postgresql\" {}\n", 1, "in memory: leave `storage` out"),
        ("\n\nseal \"static\" {}\n", 3, "`seal` does not go with -dev"),
        ("listener \"tcp\" {\n adress = 1\n}", 2, "unknown setting of listener"),
    ] {
        let found = read(text).unwrap_err().problems;
        assert!(found.iter().any(|problem| problem.line == line && problem.what.contains(what)), "{text}: {found:?}");
    }
}

#[test]
fn a_configuration_reads_as_vaults() {
    let config = read_one(
        r#"
        storage "sqlite" { path = "/tmp/x.db" }
        listener "tcp" {
          address     = "127.0.0.1:8200"
          tls_disable = 1
        }
        default_lease_ttl = "1h"
        max_lease_ttl = "24h"
        log_level = "debug"
        ui = true
        audit "file" "main" { options = { file_path = "/tmp/a.log" } }
        "#,
    )
    .unwrap();
    assert_eq!(config.store, Store::Sqlite("/tmp/x.db".into()));
    assert_eq!(config.default_lease_ttl, Ttl::from_secs(3600));
    let files: Vec<_> = config.audit.iter().map(|device| device.options.get("file_path").cloned()).collect();
    assert_eq!(files, [Some("/tmp/a.log".to_owned())]);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn json_says_the_same_as_hcl() {
    let hcl = read_one(
        "storage \"sqlite\" {\n path = \"/tmp/x.db\"\n}\nlistener \"tcp\" {\n address = \"127.0.0.1:1\"\n tls_disable = true\n}\n\
         listener \"unix\" {\n address = \"/run/x.sock\"\n}\naudit \"file\" \"main\" {\n options {\n file_path = \"stdout\"\n log_raw = false\n }\n}\n\
         max_lease_ttl = 3600\ndefault_lease_ttl = \"1h\"\n",
    );
    let json = read_one(
        r#"{"storage": {"sqlite": {"path": "/tmp/x.db"}},
        "listener": [{"tcp": {"address": "127.0.0.1:1", "tls_disable": "true"}}, {"unix": {"address": "unix:///run/x.sock"}}],
        "audit": [{"type": "file", "path": "main", "options": {"file_path": "stdout", "log_raw": false}}],
        "max_lease_ttl": "1h", "default_lease_ttl": 3600}"#,
    );
    assert_eq!(hcl.unwrap(), json.unwrap());
}

#[test]
fn every_error_is_said_at_once_with_its_line() {
    let found = problems(
        "storage \"sqlit\" {}\nlisner \"tcp\" {}\nlog_level = \"inof\"\ndefault_lease_tll = 5\nmax_lease_ttl = \"soon\"\n",
    );
    let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5], "{found:?}");
    for hint in ["did you mean `sqlite`?", "did you mean `listener`?", "did you mean `default_lease_ttl`?"] {
        assert!(found.iter().any(|(_, what)| what.contains(hint)), "{hint}: {found:?}");
    }
}

#[test]
fn an_audit_device_that_could_not_be_opened_is_refused_with_its_line() {
    let rest = "storage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = true\n}\n";
    for (block, said) in [
        ("audit \"fil\" \"a\" {\n  options = { file_path = \"x\" }\n}\n", "did you mean `file`?"),
        ("audit \"file\" \"a\" {\n  options = { filepath = \"x\" }\n}\n", "needs `file_path`"),
        ("audit \"file\" \"a\" {\n  options = { file_path = \"x\", log_raw = \"yes\" }\n}\n", "`log_raw` must be"),
        ("audit \"file\" \"a\" {\n  options = { file_path = \"x\", format = \"jsonx\" }\n}\n", "only be \"json\""),
        ("audit \"file\" \"a\" {\n  options = { file_path = \"x\", mode = \"rw\" }\n}\n", "octal"),
        ("audit \"file\" {\n  options = { file_path = \"x\" }\n}\n", "needs two labels"),
        ("audit \"syslog\" \"a\" {}\n", "file_path = \"stdout\""),
    ] {
        let found = problems(&format!("{rest}{block}"));
        assert!(found.iter().any(|(line, what)| *line >= 5 && what.contains(said)), "{found:?}");
    }
}

#[test]
fn a_storage_that_is_none_of_ours_is_the_only_thing_said_of_it() {
    let found = problems("storage \"raft\" {\n  path = \"x\"\n}\nlistener \"tcp\" {\n  tls_disable = true\n}\n");
    assert!(matches!(found.as_slice(), [(1, what)] if what.contains("storage \"sqlite\"")), "{found:?}");
}

/// A setting that restricts works or is refused; taken with a warning it would leave open what the operator wants shut.
#[test]
fn a_setting_that_restricts_is_never_ignored() {
    for setting in [
        "tls_require_and_verify_client_cert = true",
        "max_request_size = 1024",
        "max_request_duration = \"1s\"",
        "max_json_depth = 3",
        "require_request_header = true",
        "redact_version = true",
        "chroot_namespace = \"x\"",
        "tls_key_exchange_preferences = [\"X25519\"]",
        "proxy_protocol_behavior = \"deny_unauthorized\"",
        "proxy_protocol_authorized_addrs = \"10.0.0.0/8\"",
        "x_forwarded_for_reject_not_present = false",
        "telemetry { metrics_only = true }",
    ] {
        let found = problems(&listening(setting));
        assert!(matches!(found.first(), Some((2 | 4, _))), "{setting}: {found:?}");
    }
    let seal = "seal \"awskms\" {}\nstorage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = true\n}\n";
    let found = problems(seal);
    assert!(matches!(found.as_slice(), [(1, what)] if what.contains("operator unseal")), "{found:?}");
}

#[test]
fn a_setting_said_twice_is_refused_within_a_file_and_overridden_by_a_later_one() {
    let text = format!("{STORE}{LISTENER}max_lease_ttl = \"1h\"\nmax_lease_ttl = \"900h\"\n");
    assert_eq!(problems(&text).first().map(|(line, _)| *line), Some(7));
    assert_eq!(problems(&format!("{STORE}{STORE}{LISTENER}")).first().map(|(line, _)| *line), Some(2));
    assert_eq!(problems(&listening("tls_disable = true")).first().map(|(line, _)| *line), Some(4));
    let file = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let first = file("a.hcl", &format!("{STORE}{LISTENER}max_lease_ttl = \"900h\"\n"));
    let second = file("b.hcl", "storage \"sqlite\" {\n path = \"x\"\n}\nmax_lease_ttl = \"901h\"\n");
    let config = read(&[first.clone(), second]).unwrap();
    assert_eq!((config.store, config.max_lease_ttl.as_secs()), (Store::Sqlite("x".into()), 901 * 3600));
    let refused = read(&[first, file("c.hcl", "\nnonsense = 1\n")]).unwrap_err();
    assert_eq!(
        refused.problems.iter().map(|problem| (problem.file.as_str(), problem.line)).collect::<Vec<_>>(),
        [("c.hcl", 2)]
    );
}

#[test]
fn a_syntax_error_has_its_line_and_hides_no_other_file() {
    assert_eq!(problems("storage \"sqlite\" {\n  path = \n}\n").first().map(|(line, _)| *line), Some(3));
    let found = problems("storage \"inmem\" {\nlistener \"tcp\" {\n}\n");
    assert!(found.iter().any(|(line, what)| *line == 1 && what.contains("a `{` is never closed")), "{found:?}");
    let broken = Source { name: "a.hcl".to_owned(), text: "[".to_owned() };
    let wrong = Source { name: "b.hcl".to_owned(), text: "nonsense = 1".to_owned() };
    assert_eq!(read(&[broken, wrong]).unwrap_err().problems.len(), 2);
}

#[test]
fn lifetimes_that_contradict_each_other_are_told_where_they_stand() {
    let rest = "storage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = true\n}\n";
    for (settings, line) in [("max_lease_ttl = 5", 5), ("max_lease_ttl = \"1h\"\ndefault_lease_ttl = \"2h\"", 6)] {
        let found = problems(&format!("{rest}{settings}\n"));
        assert!(
            matches!(found.as_slice(), [(at, what)] if *at == line && what.contains("is longer than")),
            "{found:?}"
        );
    }
    let unreadable = problems(&format!("{rest}default_lease_ttl = \"1w\"\nmax_lease_ttl = 5\n"));
    assert!(matches!(unreadable.as_slice(), [(5, _)]), "nothing is known to be longer: {unreadable:?}");
    assert!(problems(&format!("{rest}default_max_request_duration = \"2h\"\n"))[0].1.contains("1h or shorter"));
}

#[test]
fn a_listener_without_certificate_must_say_so() {
    let found = problems("storage \"inmem\" {}\nlistener \"tcp\" { address = \"127.0.0.1:1\" }");
    assert!(found.iter().any(|(line, what)| *line == 2 && what.contains("tls_disable")), "{found:?}");
}

#[test]
fn a_hardened_listener_is_read_whole() {
    let config = read_one(&format!(
        r#"{STORE}
        listener "tcp" {{
          address = ":8200"
          tls_disable = "true"
          proxy_protocol_behavior = "allow_authorized"
          proxy_protocol_authorized_addrs = ["10.0.0.0/8", "::1"]
          x_forwarded_for_authorized_addrs = "10.0.0.0/8,192.0.2.1"
          x_forwarded_for_hop_skips = "1"
          x_forwarded_for_reject_not_present = false
          telemetry {{ unauthenticated_metrics_access = "true" }}
          custom_response_headers {{
            "default" = {{
              "Strict-Transport-Security" = ["max-age=31536000", "includeSubDomains"],
              "X-One" = ["1"]
            }},
            "4xx" = {{ "X-One" = "4" }}
          }}
        }}
        listener "unix" {{
          address = "/run/x.sock"
          socket_mode = "0660"
          socket_user = "1000"
          socket_group = "vault"
        }}
        listener "tcp" {{
          address = "unix:///run/y.sock"
        }}"#
    ))
    .unwrap();
    let [first, second, third] = config.listeners.as_slice() else { panic!("{config:?}") };
    assert!(first.proxy_protocol.is_some() && first.unauthenticated_metrics && first.tls.is_none());
    let forwarded = first.forwarded_for.as_ref().unwrap();
    assert_eq!((forwarded.hop_skips, forwarded.reject_not_present, forwarded.reject_not_authorized), (1, false, true));
    let socket = |path: &str, mode, user: Option<&str>, group: Option<&str>| Address::Unix {
        path: path.into(),
        mode,
        user: user.map(str::to_owned),
        group: group.map(str::to_owned),
    };
    assert_eq!(second.address, socket("/run/x.sock", Some(0o660), Some("1000"), Some("vault")));
    assert_eq!(third.address, socket("/run/y.sock", None, None, None));
}

#[test]
fn settings_of_a_listener_that_do_not_go_together_are_refused() {
    for (settings, said) in [
        ("address = \"x\"", "must be host:port"),
        ("proxy_protocol_behavior = \"always\"", "known are use_always"),
        ("x_forwarded_for_authorized_addrs = \"proxy.example\"", "is no address"),
        ("x_forwarded_for_authorized_addrs = \"\"", "names no address"),
        ("x_forwarded_for_hop_skips = -1", "zero or more"),
        ("tls_max_version = \"tls14\"", "\"tls12\" or \"tls13\""),
        ("tls_min_verison = \"tls12\"", "did you mean `tls_min_version`?"),
        ("tls_cipher_suites = \"TLS_RSA_WITH_AES_128_CBC_SHA\"", "leaves no cipher suite"),
        ("tls_cipher_suites = \"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA257\"", "did you mean"),
        ("custom_response_headers {\n \"6xx\" = {}\n}", "is no status"),
        ("custom_response_headers {\n default = { \"X-Vault-Token\" = \"x\" }\n}", "the server's own"),
        ("socket_mode = \"0660\"", "unknown setting of listener"),
    ] {
        let found = problems(&listening(settings));
        assert!(found.iter().any(|(_, what)| what.contains(said)), "{settings}: {found:?}");
    }
    for (settings, said) in [
        ("address = \"\"", "path of its file"),
        ("address = \"/x\"\nsocket_mode = \"rw\"", "octal"),
        ("address = \"/x\"\ntls_cert_file = \"y\"", "unknown setting"),
        ("", "needs `address`"),
    ] {
        let found = problems(&format!("{STORE}listener \"unix\" {{\n{settings}\n}}\n"));
        assert!(found.iter().any(|(_, what)| what.contains(said)), "{settings}: {found:?}");
    }
    let tls = "tls_cert_file = \"/none.crt\"\ntls_key_file = \"/none.key\"\n";
    for (settings, said) in [
        ("tls_require_and_verify_client_cert = true", "needs `tls_client_ca_file`"),
        ("tls_require_and_verify_client_cert = true\ntls_disable_client_certs = true", "mutually exclusive"),
        ("tls_min_version = \"tls13\"\ntls_max_version = \"tls12\"", "is above"),
    ] {
        let found = problems(&format!("{STORE}listener \"tcp\" {{\n{tls}{settings}\n}}\n"));
        assert!(found.iter().any(|(_, what)| what.contains(said)), "{settings}: {found:?}");
    }
}

/// What the charts of HashiCorp and OpenBao and the operator of bank-vaults put into a configuration file.
#[test]
fn helm_charts_and_bank_vaults_are_answered_line_by_line() {
    let chart = |storage: &str| {
        format!(
            "ui = true\n\nlistener \"tcp\" {{\n  tls_disable = 1\n  address = \"[::]:8200\"\n  cluster_address = \"[::]:8201\"\n  \
             telemetry {{\n    unauthenticated_metrics_access = \"true\"\n  }}\n}}\n{storage}\n\nservice_registration \"kubernetes\" {{}}\n\n\
             telemetry {{\n  prometheus_retention_time = \"30s\"\n  disable_hostname = true\n}}\n"
        )
    };
    let ours = read_one(&chart("storage \"sqlite\" {\n  path = \"/vault/data/leasehold.db\"\n}")).unwrap();
    assert!(ours.listeners[0].unauthenticated_metrics);
    let warned: Vec<usize> = ours.warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(warned, [1, 6, 15, 18, 19], "{:?}", ours.warnings);
    for storage in [
        "storage \"file\" {\n  path = \"/vault/data\"\n}",
        "storage \"raft\" {\n  path = \"/vault/data\"\n}",
        "storage \"consul\" {\n  path = \"vault\"\n  address = \"HOST_IP:8500\"\n}",
    ] {
        let refused = read_one(&chart(storage)).unwrap_err();
        let [only] = refused.problems.as_slice() else { panic!("{refused:?}") };
        assert!(only.line == 11 && only.what.contains("use `storage \"sqlite\""), "{only}");
        assert_eq!(refused.warnings.len(), 5, "read to its end: {refused:?}");
    }
    let operator = |storage: &str| {
        format!(
            r#"{{"disable_mlock": true,
            "storage": {storage},
            "listener": {{"tcp": {{"address": "0.0.0.0:8200", "tls_cert_file": "/none/server.crt", "tls_key_file": "/none/server.key"}}}},
            "api_addr": "https://vault.default:8200",
            "cluster_addr": "https://vault-0:8201",
            "telemetry": {{"statsd_address": "localhost:9125"}},
            "service_registration": {{"kubernetes": {{"namespace": "default"}}}},
            "seal": {{"awskms": {{"region": "eu-central-1"}}}},
            "ui": true}}"#
        )
    };
    let refused = read_one(&operator("{\"raft\": {\"path\": \"/vault/file\"}}")).unwrap_err();
    let lines: Vec<usize> = refused.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [2, 3, 3, 8], "storage, two files that are not here, seal: {refused:?}");
    let lines: Vec<usize> = refused.warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(lines, [1, 5, 6, 7, 9], "{refused:?}");
}

const STATIC_SEAL: &str = "seal \"static\" {\n current_key_id = \"1\"\n current_key = \"env://NONE\"\n";

#[test]
fn seals_are_read_with_all_that_is_wrong_with_them() {
    let read = |seals: &str| read_one(&format!("{STORE}{LISTENER}{seals}"));
    let transit = "seal \"transit\" {\n address = \"https://x\"\n token = \"s.secret\"\n key_name = \"k\"\n";
    let config = read(&format!("{STATIC_SEAL} disabled = \"true\"\n}}\n{transit}}}\n")).unwrap();
    let found: Vec<_> = config.seals.iter().map(|seal| (seal.settings.kind(), seal.disabled)).collect();
    assert_eq!(found, [("static", true), ("transit", false)]);
    assert!(!format!("{config:?}").contains("s.secret"));
    for (seals, why) in [
        (format!("{STATIC_SEAL}}}\n{transit}}}\n"), "needs `disabled = \"true\"`"),
        (format!("{STATIC_SEAL}}}\n{STATIC_SEAL} disabled = true\n}}\n"), "second block `seal \"static\"`"),
        ("seal \"static\" {}\n".to_owned(), "needs `current_key_id` and `current_key`"),
        ("seal \"static\" {\n current_key = \"x\"\n}\n".to_owned(), "`current_key_id` is missing"),
        ("seal \"static\" {\n current_key_id = \"x\"\n}\n".to_owned(), "`current_key` is missing"),
        (format!("{STATIC_SEAL} previous_key = \"x\"\n}}\n"), "`previous_key_id` is missing"),
        (format!("{STATIC_SEAL} current_key = \"x\"\n}}\n"), "said twice"),
        (format!("{transit} adress = \"x\"\n}}\n"), "did you mean `address`"),
    ] {
        let refused = read(&seals).unwrap_err();
        assert!(refused.problems.iter().any(|problem| problem.what.contains(why)), "{seals}: {refused:?}");
    }
    let config = read(&format!("{transit} tls_skip_verify = true\n}}\n")).unwrap();
    assert_eq!(config.warnings.len(), 1, "{config:?}");
}

/// Each row of the table is true: what works is taken without a word, and the rest is answered as it says.
#[test]
fn every_setting_of_the_table_has_its_answer() {
    for setting in SETTINGS {
        let name = setting.name;
        let value = match name {
            "storage"
            | "backend"
            | "listener"
            | "audit"
            | "seal"
            | "service_registration"
            | "telemetry"
            | "custom_response_headers"
            | "options"
            | "type" => continue,
            name if name.contains("addrs") => "\"10.0.0.1\"",
            "address" if setting.block.contains("unix") => "\"/run/x.sock\"",
            "address" => "\"127.0.0.1:1\"",
            "proxy_protocol_behavior" => "\"use_always\"",
            name if name.contains("version") => "\"tls12\"",
            "tls_cipher_suites" => "\"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\"",
            "log_level" => "\"info\"",
            "log_format" => "\"json\"",
            "socket_mode" => "\"0600\"",
            "x_forwarded_for_hop_skips" => "0",
            "max_lease_ttl" => "\"900h\"",
            _ if name.contains("_max") || name.contains("ttl") || name.contains("duration") => "3600",
            _ => "true",
        };
        let line =
            format!("{name} = {}", if value == "true" && setting.answer != Answer::Works { "{}" } else { value });
        let quoted = |text: &str| format!("{name} = \"{text}\"");
        let text = match setting.block {
            "" if ["api_addr", "redirect_addr", "cluster_name", "audit_directory", "pid_file"].contains(&name) => {
                format!("{STORE}{LISTENER}{}\n", quoted("x"))
            }
            "" if name == "enable_unauthenticated_access" => format!("{STORE}{LISTENER}{}\n", quoted("rekey")),
            "" if name == "connection_files_dir" => format!("{STORE}{LISTENER}{}\n", quoted("/x")),
            "" => format!("{STORE}{LISTENER}{line}\n"),
            "storage" if name == "sqlite" => format!("storage \"sqlite\" {{\n path = \"x\"\n}}\n{LISTENER}"),
            "storage" => format!("storage \"{name}\" {{}}\n{LISTENER}"),
            "storage \"postgresql\"" => {
                let line = if name == "skip_create_table" { line } else { quoted("3") };
                format!("storage \"postgresql\" {{\n{line}\n}}\n{LISTENER}")
            }
            "storage \"sqlite\"" => format!("storage \"sqlite\" {{\n{}\n}}\n{LISTENER}", quoted("x")),
            "listener" if name == "tcp" => format!("{STORE}{LISTENER}"),
            "listener" if name == "unix" => format!("{STORE}listener \"unix\" {{\n address = \"/x\"\n}}\n"),
            "listener" | "listener \"tcp\"" if name != "tls_disable" && !name.contains("_file") => {
                let rest = match name {
                    "proxy_protocol_authorized_addrs" => "proxy_protocol_behavior = \"allow_authorized\"\n",
                    name if name.starts_with("x_forwarded_for_") && !name.contains("addrs") => {
                        "x_forwarded_for_authorized_addrs = \"10.0.0.1\"\n"
                    }
                    _ => "",
                };
                let line = line
                    .replace("tls_require_and_verify_client_cert = true", "tls_require_and_verify_client_cert = false");
                format!("{STORE}listener \"tcp\" {{\n tls_disable = true\n{rest}{line}\n}}\n")
            }
            "listener \"tcp\"" => continue,
            "listener \"unix\"" if name == "address" => format!("{STORE}listener \"unix\" {{\n{line}\n}}\n"),
            "listener \"unix\"" if name == "socket_user" || name == "socket_group" => {
                format!("{STORE}listener \"unix\" {{\n address = \"/x\"\n{}\n}}\n", quoted("0"))
            }
            "listener \"unix\"" => format!("{STORE}listener \"unix\" {{\n address = \"/x\"\n{line}\n}}\n"),
            "listener telemetry" => listening(&format!("telemetry {{\n{line}\n}}")),
            "telemetry" => format!("{STORE}{LISTENER}telemetry {{\n{line}\n}}\n"),
            "audit" if name == "file" => continue,
            "audit" => format!("{STORE}{LISTENER}audit \"{name}\" \"x\" {{\n options = {{ file_path = \"x\" }}\n}}\n"),
            "audit \"file\"" => {
                let line = if name == "local" { line } else { quoted("x") };
                format!("{STORE}{LISTENER}audit \"file\" \"x\" {{\n options = {{ file_path = \"x\" }}\n{line}\n}}\n")
            }
            "seal" if name == "static" => format!("{STORE}{LISTENER}{STATIC_SEAL}}}\n"),
            "seal" | "service_registration" => format!("{STORE}{LISTENER}{} \"{name}\" {{}}\n", setting.block),
            "seal \"static\"" if name.starts_with("current") => format!("{STORE}{LISTENER}{STATIC_SEAL}}}\n"),
            "seal \"static\"" if name.starts_with("previous") => {
                let previous = " previous_key_id = \"0\"\n previous_key = \"env://NONE\"\n";
                format!("{STORE}{LISTENER}{STATIC_SEAL}{previous}}}\n")
            }
            "seal \"static\"" => format!("{STORE}{LISTENER}{STATIC_SEAL}{line}\n}}\n"),
            // It is taken, and it is warned of: the test of seals says so.
            "seal \"transit\"" if name == "tls_skip_verify" => continue,
            "seal \"transit\"" => {
                let line = if setting.answer == Answer::Works && line.contains("true") && name.starts_with("dis") {
                    line
                } else {
                    quoted("x")
                };
                format!("{STORE}{LISTENER}seal \"transit\" {{\n{line}\n}}\n")
            }
            other => panic!("no text for block {other}"),
        };
        let (problems, warnings) = match read_one(&text) {
            Ok(config) => (Vec::new(), config.warnings),
            Err(refused) => (refused.problems, refused.warnings),
        };
        let says = |remarks: &[Remark]| remarks.len() == 1 && remarks[0].what.contains(setting.text);
        let is_so = match setting.answer {
            Answer::Works => problems.is_empty() && warnings.is_empty(),
            Answer::NoMeaning => problems.is_empty() && says(&warnings),
            Answer::NotSupported => says(&problems) && warnings.is_empty(),
        };
        assert!(is_so, "{} {name}: {problems:?} {warnings:?}\n{text}", setting.block);
    }
}

/// `host/docs/configuration.md` shows the tables as they are. After a change, the failing test prints what belongs there.
#[test]
fn the_page_shows_the_tables_as_they_are() {
    use crate::config::environment::{By, VARIABLES};
    let page = include_str!("../../../../docs/configuration.md");
    let mut blocks: Vec<&str> = SETTINGS.iter().map(|setting| setting.block).collect();
    blocks.dedup();
    let mut tables: Vec<(String, String)> = blocks
        .into_iter()
        .map(|block| {
            let rows = SETTINGS.iter().filter(|setting| setting.block == block);
            let lines = rows.map(|row| format!("| `{}` | {} | {} |\n", row.name, row.answer.as_str(), row.text));
            (
                format!("settings {block}").trim_end().to_owned(),
                format!(
                    "| setting | answer | what it means here, or what to do instead |\n|---|---|---|\n{}",
                    lines.collect::<String>()
                ),
            )
        })
        .collect();
    for (name, by) in [("variables of the server", By::Server), ("variables of the client", By::Client)] {
        let rows = VARIABLES.iter().filter(|row| row.by == by);
        let lines = rows.map(|row| format!("| `{}` | {} | {} |\n", row.name, row.answer.as_str(), row.text));
        tables.push((
            name.to_owned(),
            format!(
                "| variable | answer | what it means here, or what to do instead |\n|---|---|---|\n{}",
                lines.collect::<String>()
            ),
        ));
    }
    for (name, table) in &tables {
        let marker = format!("<!-- table: {name} -->\n");
        let shown = page.split_once(&marker).map_or("", |(_, rest)| rest);
        assert!(shown.starts_with(table.as_str()), "below {marker} belongs:\n{table}");
        let after = &shown[table.len()..];
        assert!(!after.starts_with('|'), "the table `{name}` has rows on the page that are nowhere else");
    }
    assert_eq!(page.matches("<!-- table: ").count(), tables.len());
}

#[test]
fn deep_nesting_is_refused_and_costs_nothing() {
    for opening in ["[", "{", "(", "a {", "!", "-", "${", "\"${", "[for x in ", "{i>", "a ? "] {
        for text in [format!("a = {}", opening.repeat(50_000)), opening.repeat(50_000)] {
            assert!(!problems(&text).is_empty(), "{opening}");
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_configuration_is_read_or_refused(pieces in proptest::collection::vec(piece(), 0..12)) {
        crate::config::properties::any_configuration_is_read_or_refused(&pieces.concat());
    }
}

/// What configurations are made of, and what breaks them.
fn piece() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    const KNOWN: &[&str] = &[
        "storage \"sqlite\" {\n path = \"x\"\n}\n",
        "storage \"inmem\" {}\n",
        "storage = {}\n",
        "listener \"tcp\" {\n tls_disable = 1\n}\n",
        "listener \"unix\" {\n address = \"unix://\"\n}\n",
        "listener \"tcp\" {\n",
        "listener = []\n",
        "{\"listener\": {\"tcp\": {\"tls_disable\": true}}, \"storage\": {\"inmem\": {}}}",
        "audit \"file\" \"a\" {\n options = { file_path = \"x\" }\n}\n",
        "audit \"file\" \"\" {\n options = { file_path = \"x\" }\n}\n",
        "audit = [{ type = \"file\" }]\n",
        "max_lease_ttl = \"1h\"\n",
        "default_lease_ttl = 90\n",
        "default_lease_ttl = -1.5\n",
        "log_level = \"inof\"\n",
        "ui = true\n",
        "}\n",
        "\"",
        "${",
        "<<E\n",
        "[",
        "é",
        "\n",
        "=",
        "a = 1 a = 2\n",
    ];
    prop_oneof![6 => proptest::sample::select(KNOWN).prop_map(str::to_owned), 1 => any::<String>()]
}
