//! From text to [`Config`]: all errors, each with its line and, for a misspelt word, the word that was meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hcl_edit::Span as _;
use hcl_edit::expr::Expression;
use hcl_edit::structure::{Attribute, Block, Body, Structure};
use leasehold_core::audit::{DeviceEntry, Form};
use leasehold_model::{Ttl, duration};

use super::{Config, Listener, LogFormat, LogLevel, Store, defaults, device};

/// Keys of Vault's that mean nothing here: taken, with a warning.
const IGNORED: &[&str] = &[
    "ui",
    "disable_mlock",
    "disable_cache",
    "cluster_addr",
    "disable_clustering",
    "raw_storage_endpoint",
    "enable_response_header_hostname",
    "plugin_directory",
    "pid_file",
    "log_requests_level",
    "unsafe_allow_api_audit_creation",
    "telemetry",
    "disable_sealwrap",
    "disable_printable_check",
];
const KEYS: &[&str] = &[
    "storage",
    "listener",
    "audit",
    "default_lease_ttl",
    "max_lease_ttl",
    "api_addr",
    "cluster_name",
    "log_level",
    "log_format",
    "audit_directory",
    "connection_files_dir",
];
const LISTENER_KEYS: &[&str] = &["address", "tls_cert_file", "tls_key_file", "tls_min_version", "tls_disable"];
const LISTENER_IGNORED: &[&str] = &[
    "cluster_address",
    "http_read_timeout",
    "http_idle_timeout",
    "http_write_timeout",
    "http_read_header_timeout",
    "purpose",
];

/// A configuration has three levels. In what does not parse the parser's time grows threefold with each.
const DEPTH_MAX: usize = 8;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) line: usize,
    pub(crate) what: String,
}

struct Reader<'a> {
    text: &'a str,
    /// The last line that sets a lifetime; none once one of them could not be read.
    lifetimes_at: Option<usize>,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

/// Reads a configuration.
///
/// # Errors
/// Everything that is wrong, in the order of the lines.
pub(crate) fn read(text: &str) -> Result<Config, Vec<Problem>> {
    let left_open = open_at_the_end(text)
        .map_err(|line| vec![Problem { line, what: format!("more than {DEPTH_MAX} brackets within one another") }])?;
    let body: Body = text.parse().map_err(|error: hcl_edit::parser::Error| {
        let hint = if text.trim_start().starts_with('{') {
            "; JSON is not read, write HCL: `listener \"tcp\" { … }`"
        } else if left_open > 0 {
            "; a `{` is never closed"
        } else if error.message().contains("block body") {
            "; write every setting on a line of its own"
        } else {
            ""
        };
        vec![Problem { line: error.location().line(), what: format!("not HCL: {}{hint}", error.message()) }]
    })?;
    let mut reader = Reader { text, lifetimes_at: Some(1), problems: Vec::new(), warnings: Vec::new() };
    let config = reader.config(&body);
    reader.problems.sort_by_key(|problem| problem.line);
    match config {
        Some(mut config) if reader.problems.is_empty() => {
            config.warnings = reader.warnings;
            Ok(config)
        }
        _ => Err(reader.problems),
    }
}

/// How many brackets are open at the end. Those in quotes count, since templates nest there too.
///
/// # Errors
/// The first line on which more than [`DEPTH_MAX`] are.
fn open_at_the_end(text: &str) -> Result<usize, usize> {
    let mut depth = 0_usize;
    for (index, line) in text.lines().enumerate() {
        let (mut quoted, mut before) = (false, ' ');
        for letter in line.chars() {
            match letter {
                '"' if before != '\\' => quoted = !quoted,
                '#' if !quoted => break,
                '/' if !quoted && before == '/' => break,
                '{' | '[' | '(' => depth += 1,
                '}' | ']' | ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > DEPTH_MAX {
                return Err(index + 1);
            }
            before = letter;
        }
    }
    Ok(depth)
}

impl Reader<'_> {
    fn line(&self, span: Option<std::ops::Range<usize>>) -> usize {
        let start = span.map_or(0, |span| span.start);
        self.text.get(..start).map_or(1, |before| before.bytes().filter(|b| *b == b'\n').count() + 1)
    }

    fn problem(&mut self, line: usize, what: impl Into<String>) {
        self.problems.push(Problem { line, what: what.into() });
    }

    fn unknown(&mut self, line: usize, word: &str, known: &[&str], what: &str) {
        let near = known
            .iter()
            .map(|k| (strsim::damerau_levenshtein(word, k), *k))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        let hint = near
            .map_or_else(|| format!("known are {}", known.join(", ")), |(_, word)| format!("did you mean `{word}`?"));
        self.problem(line, format!("unknown {what} `{word}`: {hint}"));
    }

    fn config(&mut self, body: &Body) -> Option<Config> {
        let mut store = None;
        let mut config = Config {
            store: Store::Memory,
            listeners: Vec::new(),
            default_lease_ttl: defaults::DEFAULT_LEASE_TTL,
            max_lease_ttl: defaults::MAX_LEASE_TTL,
            api_addr: None,
            cluster_name: None,
            log_level: LogLevel::Info,
            log_format: LogFormat::Standard,
            audit_directory: None,
            connection_files_dir: None,
            audit: Vec::new(),
            warnings: Vec::new(),
        };
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => self.top(attribute, &mut config),
                Structure::Block(block) => {
                    let line = self.line(block.span());
                    match block.ident.as_str() {
                        "storage" if store.is_some() => self.problem(line, "a second `storage`: there can be one"),
                        "storage" => store = self.storage(block).or(Some(Store::Memory)),
                        "listener" => config.listeners.extend(self.listener(block)),
                        "audit" => config.audit.extend(self.audit(block)),
                        "seal" => self.problem(
                            line,
                            "automatic unsealing is not supported: remove `seal`, and unseal with `leasehold operator unseal`",
                        ),
                        name if IGNORED.contains(&name) => {
                            self.warnings.push(format!("line {line}: `{name}` has no effect"))
                        }
                        name => self.unknown(line, name, KEYS, "block"),
                    }
                }
            }
        }
        let end = self.text.lines().count().max(1);
        match store {
            None => self
                .problem(end, "no `storage`: add `storage \"sqlite\" { path = \"/var/lib/leasehold/leasehold.db\" }`"),
            Some(store) => config.store = store,
        }
        if config.listeners.is_empty() && !self.problems.iter().any(|p| p.what.contains("listener")) {
            self.problem(end, "no `listener`: add `listener \"tcp\" { address = \"127.0.0.1:8200\" … }`");
        }
        if let Some(line) = self.lifetimes_at
            && config.default_lease_ttl > config.max_lease_ttl
        {
            self.problem(
                line,
                format!(
                    "default_lease_ttl ({}) is longer than max_lease_ttl ({})",
                    config.default_lease_ttl, config.max_lease_ttl
                ),
            );
        }
        Some(config)
    }

    fn top(&mut self, attribute: &Attribute, config: &mut Config) {
        let line = self.line(attribute.span());
        match attribute.key.as_str() {
            "default_lease_ttl" => self.ttl(attribute, &mut config.default_lease_ttl),
            "max_lease_ttl" => self.ttl(attribute, &mut config.max_lease_ttl),
            "api_addr" => config.api_addr = self.text_of(attribute),
            "cluster_name" => config.cluster_name = self.text_of(attribute),
            "audit_directory" => config.audit_directory = self.text_of(attribute).map(PathBuf::from),
            "connection_files_dir" => match self.text_of(attribute).map(PathBuf::from) {
                Some(path) if !path.is_absolute() || path.parent().is_none() => self.problem(
                    line,
                    "`connection_files_dir` must be the absolute path of a directory other than `/`".to_owned(),
                ),
                path => config.connection_files_dir = path,
            },
            "log_level" => {
                if let Some(text) = self.text_of(attribute) {
                    match LogLevel::parse(&text) {
                        Some(level) => config.log_level = level,
                        None => self.unknown(line, &text, &["trace", "debug", "info", "warn", "error"], "log level"),
                    }
                }
            }
            "log_format" => {
                if let Some(text) = self.text_of(attribute) {
                    match LogFormat::parse(&text) {
                        Some(format) => config.log_format = format,
                        None => self.unknown(line, &text, &["standard", "json"], "log format"),
                    }
                }
            }
            name if IGNORED.contains(&name) => self.warnings.push(format!("line {line}: `{name}` has no effect")),
            name => self.unknown(line, name, KEYS, "setting"),
        }
    }

    fn text_of(&mut self, attribute: &Attribute) -> Option<String> {
        let line = self.line(attribute.span());
        match attribute.value.as_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.problem(line, format!("`{}` must be text in quotes", attribute.key.as_str()));
                None
            }
        }
    }

    fn bool_of(&mut self, attribute: &Attribute) -> Option<bool> {
        let line = self.line(attribute.span());
        let found = match &attribute.value {
            Expression::Bool(value) => Some(*value.value()),
            Expression::Number(value) => value.value().as_i64().map(|number| number != 0),
            other => match other.as_str() {
                Some("true" | "1") => Some(true),
                Some("false" | "0") => Some(false),
                _ => None,
            },
        };
        if found.is_none() {
            self.problem(line, format!("`{}` must be true or false", attribute.key.as_str()));
        }
        found
    }

    fn ttl(&mut self, attribute: &Attribute, into: &mut Ttl) {
        let line = self.line(attribute.span());
        let text = match &attribute.value {
            Expression::Number(number) => number.value().to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        let found = duration::parse(&text);
        let usable = found.as_ref().is_ok_and(|ttl| !ttl.is_zero());
        self.lifetimes_at = self.lifetimes_at.filter(|_| usable).map(|_| line);
        match found {
            Ok(ttl) if usable => *into = ttl,
            Ok(_) => self.problem(
                line,
                format!("`{}` must be longer than zero: `\"1h\"`, `\"30d\"`, seconds", attribute.key.as_str()),
            ),
            Err(error) => self
                .problem(line, format!("`{}`: {error}; write `\"1h\"`, `\"30d\"` or seconds", attribute.key.as_str())),
        }
    }

    fn label(&mut self, block: &Block) -> Option<String> {
        let line = self.line(block.span());
        match block.labels.as_slice() {
            [label] => Some(label.as_str().to_owned()),
            _ => {
                self.problem(line, format!("`{0}` needs one label: `{0} \"…\" {{ … }}`", block.ident.as_str()));
                None
            }
        }
    }

    fn attributes<'b>(&mut self, block: &'b Block) -> Vec<&'b Attribute> {
        for inner in block.body.blocks() {
            let line = self.line(inner.span());
            self.problem(line, format!("`{}` has no block `{}`", block.ident.as_str(), inner.ident.as_str()));
        }
        block.body.attributes().collect()
    }

    fn storage(&mut self, block: &Block) -> Option<Store> {
        let line = self.line(block.span());
        let label = self.label(block)?;
        let mut path = None;
        for attribute in self.attributes(block) {
            let at = self.line(attribute.span());
            match attribute.key.as_str() {
                "path" if label == "sqlite" => path = self.text_of(attribute),
                name if label == "sqlite" => self.unknown(at, name, &["path"], "setting of storage"),
                name if label == "inmem" => self.problem(at, format!("storage `inmem` has no setting `{name}`")),
                // That the storage itself is none of ours is said below.
                _ => {}
            }
        }
        match label.as_str() {
            "inmem" => Some(Store::Memory),
            "sqlite" => match path.filter(|path| !path.is_empty()) {
                Some(path) => Some(Store::Sqlite(PathBuf::from(path))),
                None => {
                    self.problem(line, "`storage \"sqlite\"` needs `path`, the file");
                    None
                }
            },
            "raft" | "file" | "postgresql" | "consul" => {
                self.problem(line, format!("storage `{label}` is not supported yet: use `sqlite`"));
                None
            }
            other => {
                self.unknown(line, other, &["sqlite", "inmem"], "storage");
                None
            }
        }
    }

    fn listener(&mut self, block: &Block) -> Option<Listener> {
        let line = self.line(block.span());
        let label = self.label(block)?;
        if label != "tcp" {
            self.unknown(line, &label, &["tcp"], "listener");
            return None;
        }
        let (mut address, mut cert, mut key, mut disable) = (defaults::LISTEN_ADDRESS.to_owned(), None, None, false);
        for attribute in self.attributes(block) {
            let at = self.line(attribute.span());
            match attribute.key.as_str() {
                "address" => address = self.text_of(attribute).unwrap_or(address),
                "tls_cert_file" => cert = self.text_of(attribute),
                "tls_key_file" => key = self.text_of(attribute),
                "tls_min_version" => match self.text_of(attribute).as_deref() {
                    Some("tls12") | None => {}
                    // Taken without effect it would leave open what the operator wants shut.
                    Some(_) => self.problem(at, "`tls_min_version` can only be \"tls12\", which is what holds anyway"),
                },
                "tls_disable" => disable = self.bool_of(attribute).unwrap_or(false),
                name if LISTENER_IGNORED.contains(&name) => {
                    self.warnings.push(format!("line {at}: `{name}` has no effect"))
                }
                name => self.unknown(at, name, LISTENER_KEYS, "setting of listener"),
            }
        }
        if address.parse::<std::net::SocketAddr>().is_err()
            && address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err())
        {
            self.problem(line, format!("listener address {address:?} must be host:port"));
        }
        let tls = match (disable, cert, key) {
            (true, _, _) => None,
            (false, Some(cert), Some(key)) => Some((PathBuf::from(cert), PathBuf::from(key))),
            (false, ..) => {
                self.problem(line, "a listener needs `tls_cert_file` and `tls_key_file`, or `tls_disable = true`");
                None
            }
        };
        if let Some((cert, key)) = &tls {
            for (name, path) in [("tls_cert_file", cert), ("tls_key_file", key)] {
                if !Path::new(path).is_file() {
                    self.problem(line, format!("`{name}`: there is no file {}", path.display()));
                }
            }
        }
        Some(Listener { address, tls })
    }

    /// `audit "file" "name" { … }`
    fn audit(&mut self, block: &Block) -> Option<DeviceEntry> {
        let line = self.line(block.span());
        let labels: Vec<String> = block.labels.iter().map(|label| label.as_str().to_owned()).collect();
        let [kind, name] = labels.as_slice() else {
            self.problem(
                line,
                "`audit` needs two labels: `audit \"file\" \"name\" { options = { file_path = \"…\" } }`",
            );
            return None;
        };
        let mut options = BTreeMap::new();
        let mut description = String::new();
        for structure in &block.body {
            match structure {
                Structure::Attribute(attribute) => match attribute.key.as_str() {
                    "description" => description = self.text_of(attribute).unwrap_or_default(),
                    "options" => match &attribute.value {
                        Expression::Object(object) => {
                            for (key, value) in object {
                                options.extend(option(
                                    key.as_ident().map(|i| i.as_str()).or(key.as_expr().and_then(Expression::as_str)),
                                    value.expr(),
                                ));
                            }
                        }
                        _ => {
                            let at = self.line(attribute.span());
                            self.problem(at, "`options` must be `{ name = \"value\" }`");
                        }
                    },
                    "local" => {}
                    other => {
                        let at = self.line(attribute.span());
                        self.unknown(at, other, &["description", "options"], "setting of audit");
                    }
                },
                Structure::Block(inner) if inner.ident.as_str() == "options" => {
                    for attribute in inner.body.attributes() {
                        options.extend(option(Some(attribute.key.as_str()), &attribute.value));
                    }
                }
                Structure::Block(inner) => {
                    let at = self.line(inner.span());
                    self.unknown(at, inner.ident.as_str(), &["options"], "block of audit");
                }
            }
        }
        if kind != "file" {
            self.unknown(line, kind, &["file"], "audit device");
        } else if !["file_path", "path"].iter().any(|key| options.get(*key).is_some_and(|path| !path.is_empty())) {
            self.problem(line, "`audit \"file\"` needs `file_path` in its `options`: a file, or `stdout`");
        }
        if let Err(wrong) = Form::of(&options) {
            self.problem(line, format!("`{}` must be true or false", wrong.option));
        }
        Some(device(kind, name, description, options))
    }
}

fn option(key: Option<&str>, value: &Expression) -> Option<(String, String)> {
    let value = match value {
        Expression::Bool(flag) => flag.value().to_string(),
        Expression::Number(number) => number.value().to_string(),
        other => other.as_str()?.to_owned(),
    };
    Some((key?.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        read(text).unwrap_err().into_iter().map(|problem| (problem.line, problem.what)).collect()
    }

    #[test]
    fn what_only_a_start_takes_over_is_named() {
        let with = |rest: &str| {
            let listener = "listener \"tcp\" {\n  address = \"127.0.0.1:1\"\n  tls_disable = true\n}";
            read(&format!("storage \"inmem\" {{}}\n{listener}\n{rest}\n")).unwrap()
        };
        let running = with("");
        for (rest, names) in [
            ("", vec![]),
            ("log_level = \"debug\"", vec![]),
            ("default_lease_ttl = \"2h\"\ncluster_name = \"x\"", vec!["default_lease_ttl", "cluster_name"]),
            ("listener \"tcp\" {\n  address = \"127.0.0.1:2\"\n  tls_disable = true\n}", vec!["listener"]),
            ("audit \"file\" \"main\" {\n  options = { file_path = \"/tmp/a.log\" }\n}", vec!["audit"]),
        ] {
            assert_eq!(running.needs_restart_for(&with(rest)), names, "{rest}");
        }
        let mut renewed = running.clone();
        let tls = |name: &str| Some((name.into(), "key.pem".into()));
        renewed.listeners[0].tls = tls("new.pem");
        assert_eq!(running.needs_restart_for(&renewed), ["listener"], "TLS turned on");
        let mut started = running.clone();
        started.listeners[0].tls = tls("old.pem");
        assert!(started.needs_restart_for(&renewed).is_empty(), "other files are read at once");
    }

    #[test]
    fn a_configuration_reads_as_vaults() {
        let config = read(
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
        assert_eq!(config.audit.len(), 1);
        assert_eq!(
            config.audit.first().map(|d| d.options.get("file_path").cloned()),
            Some(Some("/tmp/a.log".to_owned()))
        );
        assert_eq!(config.warnings.len(), 1);
    }

    #[test]
    fn every_error_is_said_at_once_with_its_line() {
        let found = problems(
            "storage \"sqlit\" {}\nlisner \"tcp\" {}\nlog_level = \"inof\"\ndefault_lease_tll = 5\nmax_lease_ttl = \"soon\"\n",
        );
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5], "{found:?}");
        assert!(found.iter().any(|(_, what)| what.contains("did you mean `sqlite`?")), "{found:?}");
        assert!(found.iter().any(|(_, what)| what.contains("did you mean `listener`?")), "{found:?}");
        assert!(found.iter().any(|(_, what)| what.contains("did you mean `default_lease_ttl`?")), "{found:?}");
    }

    #[test]
    fn an_audit_device_that_could_not_be_opened_is_refused_with_its_line() {
        let rest = "storage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = true\n}\n";
        for (block, said) in [
            ("audit \"fil\" \"a\" {\n  options = { file_path = \"x\" }\n}\n", "did you mean `file`?"),
            ("audit \"file\" \"a\" {\n  options = { filepath = \"x\" }\n}\n", "needs `file_path`"),
            ("audit \"file\" \"a\" {\n  options = { file_path = \"x\", log_raw = \"yes\" }\n}\n", "`log_raw` must be"),
        ] {
            let found = problems(&format!("{rest}{block}"));
            assert!(matches!(found.as_slice(), [(5, what)] if what.contains(said)), "{found:?}");
        }
    }

    #[test]
    fn a_storage_that_is_none_of_ours_is_the_only_thing_said_of_it() {
        let found = problems("storage \"raft\" {\n  path = \"x\"\n}\nlistener \"tcp\" {\n  tls_disable = true\n}\n");
        assert!(matches!(found.as_slice(), [(1, what)] if what.contains("not supported yet")), "{found:?}");
    }

    #[test]
    fn a_setting_that_restricts_is_never_ignored() {
        for setting in
            ["tls_min_version = \"tls13\"", "tls_require_and_verify_client_cert = true", "tls_client_ca_file = \"x\""]
        {
            let text = format!("storage \"inmem\" {{}}\nlistener \"tcp\" {{\n  tls_disable = true\n  {setting}\n}}\n");
            assert_eq!(problems(&text).first().map(|(line, _)| *line), Some(4), "{setting}");
        }
        let seal = "seal \"awskms\" {}\nstorage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = true\n}\n";
        let found = problems(seal);
        assert!(matches!(found.as_slice(), [(1, what)] if what.contains("operator unseal")), "{found:?}");
    }

    #[test]
    fn a_setting_said_twice_is_refused() {
        let text = "storage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = true\n}\nmax_lease_ttl = \"1h\"\nmax_lease_ttl = \"900h\"\n";
        assert_eq!(problems(text).first().map(|(line, _)| *line), Some(6));
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        assert_eq!(problems("storage \"sqlite\" {\n  path = \n}\n").first().map(|(line, _)| *line), Some(2));
        let one_line =
            problems("storage \"inmem\" {}\nlistener \"tcp\" { address = \"127.0.0.1:1\", tls_disable = true }\n");
        assert!(matches!(one_line.as_slice(), [(2, what)] if what.contains("a line of its own")), "{one_line:?}");
        for (text, hint) in [
            ("storage \"inmem\" {\nlistener \"tcp\" {\n}\n", "a `{` is never closed"),
            ("{\"storage\": {\"inmem\": {}}}\n", "JSON is not read"),
        ] {
            let found = problems(text);
            assert!(found.iter().any(|(_, what)| what.contains(hint)), "{found:?}");
        }
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
    }

    #[test]
    fn a_listener_without_certificate_must_say_so() {
        let found = problems("storage \"inmem\" {}\nlistener \"tcp\" { address = \"127.0.0.1:1\" }");
        assert!(found.iter().any(|(line, what)| *line == 2 && what.contains("tls_disable")), "{found:?}");
    }

    #[test]
    fn deep_nesting_is_refused_and_costs_nothing() {
        for opening in ["[", "{", "(", "a {", "!", "-", "${", "\"${", "[for x in ", "{i>", "a ? "] {
            for text in [format!("a = {}", opening.repeat(50_000)), opening.repeat(50_000)] {
                assert!(!problems(&text).is_empty(), "{opening}");
            }
        }
        assert_eq!(
            problems("a = 1 # ((((((((((\nb = \"//\" # {{{{\nc = [[[[[[[[[\n").first().map(|(line, _)| *line),
            Some(3)
        );
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
            "listener \"tcp\" {\n tls_disable = 1\n}\n",
            "listener \"tcp\" {\n",
            "audit \"file\" \"a\" {\n options = { file_path = \"x\" }\n}\n",
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
}
