//! The blocks `seal "static" { … }` and `seal "transit" { … }`.

use std::path::PathBuf;

use leasehold_seals::{Hidden, NamedKey, StaticSettings, TransitSettings};

use super::super::tree::{Block, Item};
use super::super::{Remark, SealBlock, SealSettings};
use super::Reader;

impl Reader<'_> {
    pub(super) fn seal(&mut self, item: &Item, into: &mut Vec<SealBlock>) {
        for block in self.blocks(item, 1) {
            let Some(kind) = self.kind(&block, "seal", "seal") else { continue };
            self.seal_block(&block, kind, into);
        }
    }

    fn seal_block(&mut self, block: &Block<'_>, kind: &str, into: &mut Vec<SealBlock>) {
        let rows = format!("seal \"{kind}\"");
        let mut disabled = false;
        let mut said = Vec::new();
        let mut known = Vec::new();
        for inner in block.items {
            if !self.works(inner, &rows, None, "setting of seal") {
                continue;
            }
            if said.contains(&inner.key.as_str()) {
                self.problem(inner.line, format!("`{}` is said twice", inner.key));
            }
            said.push(inner.key.as_str());
            match inner.key.as_str() {
                "disabled" => disabled = self.bool_of(inner).unwrap_or_default(),
                _ => known.push(inner),
            }
        }
        let settings = match kind {
            "static" => self.static_seal(block, &known).map(SealSettings::Static),
            _ => Some(SealSettings::Transit(Box::new(self.transit_seal(&known)))),
        };
        let Some(settings) = settings else { return };
        let other = into.iter().find(|other| other.disabled == disabled || other.settings.kind() == kind);
        if let Some(other) = other {
            let why = if other.settings.kind() == kind {
                format!(
                    "there is a second block `seal \"{kind}\"`: a server cannot move between two seals of one kind (`previous_key` of `static` \
                     and a rotation in the transit engine change the key of one)"
                )
            } else if disabled {
                "there are two disabled seals: keep the one that the server moves away from".to_owned()
            } else {
                "there are two seals: the one that the server moves away from needs `disabled = \"true\"`".to_owned()
            };
            self.problem(block.line, why);
        }
        into.push(SealBlock { settings, disabled });
    }

    fn secret_of(&mut self, item: &Item) -> Option<Hidden> {
        self.text_of(item).filter(|text| !text.is_empty()).map(Hidden::new)
    }

    fn static_seal(&mut self, block: &Block<'_>, items: &[&Item]) -> Option<StaticSettings> {
        let (mut ids, mut keys) = ([None, None], [None, None]);
        for item in items {
            let text = |reader: &mut Self| reader.text_of(item).filter(|text| !text.is_empty());
            match item.key.as_str() {
                "current_key_id" => ids[0] = text(self),
                "previous_key_id" => ids[1] = text(self),
                "current_key" => keys[0] = self.secret_of(item),
                "previous_key" => keys[1] = self.secret_of(item),
                other => self.problem(item.line, format!("`{other}` is not read: please report this defect")),
            }
        }
        let [current_id, previous_id] = ids;
        let [current, previous] = keys;
        let mut named = |id: Option<String>, key: Option<Hidden>, name: &str| match (id, key) {
            (Some(id), Some(key)) => Some(NamedKey { id, key }),
            (None, Some(_)) => {
                let what = format!("`{name}_id` is missing: it names the key, and must change whenever the key does");
                self.problem(block.line, what);
                None
            }
            (Some(_), None) => {
                self.problem(block.line, format!("`{name}` is missing, and `{name}_id` is there"));
                None
            }
            (None, None) => None,
        };
        let previous = named(previous_id, previous, "previous_key");
        let is_empty = current_id.is_none() && current.is_none();
        let current = named(current_id, current, "current_key");
        if is_empty {
            self.problem(
                block.line,
                "`seal \"static\"` needs `current_key_id` and `current_key` (`file://…`, `env://…`, or the key in hex or base64)",
            );
        }
        Some(StaticSettings { current: current?, previous })
    }

    fn transit_seal(&mut self, items: &[&Item]) -> TransitSettings {
        let mut seal = TransitSettings::default();
        for item in items {
            match item.key.as_str() {
                "address" => seal.address = self.text_of(item),
                "token" => seal.token = self.secret_of(item),
                "key_name" => seal.key_name = self.text_of(item),
                "mount_path" => seal.mount_path = self.text_of(item),
                "namespace" => seal.namespace = self.text_of(item),
                "disable_renewal" => seal.disable_renewal = self.bool_of(item).unwrap_or_default(),
                "tls_ca_cert" => seal.tls_ca_cert = self.path_of(item),
                "tls_client_cert" => seal.tls_client_cert = self.path_of(item),
                "tls_client_key" => seal.tls_client_key = self.path_of(item),
                "tls_server_name" => seal.tls_server_name = self.text_of(item),
                "tls_skip_verify" => seal.tls_skip_verify = self.bool_of(item).unwrap_or_default(),
                other => self.problem(item.line, format!("`{other}` is not read: please report this defect")),
            }
        }
        if seal.tls_skip_verify {
            let line = items.iter().find(|item| item.key == "tls_skip_verify").map_or(1, |item| item.line);
            let what =
                "`tls_skip_verify` lets anybody on the way read the seal's token and the server's key".to_owned();
            self.warnings.push(Remark { file: self.file.name.clone(), line, what });
        }
        seal
    }

    fn path_of(&mut self, item: &Item) -> Option<PathBuf> {
        self.text_of(item).filter(|text| !text.is_empty()).map(PathBuf::from)
    }
}
