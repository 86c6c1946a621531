//! Any text as a length of time: server and client read the same.
#![no_main]

use leasehold_cli::properties;
use leasehold_model::{Ttl, duration};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    properties::any_length_of_time_reads_back(text);
    if let Ok(ttl) = duration::parse(text) {
        assert_eq!(duration::parse(&ttl.as_secs().to_string()), Ok(ttl));
        let read = properties::whole_seconds(text).and_then(|seconds| u64::try_from(seconds).ok()).map(Ttl::from_secs);
        assert!(read == Some(ttl) || text.is_empty(), "{text:?}: {ttl:?}, {read:?}");
    }
});
