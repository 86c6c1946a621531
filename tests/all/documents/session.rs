//! One shell for one document: its commands in their order, against one server.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use super::blocks::{Command, Document, Marker};
use super::{HOW_TO_MARK, root};
use crate::support::{Ran, Server, under_test};

/// Where documents have the server.
const ADDRESS: &str = "127.0.0.1:8200";
/// Stands in front of the number of a command's line, between the answers.
const MARK: char = '\u{1e}';

/// What came of a document's commands.
pub(super) struct Session {
    /// Line and answer of every command.
    pub(super) answers: Vec<(usize, String)>,
    // Looks through its log when it goes.
    _server: Server,
}

impl Session {
    /// Types every command; all must end as the document says.
    pub(super) fn run(document: &Document) -> Self {
        let commands: Vec<&Command> = document.commands().filter(|command| command.is_run).collect();
        let is_server = |command: &&&Command| command.text.starts_with("leasehold server ");
        // `leasehold server` would not come back: it is the server of this session.
        let arguments = commands.iter().find(is_server).map_or("-dev -dev-postgres", |command| {
            command.text.split(" #").next().unwrap_or_default().trim_start_matches("leasehold server ")
        });
        let arguments: Vec<&str> = arguments.split_whitespace().filter(|argument| *argument != "-dev").collect();
        let server = Server::dev_with(&arguments, &[]);
        // The dev server has put its token where the command line looks for it.
        let folder = folder(&server, server.home());
        for block in &document.blocks {
            if let Some(Marker::File(name)) = &block.marker {
                fs::write(folder.join(name), block.lines.join("\n")).expect("a file can be written");
            }
        }
        let mut script = String::new();
        for command in commands.iter().filter(|command| !is_server(command)) {
            let (line, status) = (command.line, command.status);
            let text = command.text.replace(ADDRESS, server.address());
            let _ = write!(script, "printf '\\036%d\\n' {line}\n{text}\nstatus=$?\n");
            let _ = writeln!(script, "[ $status = {status} ] || {{ echo \"exit status $status\"; exit 1; }}");
        }
        let ran = bash(&folder, server.home(), &[], &script);
        // As in the document.
        let said = ran.stdout.replace(server.address(), ADDRESS);
        let answers: Vec<(usize, String)> = said
            .split(MARK)
            .skip(1)
            .filter_map(|part| part.split_once('\n'))
            .map(|(line, answer)| (line.parse().unwrap_or_default(), answer.to_owned()))
            .collect();
        if ran.status != 0 {
            let (line, answer) = answers.last().cloned().unwrap_or_default();
            let text = commands.iter().find(|command| command.line == line).map_or("", |command| &command.text);
            panic!(
                "{}:{line}: `{text}` did not end as it should:\n{answer}{}\n(a wanted failure: `# exit status N` behind it.) {HOW_TO_MARK}",
                document.name, ran.stderr
            );
        }
        Self { answers, _server: server }
    }

    /// What the document shows as an answer to a command has the keys that the real answer has.
    pub(super) fn compare(&self, document: &Document, command: &Command, shown: &[String]) {
        let answer = self.answers.iter().find(|(line, _)| *line == command.line).map(|(_, answer)| answer.as_str());
        let answer = answer.unwrap_or_default();
        let real: Vec<&str> = answer.lines().map(key).collect();
        for line in shown.iter().filter(|line| !line.trim().is_empty()) {
            let shown = key(line);
            let (begin, is_shortened) = shown.split_once('…').map_or((shown, false), |(begin, _)| (begin, true));
            let is_there = real.iter().any(|key| if is_shortened { key.starts_with(begin) } else { *key == begin });
            assert!(
                is_there,
                "{}: the answer of `{}` (line {}) has no line `{shown}`:\n{answer}",
                document.name, command.text, command.line
            );
        }
    }
}

/// The first cell of a table's row, the key of a line of JSON, or the whole line.
fn key(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('"').and_then(|rest| rest.split_once("\":")) {
        Some((key, _)) => key,
        None => line.split("  ").next().unwrap_or_default(),
    }
}

/// One line in a shell that knows this server.
pub(super) fn shell(server: &Server, environment: &[(String, String)], line: &str) -> Ran {
    let home = server.cli().home().to_owned();
    let folder = folder(server, &home);
    let mut all = vec![
        ("VAULT_ADDR".to_owned(), format!("http://{}", server.address())),
        ("VAULT_TOKEN".to_owned(), server.root_token()),
    ];
    all.extend_from_slice(environment);
    Ran { line: line.to_owned(), ..bash(&folder, &home, &all, line) }
}

/// A working folder that looks like the tree, and the program on the path.
fn folder(server: &Server, home: &Path) -> PathBuf {
    let (folder, programs) = (home.join("work"), server.home().join("bin"));
    for made in [&folder, &programs] {
        fs::create_dir_all(made).expect("a folder");
    }
    for (from, to) in [(under_test(), programs.join("leasehold")), (root().join("examples"), folder.join("examples"))] {
        if !to.exists() {
            symlink(from, to).expect("a link");
        }
    }
    folder
}

fn bash(folder: &Path, home: &Path, environment: &[(String, String)], script: &str) -> Ran {
    let mut command = Process::new("bash");
    for (name, _) in std::env::vars() {
        if ["VAULT_", "BAO_", "LEASEHOLD_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let programs = home.ancestors().map(|above| above.join("bin")).find(|bin| bin.join("leasehold").exists());
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", programs.unwrap_or_default().display());
    let output = command
        .args(["--noprofile", "--norc", "-c"])
        // Answers in their order, errors among them.
        .arg(format!("exec 2>&1\n{script}"))
        .current_dir(folder)
        .env("HOME", home)
        .env("PATH", path)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("bash: {error}"));
    Ran {
        line: "a script".to_owned(),
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
