//! Documents: every command that a reader may copy is run, or is known to exist.
//!
//! A document is one shell session against one server. What asks `make` or `cargo` is not run here, since those run this;
//! it must name targets, tasks, packages and flags that exist. A block that can be neither needs a marker in the line above it:
//!
//! - `<!-- not run: WHY -->`: the reason is for the next reader.
//! - `<!-- excerpt: FILE -->`: an answer of that script; its chapters, checks and commands must stand there.
//! - `<!-- file: NAME -->`: the block is the text of a file that later commands name.
//!
//! Start with the tests below; then [`blocks`] (what a document says), [`known`] (what exists) and [`session`] (what happens).
//! [`help`] does the same with the examples of `leasehold COMMAND -help`.

mod blocks;
mod excerpt;
mod help;
mod known;
mod session;

use std::fs;
use std::path::{Path, PathBuf};

use blocks::{Block, Command, Document};
use session::Session;

use crate::support::{Durable, Server, certificate, free_port};

/// The answer to every complaint.
const HOW_TO_MARK: &str = "make it a command that runs, teach tests/all/documents to look at it, or put \
                           `<!-- not run: WHY -->` above its block";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the tree")
}

/// Every document of the tree, by its path in it.
fn documents() -> Vec<Document> {
    fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                gather(&path, found);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    gather(&root, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("a path in the tree").display().to_string();
            Document::parse(&name, &fs::read_to_string(&path).expect("a document"))
                .unwrap_or_else(|why| panic!("{why}: {HOW_TO_MARK}"))
        })
        .collect()
}

#[test]
fn the_documents_are_where_they_are_looked_for() {
    let names: Vec<String> = documents().into_iter().map(|document| document.name).collect();
    for name in [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "examples/change-freeze/README.md",
        "host/docs/architecture.md",
        "host/docs/policy-authors.md",
        "host/docs/decisions/0001-crate-split.md",
    ] {
        assert!(names.iter().any(|known| known == name), "{name} is not among {names:?}");
    }
}

/// `make`, `cargo` and, in prose, `leasehold`.
#[test]
fn what_a_document_names_exists() {
    let known = known::Known::of(&root());
    let mut wrong = Vec::new();
    for document in documents() {
        for command in document.commands().chain(document.spans.iter()) {
            if let Err(why) = known.look_at(&command.text, command.is_run) {
                wrong.push(format!("{}:{}: `{}`: {why}", document.name, command.line, command.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{HOW_TO_MARK}", wrong.join("\n"));
}

/// The rest is typed into one shell for each document.
#[test]
fn the_commands_of_every_document_run() {
    let (mut ran, mut tables) = (0, 0);
    for document in documents().iter().filter(|document| document.commands().any(|command| command.is_run)) {
        let session = Session::run(document);
        ran += session.answers.len();
        for command in document.commands().filter(|command| command.is_run) {
            session.compare(document, command, &command.answer);
        }
        // What an excerpt shows of a command that this document also runs.
        for (shown, rows) in document.excerpts().flat_map(|(block, _)| excerpt::tables(block)) {
            if let Some(command) = document.commands().find(|command| command.text == shown) {
                session.compare(document, command, &rows);
                tables += 1;
            }
        }
    }
    assert!(ran > 10, "only {ran} commands were found in all documents");
    assert!(tables > 0, "the README's excerpt shows the answer of a command that it also runs");
}

#[test]
fn an_excerpt_shows_what_its_script_does() {
    let mut found = 0;
    for document in documents() {
        for (block, file) in document.excerpts() {
            let script = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let wrong = excerpt::strange_lines(block, &script);
            assert!(wrong.is_empty(), "{}:{}: not in {file}:\n{}", document.name, block.line, wrong.join("\n"));
            found += 1;
        }
    }
    assert!(found > 0, "the README shows a part of the demo");
}

/// The comments of `examples/server` say how to start them.
#[test]
fn the_example_configurations_start_a_server() {
    let folder = root().join("examples/server");
    for entry in fs::read_dir(folder).expect("the examples").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".hcl") {
            continue;
        }
        let text = fs::read_to_string(entry.path()).expect("an example");
        let commands: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
        assert_eq!(commands.first().copied(), Some(format!("leasehold server -config={name}").as_str()), "{name}");
        let (server, environment) = example_server(&name, &text);
        for command in commands.iter().skip(1) {
            let command = command.split("  #").next().unwrap_or_default().trim();
            match command {
                "leasehold operator init" => drop(server.init(5, 3)),
                "leasehold operator unseal" => server.shares().iter().take(3).for_each(|share| {
                    let ran = session::shell(&server, &environment, &format!("{command} {share}"));
                    assert_eq!(ran.status, 0, "{name}: {ran}");
                }),
                other => panic!("{name}: `{other}`: {HOW_TO_MARK}"),
            }
        }
        let ran = session::shell(&server, &environment, "leasehold status");
        assert!(matches!(ran.status, 0 | 2), "{name}: it answers: {ran}");
        assert_eq!(ran.status == 0, commands.len() > 1, "{name}: unsealed by its own commands: {ran}");
    }
}

/// The example with its paths moved into the server's own folder; and what a client needs to trust its certificate.
fn example_server(name: &str, text: &str) -> (Server, Vec<(String, String)>) {
    let server = Server::prepared(&Durable { threshold: 3, ..Durable::default() });
    let home = server.home().display().to_string();
    let mut text = text.to_owned();
    for folder in ["/var/lib/leasehold", "/etc/leasehold/tls", "/var/log/leasehold"] {
        fs::create_dir_all(format!("{home}{folder}")).expect("a folder");
        text = text.replace(&format!("\"{folder}"), &format!("\"{home}{folder}"));
    }
    text = text.replace("127.0.0.1:8200", server.address());
    text = text.replace("\"leasehold.db\"", &format!("\"{home}/leasehold.db\""));
    let mut environment = Vec::new();
    if text.contains("tls_cert_file") {
        let address = format!("127.0.0.1:{}", free_port());
        text = text.replace("0.0.0.0:8200", &address);
        // Beside its own listener a plain one, by which this test sees that it is up.
        text.push_str(&format!(
            "\nlistener \"tcp\" {{\n  address = \"{}\"\n  tls_disable = true\n}}\n",
            server.address()
        ));
        let made = certificate(Path::new(&format!("{home}/etc/leasehold/tls")), "server");
        environment.push(("VAULT_CACERT".to_owned(), made.display().to_string()));
        environment.push(("VAULT_ADDR".to_owned(), format!("https://{address}")));
    }
    fs::write(server.home().join("server.hcl"), text).unwrap_or_else(|error| panic!("{name}: {error}"));
    server.start();
    (server, environment)
}

/// The test itself can fail.
mod itself {
    use super::*;

    fn blocks_of(text: &str) -> Result<Vec<Block>, String> {
        Document::parse("x.md", text).map(|document| document.blocks)
    }

    #[test]
    fn a_marker_belongs_to_a_block_and_has_a_reason() {
        assert!(blocks_of("<!-- not run: needs wasm-tools -->\n```sh\nwasm-tools x\n```\n").is_ok());
        assert!(blocks_of("<!-- not run: -->\n```sh\nx\n```\n").is_err(), "no reason");
        assert!(blocks_of("<!-- not run: a reason -->\nprose\n```sh\nx\n```\n").is_err(), "no block");
        assert!(blocks_of("```sh\nx\n").is_err(), "no end");
    }

    #[test]
    fn commands_that_hide_from_the_test_are_found() {
        assert!(blocks_of("```\nleasehold read x\n```\n").is_err(), "in a block of no language");
        assert!(blocks_of("text\n\n    cargo build\n").is_err(), "by indentation");
        assert!(blocks_of("```console\nleasehold read x\n```\n").is_err(), "without a prompt");
        assert!(blocks_of("```\nclient  leasehold server\n```\n").is_ok(), "a drawing");
    }

    #[test]
    fn commands_are_taken_with_their_lines_and_what_belongs_to_them() {
        let text = "# T\n```sh\nmake demo   # walks\ncat > a <<'E'\nleasehold no command\nE\nleasehold read \\\n  x\nleasehold x # exit status 2\n```\n";
        let document = Document::parse("x.md", text).unwrap();
        let found: Vec<(usize, &str, bool, i32)> =
            document.commands().map(|one: &Command| (one.line, one.text.as_str(), one.is_run, one.status)).collect();
        assert_eq!(
            found,
            [
                (3, "make demo   # walks", false, 0),
                (4, "cat > a <<'E'\nleasehold no command\nE", true, 0),
                (7, "leasehold read \\\n  x", true, 0),
                (9, "leasehold x", true, 2),
            ]
        );
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        let known = known::Known::of(&root());
        for good in [
            "make demo ONCE=1",
            "cargo xtask guests --check-reproducible",
            "cargo xtask module examples/change-freeze",
            "cargo test -p leasehold-core",
            "cargo test --manifest-path guests/Cargo.toml",
            "cargo fmt",
        ] {
            assert_eq!(known.look_at(good, false), Ok(()), "{good}");
        }
        for bad in [
            "make cake",
            "make demo TWICE=1",
            "cargo xtask frobnicate",
            "cargo xtask guests --fast",
            "cargo xtask module examples/nothing",
            "cargo test -p leasehold-nothing",
            "cargo test --manifest-path none/Cargo.toml",
            "cargo frobnicate",
            "cargo test --fast",
            "leasehold lease frobnicate",
            "leasehold read -frobnicate x",
            "wasm-tools component new",
        ] {
            assert!(known.look_at(bad, false).is_err(), "{bad}");
        }
    }
}
