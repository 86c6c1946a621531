//! `print token`, `completion`, `version`.

use clap::builder::Str;
use clap::{Arg, ArgAction, Command};
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
        leaf("completion", "Print a script that completes commands, flags and paths", "bash|zsh|fish", COMPLETION),
        leaf("version", "Print the version of this program", "", "  $ leasehold version"),
    ]
}

const COMPLETION: &str = "  $ complete -o nospace -C leasehold leasehold    # bash alone, without a script
  $ source <(leasehold completion bash)
  $ mkdir -p ~/.local/share/bash-completion/completions
  $ leasehold completion bash > ~/.local/share/bash-completion/completions/leasehold
  $ leasehold completion zsh > \"${fpath[1]}/_leasehold\"
  $ leasehold completion fish > ~/.config/fish/completions/leasehold.fish

Paths are asked of the server, as a list by the token that the command would use:
of a token with counted uses, that takes one.";

pub(super) fn print_token(run: &mut Run) -> Result<(), Failure> {
    let _: [String; 0] = run.exactly()?;
    let token = run.token()?;
    Ok(run.env.say(token.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default())?)
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
    clap_complete::generate(shell, &mut without_values_of_switches(run.tree.clone()), "leasehold", &mut script);
    let script = one_dash(&String::from_utf8_lossy(&script));
    Ok(run.env.stdout.write_all(with_paths(shell, &script).as_bytes())?)
}

/// The script with the paths that the server has: this program is asked for them while somebody types.
fn with_paths(shell: clap_complete::Shell, script: &str) -> String {
    match shell {
        // Behind what the generator registers, so that this function is called in its place.
        clap_complete::Shell::Bash => {
            format!("{script}{BASH_PATHS}{}", registered(script).replace("-F _leasehold ", "-F _leasehold_paths "))
        }
        clap_complete::Shell::Zsh => script.replace("'*::words:_default'", "'*::words:_leasehold_paths'").replacen(
            "\n_leasehold() {\n",
            &format!("\n{ZSH_PATHS}\n_leasehold() {{\n"),
            1,
        ),
        _ => format!("{script}{FISH_PATHS}"),
    }
}

/// The lines by which a script for bash says what completes.
fn registered(script: &str) -> &str {
    script.rfind("\nif [[").and_then(|at| script.get(at..)).unwrap_or_default()
}

const BASH_PATHS: &str = r#"
_leasehold_paths() {
    local one found=()
    while IFS= read -r one; do
        found+=("$one")
    done < <(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" LEASEHOLD_COMPLETE=paths leasehold 2>/dev/null)
    if [[ "${#found[@]}" -eq 0 ]]; then
        _leasehold "$@"
        return
    fi
    COMPREPLY=("${found[@]}")
    if [[ "${#found[@]}" -eq 1 && "${found[0]}" == */ ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
"#;

const ZSH_PATHS: &str = r#"_leasehold_paths() {
    local -a found
    found=(${(f)"$(COMP_LINE="$LBUFFER" COMP_POINT= LEASEHOLD_COMPLETE=paths leasehold 2>/dev/null)"})
    if (( ${#found} )); then
        compadd -S '' -- $found
    else
        _default "$@"
    fi
}
"#;

const FISH_PATHS: &str = r#"
function __fish_leasehold_paths
    set -lx COMP_LINE (commandline -cp | string collect)
    set -lx COMP_POINT ''
    set -lx LEASEHOLD_COMPLETE paths
    leasehold 2>/dev/null
end
complete -c leasehold -a '(__fish_leasehold_paths)'
"#;

/// `-prefix` may say `=false`, which nobody completes: without this, shells put a `=` behind it.
fn without_values_of_switches(command: Command) -> Command {
    let plain = |arg: Arg| {
        if !arg.is_require_equals_set() {
            return arg;
        }
        let (id, help) = (arg.get_id().clone(), arg.get_help().cloned().unwrap_or_default());
        Arg::new(id.clone()).long(Str::from(id)).help(help).action(ArgAction::SetTrue)
    };
    command.mut_args(plain).mut_subcommands(without_values_of_switches)
}

/// The generator writes flags with two dashes; the documents, and Vault, with one.
fn one_dash(script: &str) -> String {
    // fish has a word for either kind; elsewhere in its script `-l` means something else.
    let of_fish =
        |line: &str| if line.starts_with("complete ") { line.replace(" -l ", " -o ") } else { line.to_owned() };
    let script: String = script.split_inclusive('\n').map(of_fish).collect();
    let mut parts = script.split("--");
    let mut done = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_flag = part.starts_with(|c: char| c.is_ascii_lowercase());
        done.push_str(if is_flag { "-" } else { "--" });
        done.push_str(part);
    }
    done
}

pub(super) fn version(run: &mut Run) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if run.format == Format::Table {
        return Ok(run.env.say(&format!("Leasehold v{version}"))?);
    }
    print::document(run.env, run.format, &json!({ "version": version }))
}
