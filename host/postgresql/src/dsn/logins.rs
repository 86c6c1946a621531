//! Which ways of logging in a connection lets a server ask for (libpq's `require_auth`).

/// A way in which a server lets somebody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginMethod {
    /// Without asking for anything.
    None,
    /// The password as it is.
    Password,
    Md5,
    Scram,
    /// What no password of ours can answer: GSSAPI, SSPI, OAuth.
    Other,
}

impl LoginMethod {
    const ALL: [(&'static str, Self); 7] = [
        ("none", Self::None),
        ("password", Self::Password),
        ("md5", Self::Md5),
        ("scram-sha-256", Self::Scram),
        ("gss", Self::Other),
        ("sspi", Self::Other),
        ("oauth", Self::Other),
    ];

    const fn bit(self) -> u8 {
        match self {
            Self::None => 1,
            Self::Password => 2,
            Self::Md5 => 4,
            Self::Scram => 8,
            Self::Other => 16,
        }
    }
}

/// The methods that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logins(u8);

impl Default for Logins {
    fn default() -> Self {
        Self(u8::MAX)
    }
}

impl Logins {
    /// Methods, or methods with `!` before each. `None`: the list is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let is_negative = text.starts_with('!');
        let mut named = 0;
        for word in text.split(',') {
            let word = word.trim();
            let name = if is_negative { word.strip_prefix('!')? } else { word };
            named |= LoginMethod::ALL.iter().find(|(known, _)| *known == name)?.1.bit();
        }
        Some(Self(if is_negative { !named } else { named }))
    }

    pub fn allow(self, method: LoginMethod) -> bool {
        self.0 & method.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_listed_or_excluded() {
        let allowed = |text: &str| {
            Logins::parse(text).map(|logins| {
                [LoginMethod::None, LoginMethod::Password, LoginMethod::Md5, LoginMethod::Scram]
                    .map(|method| logins.allow(method))
            })
        };
        assert_eq!(allowed(""), Some([true; 4]));
        assert_eq!(allowed("scram-sha-256"), Some([false, false, false, true]));
        assert_eq!(allowed("md5,scram-sha-256"), Some([false, false, true, true]));
        assert_eq!(allowed("!password,!none"), Some([false, false, true, true]));
        assert_eq!(allowed("!password,md5"), None);
        assert_eq!(allowed("md5,!password"), None);
        assert_eq!(allowed("ldap"), None);
    }
}
