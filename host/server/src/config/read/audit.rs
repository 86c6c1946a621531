//! The blocks `audit "file" "name" { … }`, and OpenBao's JSON form `{"type": "file", "path": "name", …}`.

use std::collections::BTreeMap;

use leasehold_core::audit::{DeviceEntry, Form};

use super::super::device;
use super::super::tree::{self, Block, Item, Value};
use super::Reader;

const FORM: &str = "`audit` needs two labels: `audit \"file\" \"name\" { options = { file_path = \"…\" } }`";

impl Reader<'_> {
    pub(super) fn audit(&mut self, item: &Item, into: &mut Vec<DeviceEntry>) {
        // The form without labels, where the settings themselves say kind and name.
        if item.labels.is_empty()
            && let Ok(blocks) = tree::blocks(item, 0)
            && blocks.iter().all(|block| block.items.iter().any(|inner| inner.key == "type" && is_text(&inner.value)))
        {
            for block in &blocks {
                let named = |name: &str| {
                    block.items.iter().find(|inner| inner.key == name).map_or("", |inner| text(&inner.value))
                };
                let labels = vec![named("type"), named("path")];
                into.extend(self.device(&Block { labels, ..block.clone() }));
            }
            return;
        }
        match tree::blocks(item, 2) {
            // `audit "file" { options = … }`: its settings are no names of devices.
            Ok(blocks)
                if blocks
                    .iter()
                    .any(|block| block.labels.last().is_some_and(|name| ["options", "description"].contains(name))) =>
            {
                self.problem(item.line, FORM);
            }
            Ok(blocks) => {
                for block in &blocks {
                    into.extend(self.device(block));
                }
            }
            Err(line) => self.problem(line, FORM),
        }
    }

    fn device(&mut self, block: &Block<'_>) -> Option<DeviceEntry> {
        let line = block.line;
        let [kind, name] = block.labels.as_slice() else { return None };
        if name.is_empty() {
            self.problem(line, "an audit device needs a name: its second label, or `path`");
            return None;
        }
        let mut options = BTreeMap::new();
        let mut description = String::new();
        for inner in block.items {
            if !self.works(inner, "audit \"file\"", None, "setting of audit") {
                continue;
            }
            match inner.key.as_str() {
                "description" => description = self.text_of(inner).unwrap_or_default(),
                "options" => {
                    for option in self.blocks(inner, 0).iter().flat_map(|options| options.items) {
                        match &option.value {
                            Value::Text(value) | Value::Number(value) => {
                                options.insert(option.key.clone(), value.clone());
                            }
                            Value::Bool(value) => {
                                options.insert(option.key.clone(), value.to_string());
                            }
                            _ => self.problem(option.line, format!("option `{}` must be one value", option.key)),
                        }
                    }
                }
                // Taken above.
                _ => {}
            }
        }
        self.kind(block, "audit", "audit device")?;
        if !["file_path", "path"].iter().any(|key| options.get(*key).is_some_and(|path| !path.is_empty())) {
            self.problem(line, "`audit \"file\"` needs `file_path` in its `options`: a file, or `stdout`");
        }
        if options.get("format").is_some_and(|format| format != "json") {
            self.problem(line, "`format` can only be \"json\"");
        }
        if options.get("mode").is_some_and(|mode| !is_mode(mode)) {
            self.problem(line, "`mode` must be octal permissions, such as \"0600\"");
        }
        if let Err(wrong) = Form::of(&options) {
            self.problem(line, format!("`{}` must be true or false", wrong.option));
        }
        Some(device(kind, name, description, options))
    }
}

/// As the device reads it: empty is its default.
fn is_mode(text: &str) -> bool {
    text.is_empty() || u32::from_str_radix(text.trim_start_matches("0o"), 8).is_ok_and(|mode| mode <= 0o777)
}

fn is_text(value: &Value) -> bool {
    matches!(value, Value::Text(_))
}

fn text(value: &Value) -> &str {
    match value {
        Value::Text(text) => text,
        _ => "",
    }
}
