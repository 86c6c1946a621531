//! Any bytes as a query string and as the form body of a request.
#![no_main]

use leasehold_http::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| properties::any_form_is_read_or_refused(input.1, usize::from(input.0)));
