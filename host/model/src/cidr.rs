//! Blocks of IP addresses: where a token may be used from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A block of IP addresses, such as `10.0.0.0/8`. A bare address is a block of one address, and is shown as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    /// How many leading bits an address must share with `address`: at most 32 or 128.
    bits: u8,
}

/// The text is neither an address nor a block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is neither an IP address nor a CIDR block")]
pub struct ParseCidrError;

/// How many bits an address has.
const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address as a number, its first bit in the highest place.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

impl Cidr {
    /// The block that holds one address alone.
    #[must_use]
    pub fn only(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, bits: width(address) }
    }

    /// Whether the block holds `address`. An IPv4 address that is written as IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.covers(&Self::only(address))
    }

    /// Whether every address of `other` lies in this block.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.bits <= other.bits
            && number(self.address) & mask == number(other.address) & mask
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ParseCidrError)?;
        let bits = match bits {
            // What Rust reads besides digits, such as `+8`, is no prefix length.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| ParseCidrError)?,
            Some(_) => return Err(ParseCidrError),
            None => width(address),
        };
        if bits > width(address) {
            return Err(ParseCidrError);
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == width(self.address) { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.bits) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = ParseCidrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(block: Cidr) -> Self {
        block.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_holds_the_addresses_that_share_its_first_bits() {
        for (text, address, holds) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            // The bits behind the prefix say nothing.
            ("10.1.2.3/8", "10.9.9.9", true),
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.5", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "203.0.113.9", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
            // As a dual-stack listener sees an IPv4 client.
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("128.0.0.0/1", "127.0.0.1", false),
        ] {
            assert_eq!(block(text).contains(address.parse().unwrap()), holds, "{text} {address}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in
            ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0/8", "1.2.3.4/8/8"]
        {
            assert_eq!(text.parse::<Cidr>(), Err(ParseCidrError), "{text}");
        }
    }

    #[test]
    fn a_block_is_shown_as_vault_shows_it() {
        for (given, shown) in
            [("10.1.2.3/8", "10.1.2.3/8"), ("1.2.3.4/32", "1.2.3.4"), ("1.2.3.4", "1.2.3.4"), ("::1/128", "::1")]
        {
            assert_eq!(block(given).to_string(), shown);
        }
    }

    #[test]
    fn a_block_covers_what_lies_in_it() {
        assert!(block("10.0.0.0/8").covers(&block("10.1.0.0/16")));
        assert!(block("10.0.0.0/8").covers(&block("10.0.0.0/8")));
        assert!(!block("10.1.0.0/16").covers(&block("10.0.0.0/8")));
        assert!(!block("10.0.0.0/8").covers(&block("1.2.3.4/32")));
    }
}
