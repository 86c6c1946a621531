//! JSON as Go's encoder writes it: `<`, `>`, `&`, U+2028 and U+2029 are escaped. Clients may compare bytes.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// Appends `value` and the line end that Go's encoder puts there.
pub(crate) fn write(value: &impl Serialize, into: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    value.serialize(&mut Serializer::with_formatter(&mut *into, GoFormatter))?;
    into.push(b'\n');
    Ok(())
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let bytes = fragment.as_bytes();
        let mut done = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let (escape, len): (&[u8], usize) = match byte {
                b'<' => (b"\\u003c", 1),
                b'>' => (b"\\u003e", 1),
                b'&' => (b"\\u0026", 1),
                0xe2 => match bytes.get(at + 1..at + 3) {
                    Some([0x80, 0xa8]) => (b"\\u2028", 3),
                    Some([0x80, 0xa9]) => (b"\\u2029", 3),
                    _ => continue,
                },
                _ => continue,
            };
            writer.write_all(bytes.get(done..at).unwrap_or_default())?;
            writer.write_all(escape)?;
            done = at + len;
        }
        writer.write_all(bytes.get(done..).unwrap_or_default())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        let text: &[u8] = match escape {
            CharEscape::Quote => b"\\\"",
            CharEscape::ReverseSolidus => b"\\\\",
            CharEscape::Solidus => b"/",
            CharEscape::Backspace => b"\\b",
            CharEscape::FormFeed => b"\\f",
            CharEscape::LineFeed => b"\\n",
            CharEscape::CarriageReturn => b"\\r",
            CharEscape::Tab => b"\\t",
            CharEscape::AsciiControl(byte) => return write!(writer, "\\u{byte:04x}"),
        };
        writer.write_all(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_could_take_for_markup_is_escaped() {
        let mut bytes = Vec::new();
        write(&serde_json::json!({"a<b": "x>&y \u{2028}\u{2029}… \u{1}\n\"\\/é"}), &mut bytes).unwrap();
        let said = String::from_utf8(bytes).unwrap();
        assert_eq!(said, "{\"a\\u003cb\":\"x\\u003e\\u0026y \\u2028\\u2029… \\u0001\\n\\\"\\\\/é\"}\n");
    }
}
