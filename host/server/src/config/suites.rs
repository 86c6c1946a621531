//! Cipher suites of TLS 1.2 by the names that Go, and so Vault's configuration, gives them.

/// What is served, in the server's order.
pub(crate) const NAMES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Those of TLS 1.3 are always served: naming them changes nothing.
const ALWAYS: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Served,
    /// Go has it, we do not: no forward secrecy, CBC, RC4, 3DES.
    Weak,
    Never,
}

pub(crate) fn of_name(name: &str) -> Known {
    if NAMES.contains(&full(name)) || ALWAYS.contains(&name) {
        return Known::Served;
    }
    let is_weak = ["TLS_RSA_WITH_", "TLS_ECDHE_RSA_WITH_", "TLS_ECDHE_ECDSA_WITH_"].iter().any(|family| {
        name.strip_prefix(family).is_some_and(|rest| {
            [
                "RC4_128_SHA",
                "3DES_EDE_CBC_SHA",
                "AES_128_CBC_SHA",
                "AES_256_CBC_SHA",
                "AES_128_CBC_SHA256",
                "AES_128_GCM_SHA256",
                "AES_256_GCM_SHA384",
            ]
            .contains(&rest)
        })
    });
    if is_weak { Known::Weak } else { Known::Never }
}

/// Go's older names of two suites lack their end.
pub(crate) fn full(name: &str) -> &str {
    match name {
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" => "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_served_weak_or_never_heard_of() {
        for (name, known) in [
            ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", Known::Served),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", Known::Served),
            ("TLS_AES_128_GCM_SHA256", Known::Served),
            ("TLS_RSA_WITH_AES_128_GCM_SHA256", Known::Weak),
            ("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", Known::Weak),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA25", Known::Never),
            ("", Known::Never),
        ] {
            assert_eq!(of_name(name), known, "{name}");
        }
    }
}
