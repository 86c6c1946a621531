//! Any text as a policy to be formatted.
#![no_main]

use leasehold_acl::any_policy_keeps_its_meaning;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| any_policy_keeps_its_meaning(text));
