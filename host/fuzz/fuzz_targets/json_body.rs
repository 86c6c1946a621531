//! Any bytes as the JSON body of a request.
#![no_main]

use leasehold_http::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| properties::any_body_is_read_or_refused(input.0, input.1));
