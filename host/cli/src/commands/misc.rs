//! `print token`, `completion`, `version`.

use clap::Command;
use secrecy::ExposeSecret;
use serde_json::json;

use super::run::Run;
use crate::declare::{group, leaf};
use crate::failure::Failure;
use crate::print::{self, Format};

pub(super) fn trees() -> Vec<Command> {
    vec![
        group("print", "Print what the client would use").subcommand(leaf(
            "token",
            "Print the token that requests would carry",
            "",
            "  $ leasehold print token",
        )),
        leaf("completion", "Print a script that completes commands and flags", "bash|zsh|fish", COMPLETION),
        leaf("version", "Print the version of this program", "", "  $ leasehold version"),
    ]
}

const COMPLETION: &str = "  $ source <(leasehold completion bash)
  $ mkdir -p ~/.local/share/bash-completion/completions
  $ leasehold completion bash > ~/.local/share/bash-completion/completions/leasehold
  $ leasehold completion zsh > \"${fpath[1]}/_leasehold\"
  $ leasehold completion fish > ~/.config/fish/completions/leasehold.fish";

pub(super) fn print_token(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let token = run.token()?;
    Ok(run.around.say(token.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default())?)
}

pub(super) fn completion(run: &mut Run) -> Result<(), Failure> {
    let [shell] = run.exactly()?;
    let shell = match shell.as_str() {
        "bash" => clap_complete::Shell::Bash,
        "zsh" => clap_complete::Shell::Zsh,
        "fish" => clap_complete::Shell::Fish,
        other => return Err(Failure::Local(format!("There is no completion for `{other}`: choose bash, zsh or fish"))),
    };
    // Generated aside, because the generator panics when its output does not take everything.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut run.tree.clone(), "leasehold", &mut script);
    Ok(run.around.stdout.write_all(&script)?)
}

pub(super) fn version(run: &mut Run) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if run.format == Format::Table {
        return Ok(run.around.say(&format!("Leasehold v{version}"))?);
    }
    print::document(run.around, run.format, &json!({ "version": version }))
}
