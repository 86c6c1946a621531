//! Any text as SQL statements, and any secret in its place.
#![no_main]

use leasehold_builtin::secrets::database::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (sql, secret) = input;
    properties::any_text_is_read_whole(sql);
    properties::a_secret_never_leaves_its_place(sql, secret);
    // Placeholders are too rare in what the fuzzer makes up.
    let placed = sql.replace('#', properties::HOLE);
    properties::a_secret_never_leaves_its_place(&placed, secret);
});
