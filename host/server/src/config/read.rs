//! From text to [`Config`]: all errors, each with its line and, for a misspelt word, the word that was meant.
//!
//! Several files are one configuration: what a later file says once more wins, listeners and audit devices add up.
//!
//! Start with [`read`]; [`Reader`] gathers what it finds. `listener` and `audit` read the blocks of those names.

mod audit;
mod listener;
mod migration;
mod seal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use leasehold_model::{Ttl, duration};

use super::settings::{self, Answer};
use super::tree::{self, Block, Item, Value};
use super::{Config, ConnectionUrl, LogFormat, LogLevel, PostgresqlStore, Store, defaults};

pub(crate) use migration::{Migration, read_migration};

/// More connections than any kernel serves; more would be a slip of the keyboard.
const CONNECTIONS_MAX: usize = 1_000_000;
/// Sessions that one server may ask a PostgreSQL store for.
const PARALLEL_MAX: usize = 1_000;
const RETRIES_MAX: usize = 1_000;

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// One thing to say about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what } = self;
        write!(f, "{file}: line {line}: {what}")
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) problems: Vec<Remark>,
    /// What would have been accepted without effect.
    pub(crate) warnings: Vec<Remark>,
}

struct Reader<'a> {
    file: &'a Source,
    /// Which file has said a setting that can be said once.
    said: BTreeMap<(String, String), String>,
    /// The last line that sets a lifetime; none once one of them could not be read.
    lifetimes_at: Option<(String, usize)>,
    store: Option<Store>,
    /// Whether any file tries to say what the server needs, rightly or wrongly.
    names_store: bool,
    names_listener: bool,
    /// It has a store and a listener without the files, and keeps nothing.
    is_development: bool,
    problems: Vec<Remark>,
    warnings: Vec<Remark>,
}

/// Reads a configuration of one file or of several, in their order.
///
/// # Errors
/// Everything that is wrong, file by file and line by line.
pub(crate) fn read(sources: &[Source]) -> Result<Config, Refused> {
    read_by(Reader::at(sources), sources)
}

/// Reads what is added to a development server.
///
/// # Errors
/// As [`read`], and what would keep something or leave the server sealed.
pub(crate) fn read_development(sources: &[Source]) -> Result<Config, Refused> {
    read_by(Reader { is_development: true, ..Reader::at(sources) }, sources)
}

fn read_by<'a>(mut reader: Reader<'a>, sources: &'a [Source]) -> Result<Config, Refused> {
    let mut config = Config::with_defaults();
    let mut is_whole = true;
    for source in sources {
        reader.file = source;
        match tree::parse(&source.text) {
            Ok(items) => {
                for item in &items {
                    reader.top(item, &mut config);
                }
            }
            Err(error) => {
                is_whole = false;
                reader.problem(error.line, format!("not HCL or JSON: {}", error.what));
            }
        }
    }
    reader.finish(&mut config, is_whole);
    let order = |remark: &Remark| {
        (sources.iter().position(|source| source.name == remark.file).unwrap_or_default(), remark.line)
    };
    reader.problems.sort_by_key(order);
    reader.warnings.sort_by_key(order);
    if reader.problems.is_empty() {
        Ok(Config { warnings: reader.warnings, ..config })
    } else {
        Err(Refused { problems: reader.problems, warnings: reader.warnings })
    }
}

/// What is read when there is no file.
static NOTHING: Source = Source { name: String::new(), text: String::new() };

impl<'a> Reader<'a> {
    fn at(sources: &'a [Source]) -> Self {
        let first = sources.first().unwrap_or(&NOTHING);
        Self {
            file: first,
            said: BTreeMap::new(),
            lifetimes_at: Some((first.name.clone(), 1)),
            store: None,
            names_store: false,
            names_listener: false,
            is_development: false,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Reader<'_> {
    fn problem(&mut self, line: usize, what: impl Into<String>) {
        self.problems.push(Remark { file: self.file.name.clone(), line, what: what.into() });
    }

    fn warning(&mut self, line: usize, what: impl Into<String>) {
        self.warnings.push(Remark { file: self.file.name.clone(), line, what: what.into() });
    }

    fn unknown(&mut self, line: usize, word: &str, known: &[&str], what: &str) {
        let near = known
            .iter()
            .map(|k| (strsim::damerau_levenshtein(word, k), *k))
            .min()
            .filter(|(distance, _)| *distance <= 3 && *distance < word.len());
        let hint = near
            .map_or_else(|| format!("known are {}", known.join(", ")), |(_, word)| format!("did you mean `{word}`?"));
        self.problem(line, format!("unknown {what} `{word}`: {hint}"));
    }

    /// Whether a setting does something here; otherwise its answer is noted. `further` is a block whose rows hold as well.
    fn works(&mut self, item: &Item, block: &str, further: Option<&str>, what: &str) -> bool {
        let row = settings::find(block, &item.key).or_else(|| settings::find(further?, &item.key));
        match row.map(|row| (row.answer, row.text)) {
            Some((Answer::Works, _)) => return true,
            Some((Answer::NoMeaning, text)) => {
                self.warning(item.line, format!("`{}` has no effect: {text}", item.key));
            }
            Some((Answer::NotSupported, text)) => {
                self.problem(item.line, format!("`{}` is not supported: {text}", item.key));
            }
            None => {
                // The hint may name what exists in Vault and not here; the list of what is possible does not.
                let all: Vec<&str> =
                    settings::names(block).chain(further.into_iter().flat_map(settings::names)).collect();
                let is_near = all.iter().any(|name| strsim::damerau_levenshtein(&item.key, name) <= 3);
                let known: Vec<&str> = if is_near {
                    all
                } else {
                    settings::working(block).chain(further.into_iter().flat_map(settings::working)).collect()
                };
                self.unknown(item.line, &item.key, &known, what);
            }
        }
        false
    }

    /// What kind of block it is, if it is one that works here; otherwise its answer is noted.
    fn kind<'b>(&mut self, block: &Block<'b>, name: &str, what: &str) -> Option<&'b str> {
        let kind = *block.labels.first()?;
        match settings::find(name, kind).map(|row| (row.answer, row.text)) {
            Some((Answer::Works, _)) => return Some(kind),
            Some((Answer::NoMeaning, text)) => {
                self.warning(block.line, format!("`{name} \"{kind}\"` has no effect: {text}"));
            }
            Some((Answer::NotSupported, text)) => {
                self.problem(block.line, format!("`{name} \"{kind}\"` is not supported: {text}"));
            }
            None => {
                let known: Vec<&str> = settings::working(name).collect();
                self.unknown(block.line, kind, &known, what);
            }
        }
        None
    }

    fn blocks<'b>(&mut self, item: &'b Item, labels: usize) -> Vec<Block<'b>> {
        match tree::blocks(item, labels) {
            Ok(blocks) => blocks,
            Err(line) => {
                let name = &item.key;
                let form = match labels {
                    0 => format!("`{name}` must be a block: `{name} {{ … }}`"),
                    1 => format!("`{name}` needs one label: `{name} \"…\" {{ … }}`"),
                    _ => format!("`{name}` needs {labels} labels: `{name} \"…\" \"…\" {{ … }}`"),
                };
                self.problem(line, form);
                Vec::new()
            }
        }
    }

    /// Notes a setting that can be said once in a file.
    fn once(&mut self, item: &Item, block: &str) {
        let before = self.said.insert((block.to_owned(), item.key.clone()), self.file.name.clone());
        if before.is_some_and(|file| file == self.file.name) {
            self.problem(item.line, format!("`{}` is said twice", item.key));
        }
    }

    fn top(&mut self, item: &Item, config: &mut Config) {
        let name = item.key.as_str();
        self.names_store |= ["storage", "backend"].contains(&name) || is_near(name, "storage");
        self.names_listener |= name == "listener" || is_near(name, "listener");
        let what = if matches!(item.value, Value::Object(_)) { "block" } else { "setting" };
        if !self.works(item, "", None, what) {
            return;
        }
        if !["storage", "backend", "listener", "audit", "seal", "service_registration"].contains(&name) {
            self.once(item, "");
        }
        match name {
            "storage" | "backend" => self.storage(item),
            "listener" => {
                for block in self.blocks(item, 1) {
                    config.listeners.extend(self.listener(&block));
                }
            }
            "audit" => self.audit(item, &mut config.audit),
            "seal" if self.is_development => {
                self.problem(item.line, "`seal` does not go with -dev: a development server opens itself")
            }
            "seal" => self.seal(item, &mut config.seals),
            "service_registration" => {
                for block in self.blocks(item, 1) {
                    self.kind(&block, name, name);
                }
            }
            "telemetry" => {
                for block in self.blocks(item, 0) {
                    for inner in block.items {
                        self.works(inner, "telemetry", None, "setting of telemetry");
                    }
                }
            }
            "enable_unauthenticated_access" => config.lets_in = self.lets_in(item),
            "default_lease_ttl" => self.ttl(item, &mut config.default_lease_ttl),
            "max_lease_ttl" => self.ttl(item, &mut config.max_lease_ttl),
            "default_max_request_duration" => self.request_time(item, &mut config.request_time),
            "api_addr" | "redirect_addr" => config.api_addr = self.text_of(item),
            "cluster_name" => config.cluster_name = self.text_of(item),
            "audit_directory" => config.audit_directory = self.text_of(item).map(PathBuf::from),
            "connection_files_dir" => match self.text_of(item).map(PathBuf::from) {
                Some(path) if !path.is_absolute() || path.parent().is_none() => self.problem(
                    item.line,
                    "`connection_files_dir` must be the absolute path of a directory other than `/`".to_owned(),
                ),
                path => config.connection_files_dir = path,
            },
            "pid_file" => config.pid_file = self.text_of(item).filter(|path| !path.is_empty()).map(PathBuf::from),
            "connections_max" => config.connections_max = self.number_of(item, 1..=CONNECTIONS_MAX),
            "connections_per_address_max" => {
                config.connections_per_address_max = self.number_of(item, 1..=CONNECTIONS_MAX)
            }
            "log_level" => {
                if let Some(text) = self.text_of(item).filter(|text| !text.is_empty()) {
                    match LogLevel::parse(&text) {
                        Some(level) => config.log_level = level,
                        None => self.unknown(item.line, &text, &LogLevel::NAMES, "log level"),
                    }
                }
            }
            "log_format" => {
                if let Some(text) = self.text_of(item).filter(|text| !text.is_empty()) {
                    match LogFormat::parse(&text) {
                        Some(format) => config.log_format = format,
                        None => self.unknown(item.line, &text, &LogFormat::NAMES, "log format"),
                    }
                }
            }
            other => self.problem(item.line, format!("`{other}` is not read: please report this defect")),
        }
    }

    fn storage(&mut self, item: &Item) {
        for block in self.blocks(item, 1) {
            self.once(&Item { key: "storage".to_owned(), ..item.clone() }, "");
            let Some(kind) = self.kind(&block, "storage", "storage") else {
                self.store = None;
                continue;
            };
            let store = self.store_of(&block, kind, "storage");
            if self.is_development && !matches!(store, None | Some(Store::Memory)) {
                self.problem(
                    block.line,
                    "a development server is in memory: leave `storage` out, or start without -dev",
                );
            }
            self.store = store.or(self.store.take());
        }
    }

    /// What a block of this kind says; `name` is how the block is called.
    fn store_of(&mut self, block: &Block<'_>, kind: &str, name: &str) -> Option<Store> {
        let (rows, place) = (format!("storage \"{kind}\""), format!("{name} \"{kind}\""));
        let mut known = Vec::new();
        for inner in block.items {
            if kind == "inmem" {
                self.problem(inner.line, format!("storage `inmem` has no setting `{}`", inner.key));
            } else if self.works(inner, &rows, None, "setting of storage") {
                self.once(inner, &place);
                known.push(inner);
            }
        }
        match kind {
            "inmem" => Some(Store::Memory),
            "postgresql" => Some(Store::Postgresql(self.postgresql(&known))),
            _ => {
                let path = known.first().and_then(|inner| self.text_of(inner)).filter(|path| !path.is_empty());
                if path.is_none() {
                    self.problem(block.line, format!("`{place}` needs `path`, the file"));
                }
                path.map(|path| Store::Sqlite(PathBuf::from(path)))
            }
        }
    }

    fn postgresql(&mut self, items: &[&Item]) -> PostgresqlStore {
        let mut store = PostgresqlStore {
            connection_url: None,
            table: None,
            max_parallel: None,
            max_idle_connections: None,
            skip_create_table: false,
            max_connect_retries: None,
        };
        for item in items {
            match item.key.as_str() {
                "connection_url" => {
                    store.connection_url = self.text_of(item).filter(|url| !url.is_empty()).map(ConnectionUrl)
                }
                "table" => store.table = self.text_of(item).filter(|table| !table.is_empty()),
                "max_parallel" => store.max_parallel = self.number_of(item, 1..=PARALLEL_MAX),
                "max_idle_connections" => store.max_idle_connections = self.number_of(item, 1..=PARALLEL_MAX),
                "skip_create_table" => store.skip_create_table = self.bool_of(item).unwrap_or_default(),
                "max_connect_retries" => store.max_connect_retries = self.number_of(item, 0..=RETRIES_MAX),
                other => self.problem(item.line, format!("`{other}` is not read: please report this defect")),
            }
        }
        store
    }

    /// What only the whole configuration shows.
    fn finish(&mut self, config: &mut Config, is_whole: bool) {
        let end = self.file.text.lines().count().max(1);
        match self.store.take() {
            Some(store) => config.store = store,
            None if is_whole && !self.is_development && (!self.names_store || self.problems.is_empty()) => self
                .problem(end, "no `storage`: add `storage \"sqlite\" { path = \"/var/lib/leasehold/leasehold.db\" }`"),
            None => {}
        }
        let lacks_listener = is_whole && !self.is_development && config.listeners.is_empty();
        if lacks_listener && !self.names_listener {
            self.problem(end, "no `listener`: add `listener \"tcp\" { address = \"127.0.0.1:8200\" … }`");
        } else if lacks_listener && self.problems.is_empty() {
            self.problem(end, "`listener` holds nothing: add `listener \"tcp\" { address = \"127.0.0.1:8200\" … }`");
        }
        if let Some((file, line)) = self.lifetimes_at.clone()
            && config.default_lease_ttl > config.max_lease_ttl
        {
            let what = format!(
                "default_lease_ttl ({}) is longer than max_lease_ttl ({})",
                config.default_lease_ttl, config.max_lease_ttl
            );
            self.problems.push(Remark { file, line, what });
        }
    }

    fn text_of(&mut self, item: &Item) -> Option<String> {
        match &item.value {
            Value::Text(text) | Value::Number(text) => Some(text.clone()),
            _ => {
                self.problem(item.line, format!("`{}` must be text in quotes", item.key));
                None
            }
        }
    }

    /// A list, or one text with commas.
    fn texts_of(&mut self, item: &Item) -> Vec<String> {
        let pieces = |text: &str| -> Vec<String> {
            text.split(',').map(|piece| piece.trim().to_owned()).filter(|piece| !piece.is_empty()).collect()
        };
        match &item.value {
            Value::Text(text) => pieces(text),
            Value::List(values) if values.iter().all(|value| matches!(value, Value::Text(_))) => values
                .iter()
                .flat_map(|value| if let Value::Text(text) = value { pieces(text) } else { Vec::new() })
                .collect(),
            _ => {
                self.problem(item.line, format!("`{}` must be a list of texts, or one text with commas", item.key));
                Vec::new()
            }
        }
    }

    fn bool_of(&mut self, item: &Item) -> Option<bool> {
        let found = match &item.value {
            Value::Bool(value) => Some(*value),
            Value::Number(number) => number.parse::<i64>().ok().map(|number| number != 0),
            // What Go's ParseBool takes.
            Value::Text(text) => match text.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" | "" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if found.is_none() {
            self.problem(item.line, format!("`{}` must be true or false", item.key));
        }
        found
    }

    fn number_of(&mut self, item: &Item, wanted: RangeInclusive<usize>) -> Option<usize> {
        let found = match &item.value {
            Value::Number(text) | Value::Text(text) => text.parse().ok().filter(|number| wanted.contains(number)),
            _ => None,
        };
        if found.is_none() {
            let (least, most) = wanted.into_inner();
            self.problem(item.line, format!("`{}` must be a number from {least} to {most}", item.key));
        }
        found
    }

    fn duration_of(&mut self, item: &Item) -> Option<Ttl> {
        let text = match &item.value {
            Value::Number(text) | Value::Text(text) => text.as_str(),
            _ => "",
        };
        match duration::parse(text) {
            Ok(ttl) if !ttl.is_zero() => return Some(ttl),
            Ok(_) => self
                .problem(item.line, format!("`{}` must be longer than zero: `\"1h\"`, `\"30d\"`, seconds", item.key)),
            Err(error) => {
                self.problem(item.line, format!("`{}`: {error}; write `\"1h\"`, `\"30d\"` or seconds", item.key));
            }
        }
        None
    }

    fn ttl(&mut self, item: &Item, into: &mut Ttl) {
        let found = self.duration_of(item);
        self.lifetimes_at =
            self.lifetimes_at.take().filter(|_| found.is_some()).map(|_| (self.file.name.clone(), item.line));
        if let Some(ttl) = found {
            *into = ttl;
        }
    }

    fn request_time(&mut self, item: &Item, into: &mut Duration) {
        match self.duration_of(item) {
            Some(time) if time <= defaults::REQUEST_TIME_MAX => *into = Duration::from_secs(time.as_secs()),
            Some(_) => self.problem(item.line, format!("`{}` must be 1h or shorter", item.key)),
            None => {}
        }
    }
}

fn is_near(word: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(word, known) <= 3
}
