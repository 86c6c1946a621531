//! Commands of Vault that nothing here answers, so that whoever knows them learns why instead of a guess.

/// A command, as typed, and what it would need.
const ABSENT: [(&str, &str); 15] = [
    ("agent", "there is no agent"),
    ("proxy", "there is no proxy"),
    ("debug", "look at `read sys/metrics format=prometheus` and at the server's log"),
    ("events", "there are no event streams"),
    ("monitor", "look at the server's log"),
    ("namespace", "there is one namespace"),
    ("pki", "there is no pki engine, only `database` and `kv`"),
    ("plugin", "engines are built in; policy modules are managed with `module`"),
    ("ssh", "there is no ssh engine, only `database` and `kv`"),
    ("transit", "there is no transit engine, only `database` and `kv`"),
    ("version-history", "versions are not recorded"),
    ("autopilot", "there is no cluster of Raft"),
    ("join", "there is no cluster of Raft"),
    ("list-peers", "there is no cluster of Raft: `operator members` shows the servers"),
    ("remove-peer", "there is no cluster of Raft"),
];

/// Why this server has no such command, when it is one of Vault's.
pub(crate) fn reason(word: &str) -> Option<&'static str> {
    ABSENT.iter().find(|(name, _)| *name == word).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_that_is_there_is_said_to_be_absent() {
        let tree = crate::command();
        let operator = tree.find_subcommand("operator").unwrap();
        for (name, _) in ABSENT {
            assert!(tree.find_subcommand(name).is_none() && operator.find_subcommand(name).is_none(), "{name}");
        }
        assert!(reason("pki").is_some() && reason("kv").is_none());
    }
}
