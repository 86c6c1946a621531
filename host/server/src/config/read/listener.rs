//! The blocks `listener "tcp" { … }` and `listener "unix" { … }`.

use std::path::{Path, PathBuf};

use leasehold_http::listener::{ForwardedFor, LetsIn, Networks, ProxyBehavior, ProxyProtocol, StatusPattern};

use super::super::tree::{Block, Item, Value};
use super::super::{Address, Listener, TlsSettings, TlsVersion, defaults, suites};
use super::Reader;

/// What the block has said so far, before it is known whether that goes together.
struct Said {
    address: Option<String>,
    tls_disable: bool,
    tls: TlsSaid,
    mode: Option<u32>,
    user: Option<String>,
    group: Option<String>,
    behavior: Option<ProxyBehavior>,
    proxies: Option<Networks>,
    forwarded_at: Option<usize>,
    forwarded: ForwardedFor,
    listener: Listener,
}

#[derive(Default)]
struct TlsSaid {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
    requires_client: Option<usize>,
    disables_client: bool,
    min: Option<TlsVersion>,
    max: Option<TlsVersion>,
    suites: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn listener(&mut self, block: &Block<'_>) -> Option<Listener> {
        let kind = self.kind(block, "listener", "listener")?;
        let place = format!("listener \"{kind}\"");
        let mut said = Said {
            address: None,
            tls_disable: false,
            tls: TlsSaid::default(),
            mode: None,
            user: None,
            group: None,
            behavior: None,
            proxies: None,
            forwarded_at: None,
            // As in Vault: strict unless told otherwise.
            forwarded: ForwardedFor {
                authorized: Networks::default(),
                hop_skips: 0,
                reject_not_present: true,
                reject_not_authorized: true,
            },
            listener: Listener::plain(Address::Tcp(defaults::LISTEN_ADDRESS.to_owned())),
        };
        let mut seen = Vec::new();
        for item in block.items {
            if !self.works(item, &place, Some("listener"), "setting of listener") {
                continue;
            }
            if seen.contains(&item.key.as_str()) {
                self.problem(item.line, format!("`{}` is said twice", item.key));
            }
            seen.push(item.key.as_str());
            self.listener_setting(item, &mut said);
        }
        self.listener_of(block.line, kind, said)
    }

    fn listener_setting(&mut self, item: &Item, said: &mut Said) {
        let path = |text: Option<String>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        match item.key.as_str() {
            "address" => said.address = self.text_of(item),
            "tls_disable" => said.tls_disable = self.bool_of(item).unwrap_or(false),
            "tls_cert_file" => said.tls.cert = path(self.text_of(item)),
            "tls_key_file" => said.tls.key = path(self.text_of(item)),
            "tls_client_ca_file" => said.tls.client_ca = path(self.text_of(item)),
            "tls_require_and_verify_client_cert" => {
                said.tls.requires_client = self.bool_of(item).unwrap_or(false).then_some(item.line);
            }
            "tls_disable_client_certs" => said.tls.disables_client = self.bool_of(item).unwrap_or(false),
            "tls_min_version" => said.tls.min = self.tls_version(item),
            "tls_max_version" => said.tls.max = self.tls_version(item),
            "tls_cipher_suites" => said.tls.suites = self.cipher_suites(item),
            "socket_mode" => said.mode = self.socket_mode(item),
            "socket_user" => said.user = self.text_of(item).filter(|text| !text.is_empty()),
            "socket_group" => said.group = self.text_of(item).filter(|text| !text.is_empty()),
            "proxy_protocol_behavior" => said.behavior = self.proxy_behavior(item),
            "proxy_protocol_authorized_addrs" => said.proxies = self.networks(item),
            "x_forwarded_for_authorized_addrs" => {
                said.forwarded_at = Some(item.line);
                said.forwarded.authorized = self.networks(item).unwrap_or_default();
            }
            "x_forwarded_for_hop_skips" => {
                let skips = self.text_of(item).and_then(|text| text.parse().ok());
                match skips {
                    Some(skips) => said.forwarded.hop_skips = skips,
                    None => self.problem(item.line, "`x_forwarded_for_hop_skips` must be a number, zero or more"),
                }
            }
            "x_forwarded_for_reject_not_present" => {
                said.forwarded.reject_not_present = self.bool_of(item).unwrap_or(true);
            }
            "x_forwarded_for_reject_not_authorized" => {
                said.forwarded.reject_not_authorized = self.bool_of(item).unwrap_or(true);
            }
            "disable_unauthed_generate_root_endpoints" => {
                said.listener.lets_in.generate_root = !self.bool_of(item).unwrap_or(true);
            }
            "disable_unauthed_rekey_endpoints" => {
                said.listener.lets_in.rekey = !self.bool_of(item).unwrap_or(true);
            }
            "custom_response_headers" => self.response_headers(item, &mut said.listener),
            "telemetry" => self.listener_telemetry(item, &mut said.listener),
            other => self.problem(item.line, format!("`{other}` is not read: please report this defect")),
        }
    }

    /// Whether the settings of a block go together.
    fn listener_of(&mut self, line: usize, kind: &str, said: Said) -> Option<Listener> {
        let Said {
            address,
            tls_disable,
            tls,
            mode,
            user,
            group,
            behavior,
            proxies,
            forwarded_at,
            forwarded,
            mut listener,
        } = said;
        let path = match (kind, &address) {
            ("unix", Some(address)) => Some(address.strip_prefix("unix://").unwrap_or(address)),
            ("unix", None) => {
                self.problem(
                    line,
                    "`listener \"unix\"` needs `address`, the file: `address = \"/run/leasehold.sock\"`",
                );
                return None;
            }
            (_, address) => address.as_deref().and_then(|address| address.strip_prefix("unix://")),
        };
        if let Some(path) = path {
            if path.is_empty() {
                self.problem(line, "a Unix socket needs the path of its file: `unix:///run/leasehold.sock`");
                return None;
            }
            if behavior.is_some() || forwarded_at.is_some() {
                self.problem(
                    line,
                    "a Unix socket knows no addresses: `proxy_protocol_…` and `x_forwarded_for_…` need a TCP port",
                );
            }
            if tls.cert.is_some() || tls.requires_client.is_some() {
                self.problem(line, "a Unix socket is plain HTTP: remove the `tls_…` settings");
            }
            listener.address = Address::Unix { path: PathBuf::from(path), mode, user, group };
            return Some(listener);
        }
        let address = address.unwrap_or_else(|| defaults::LISTEN_ADDRESS.to_owned());
        if address.parse::<std::net::SocketAddr>().is_err()
            && address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err())
        {
            self.problem(line, format!("listener address {address:?} must be host:port"));
        }
        listener.address = Address::Tcp(address);
        listener.proxy_protocol = match (behavior, proxies) {
            (Some(ProxyBehavior::UseAlways), proxies) => {
                Some(ProxyProtocol { behavior: ProxyBehavior::UseAlways, authorized: proxies.unwrap_or_default() })
            }
            (Some(behavior), Some(authorized)) => Some(ProxyProtocol { behavior, authorized }),
            (Some(_), None) => {
                self.problem(line, "`proxy_protocol_behavior` needs `proxy_protocol_authorized_addrs`");
                None
            }
            (None, Some(_)) => {
                self.problem(line, "`proxy_protocol_authorized_addrs` needs `proxy_protocol_behavior`");
                None
            }
            (None, None) => None,
        };
        let is_relevant = forwarded
            != ForwardedFor {
                authorized: Networks::default(),
                hop_skips: 0,
                reject_not_present: true,
                reject_not_authorized: true,
            };
        if forwarded_at.is_none() && is_relevant {
            self.problem(line, "`x_forwarded_for_…` needs `x_forwarded_for_authorized_addrs`");
        }
        listener.forwarded_for = forwarded_at.map(|_| forwarded);
        if !tls_disable {
            listener.tls = self.tls_of(line, tls);
        } else if let Some(line) = tls.requires_client {
            self.problem(line, "`tls_require_and_verify_client_cert` needs TLS: remove `tls_disable`");
        }
        Some(listener)
    }

    fn tls_of(&mut self, line: usize, tls: TlsSaid) -> Option<TlsSettings> {
        let TlsSaid { cert, key, client_ca, requires_client, disables_client, min, max, suites } = tls;
        let (Some(cert), Some(key)) = (cert, key) else {
            self.problem(line, "a listener needs `tls_cert_file` and `tls_key_file`, or `tls_disable = true`");
            return None;
        };
        let files =
            [("tls_cert_file", Some(&cert)), ("tls_key_file", Some(&key)), ("tls_client_ca_file", client_ca.as_ref())];
        for (name, path) in files {
            if let Some(path) = path
                && !Path::new(path).is_file()
            {
                self.problem(line, format!("`{name}`: there is no file {}", path.display()));
            }
        }
        let (min, max) = (min.unwrap_or(TlsVersion::Tls12), max.unwrap_or(TlsVersion::Tls13));
        if min > max {
            self.problem(line, "`tls_min_version` is above `tls_max_version`");
        }
        if let Some(line) = requires_client {
            if disables_client {
                self.problem(
                    line,
                    "`tls_disable_client_certs` and `tls_require_and_verify_client_cert` are mutually exclusive",
                );
            }
            if client_ca.is_none() {
                self.problem(
                    line,
                    "`tls_require_and_verify_client_cert` needs `tls_client_ca_file`: whose certificates are good",
                );
            }
        }
        let client_ca = client_ca.filter(|_| !disables_client);
        let (requires_client, asks_client) = (requires_client.is_some(), !disables_client);
        Some(TlsSettings { cert, key, client_ca, asks_client, requires_client, min, max, suites })
    }

    fn tls_version(&mut self, item: &Item) -> Option<TlsVersion> {
        match self.text_of(item)?.as_str() {
            "" => None,
            "tls12" => Some(TlsVersion::Tls12),
            "tls13" => Some(TlsVersion::Tls13),
            old @ ("tls10" | "tls11") if item.key == "tls_min_version" => {
                self.warning(
                    item.line,
                    format!("`{}` = \"{old}\" has no effect: TLS 1.2 is the oldest that is served", item.key),
                );
                None
            }
            _ => {
                self.problem(item.line, format!("`{}` must be \"tls12\" or \"tls13\"", item.key));
                None
            }
        }
    }

    fn cipher_suites(&mut self, item: &Item) -> Vec<String> {
        let asked = self.texts_of(item);
        let mut served = Vec::new();
        for name in &asked {
            match suites::of_name(name) {
                suites::Known::Served => served.push(name.clone()),
                suites::Known::Weak => {
                    self.warning(
                        item.line,
                        format!("cipher suite `{name}` has no effect: it is too weak to be served"),
                    );
                }
                suites::Known::Never => self.unknown(item.line, name, &suites::NAMES, "cipher suite"),
            }
        }
        if served.is_empty() && !asked.is_empty() {
            self.problem(
                item.line,
                format!("`{}` leaves no cipher suite: take some of {}", item.key, suites::NAMES.join(", ")),
            );
        }
        served
    }

    fn socket_mode(&mut self, item: &Item) -> Option<u32> {
        let text = self.text_of(item).filter(|text| !text.is_empty())?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            self.problem(item.line, "`socket_mode` must be octal permissions, such as \"0660\"");
        }
        mode
    }

    fn proxy_behavior(&mut self, item: &Item) -> Option<ProxyBehavior> {
        match self.text_of(item)?.as_str() {
            "" => None,
            "use_always" => Some(ProxyBehavior::UseAlways),
            "allow_authorized" => Some(ProxyBehavior::AllowAuthorized),
            "deny_unauthorized" => Some(ProxyBehavior::DenyUnauthorized),
            other => {
                let known = ["use_always", "allow_authorized", "deny_unauthorized"];
                self.unknown(item.line, other, &known, "proxy_protocol_behavior");
                None
            }
        }
    }

    /// Families of routes, by Vault's names.
    pub(super) fn lets_in(&mut self, item: &Item) -> LetsIn {
        let mut lets_in = LetsIn::default();
        for family in self.texts_of(item) {
            match family.as_str() {
                "generate-root" => lets_in.generate_root = true,
                "rekey" => lets_in.rekey = true,
                other => self.unknown(item.line, other, &["generate-root", "rekey"], "family of endpoints"),
            }
        }
        lets_in
    }

    fn networks(&mut self, item: &Item) -> Option<Networks> {
        let texts = self.texts_of(item);
        match Networks::parse(texts.iter().map(String::as_str)) {
            Ok(_) if texts.is_empty() => self.problem(item.line, format!("`{}` names no address", item.key)),
            Ok(networks) => return Some(networks),
            Err(wrong) => {
                self.problem(
                    item.line,
                    format!("`{}`: {wrong:?} is no address such as 10.0.0.1 or 10.0.0.0/8", item.key),
                );
            }
        }
        None
    }

    fn listener_telemetry(&mut self, item: &Item, listener: &mut Listener) {
        for block in self.blocks(item, 0) {
            for inner in block.items {
                if !self.works(inner, "listener telemetry", None, "setting of a listener's telemetry") {
                    continue;
                }
                let wished = self.bool_of(inner).unwrap_or(false);
                match inner.key.as_str() {
                    "unauthenticated_metrics_access" => listener.unauthenticated_metrics = wished,
                    "disallow_metrics" => listener.disallows_metrics = wished,
                    other => self.problem(inner.line, format!("`{other}` is not read: please report this defect")),
                }
            }
        }
    }

    fn response_headers(&mut self, item: &Item, listener: &mut Listener) {
        for patterns in self.blocks(item, 0) {
            for set in patterns.items {
                let Some(pattern) = StatusPattern::parse(&set.key) else {
                    self.problem(set.line, format!("`{}` is no status: `default`, `2xx` or `404`", set.key));
                    continue;
                };
                for header in self.blocks(set, 0).iter().flat_map(|headers| headers.items) {
                    let Some(value) = header_value(&header.value) else {
                        self.problem(header.line, format!("header `{}` needs a text or a list of texts", header.key));
                        continue;
                    };
                    if let Err(why) = listener.response_headers.add(pattern, &header.key, &value) {
                        self.problem(header.line, why);
                    }
                }
            }
        }
    }
}

/// As Vault joins them.
fn header_value(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) | Value::Number(text) => Some(text.clone()),
        Value::List(values) => {
            let texts: Option<Vec<String>> = values.iter().map(header_value).collect();
            texts.map(|texts| texts.join("; "))
        }
        _ => None,
    }
}
