//! Any text as a policy to be formatted.
#![no_main]

use leasehold_cli::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| properties::any_policy_keeps_its_meaning(text));
