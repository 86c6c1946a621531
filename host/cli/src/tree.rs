//! The command tree and the flags that all commands share. What a command does is in `commands`.
//!
//! Every leaf carries the connection and output flags, so that they may stand anywhere behind the command's name.

use clap::builder::Styles;
use clap::{Arg, Command};

use crate::commands;
use crate::declare::{switch, value, values};

/// The client's whole tree.
pub(crate) fn client() -> Command {
    Command::new("leasehold")
        .bin_name("leasehold")
        .about("Leased database credentials, decided and rendered in a sandbox")
        .long_about("Leasehold hands out PostgreSQL credentials on lease and speaks Vault's HTTP API. Flags take one dash or two.")
        .after_help(ROOT_HELP)
        .styles(Styles::plain())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_version_flag(true)
        .max_term_width(100)
        .subcommands(commands::trees())
        .mut_subcommands(|command| prepared(command, "leasehold"))
}

const ROOT_HELP: &str = "\
Environment (LEASEHOLD_ first, then VAULT_, then BAO_):
  LEASEHOLD_ADDR, _TOKEN, _NAMESPACE, _CACERT, _CAPATH, _CLIENT_CERT, _CLIENT_KEY, _TLS_SERVER_NAME,
  _SKIP_VERIFY, _FORMAT, _WRAP_TTL, _CLIENT_TIMEOUT, _MAX_RETRIES, _TOKEN_PATH

Examples:
  $ export LEASEHOLD_ADDR=http://127.0.0.1:8200
  $ leasehold login
  $ leasehold secrets enable database
  $ leasehold read database/creds/readonly
  $ leasehold lease revoke database/creds/readonly/LEASE";

/// Groups show their help when no command is given; leaves get the common flags, and a usage line with the words they take.
fn prepared(command: Command, above: &str) -> Command {
    let path = format!("{above} {}", command.get_name());
    let command = command.args_override_self(true).disable_version_flag(true);
    if command.has_subcommands() {
        let group = command.subcommand_required(true).arg_required_else_help(true);
        return group.mut_subcommands(|command| prepared(command, &path));
    }
    let words = command.get_arguments().find(|arg| arg.get_id() == "words").and_then(|arg| arg.get_value_names());
    let words: String = words.unwrap_or_default().iter().map(|word| format!(" {word}")).collect();
    let command = command.override_usage(format!("{path} [OPTIONS]{words}"));
    let taken: Vec<String> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
    common_flags().into_iter().filter(|arg| !taken.contains(&arg.get_id().to_string())).fold(command, Command::arg)
}

fn common_flags() -> Vec<Arg> {
    const HTTP: &str = "Connection options";
    const OUTPUT: &str = "Output options";
    let http = [
        value("address", "URL", "Address of the server [LEASEHOLD_ADDR; default https://127.0.0.1:8200]"),
        value("namespace", "NAME", "Namespace to work in").alias("ns"),
        value("ca-cert", "FILE", "PEM file with the authority to trust"),
        value("ca-path", "FOLDER", "Folder of PEM files with authorities to trust"),
        value("client-cert", "FILE", "PEM file with a certificate to show; needs -client-key"),
        value("client-key", "FILE", "PEM file with the key of -client-cert"),
        value("tls-server-name", "NAME", "Name to expect in the server's certificate"),
        switch("tls-skip-verify", "Trust any certificate: the connection can then be overheard"),
        switch("disable-redirects", "Do not follow the one redirect that is followed otherwise"),
        value("wrap-ttl", "DURATION", "Wrap the answer in a single-use token that lives this long"),
        values("header", "NAME=VALUE", "Header to send along; may be repeated"),
        switch("output-curl-string", "Print the curl command for this request instead of sending it"),
        switch("output-policy", "Print the policy rule that allows this request instead of sending it"),
        switch("non-interactive", "Never ask on the terminal, and do not read standard input"),
    ];
    let output = [
        value("format", "FORMAT", "table, json or yaml; `read` also raw [LEASEHOLD_FORMAT]"),
        value("field", "NAME", "Print this field alone, without a newline when piped"),
        switch("detailed", "Show more, where there is more to show"),
    ];
    let http = http.into_iter().map(|arg| arg.help_heading(HTTP));
    http.chain(output.into_iter().map(|arg| arg.help_heading(OUTPUT))).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_tree_is_consistent() {
        super::client().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            for inner in command.get_subcommands() {
                check(inner, &path);
            }
            if !command.has_subcommands() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                let full = format!("$ {}", path.trim());
                assert!(help.contains("$ leasehold") || help.contains("| leasehold"), "{full}");
            }
        }
        check(&super::client(), "");
    }
}
