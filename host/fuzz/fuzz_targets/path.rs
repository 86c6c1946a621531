//! Any text as the path of a request line.
#![no_main]

use leasehold_http::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| {
    properties::any_path_is_read_to_one_path(path);
    properties::any_path_is_read_to_one_path(&format!("/v1/{path}"));
});
