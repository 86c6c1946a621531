//! Any text as a connection URL, any text around a password in one, any user name and password in a template.
#![no_main]

use leasehold_postgresql::dsn::properties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str, &str)| {
    let (front, one, other) = input;
    let front = ["", "postgres://", "postgres://u:s3cret-word@h/d?", "host=h user=u "][usize::from(front % 4)];
    properties::any_url_keeps_its_password(&format!("{front}{one}"));
    properties::no_error_shows_what_stands_in_a_password(one, other);
    properties::a_template_gives_back_what_is_put_in(one, other);
});
