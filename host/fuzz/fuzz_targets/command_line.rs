//! Any words as a command line, and as `key=value` with any document on standard input.
#![no_main]

use leasehold_cli::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<String>, Vec<(String, String)>, &[u8])| {
    let (words, pairs, document) = input;
    properties::any_command_line_is_taken_or_refused(&words);
    properties::any_words_are_gathered(&pairs, document);
});
