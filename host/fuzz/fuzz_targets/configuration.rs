//! Any text as the server's configuration.
//!
//! The module is built in here by itself: the server's crate would bring wasmtime and SQLite along.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code, unused_imports)]
#[path = "../../server/src/config/mod.rs"]
mod config;

fuzz_target!(|text: &str| config::properties::any_configuration_is_read_or_refused(text));
