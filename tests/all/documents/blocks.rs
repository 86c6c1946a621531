//! What a document says: its blocks, the commands in them, and the commands in its prose.

/// Programs whose names begin a command, in prose and in blocks.
const PROGRAMS: [&str; 7] = ["make", "cargo", "leasehold", "curl", "bao", "psql", "export"];
/// Programs that run this test: they are looked at, not run.
const RUNNERS: [&str; 2] = ["make", "cargo"];

/// One document.
#[derive(Debug)]
pub(super) struct Document {
    /// Its path in the tree.
    pub(super) name: String,
    pub(super) blocks: Vec<Block>,
    /// Commands in prose, between backticks: they must exist.
    pub(super) spans: Vec<Command>,
}

#[derive(Debug)]
pub(super) struct Block {
    /// Of the first line inside, from 1.
    pub(super) line: usize,
    pub(super) lines: Vec<String>,
    pub(super) marker: Option<Marker>,
    pub(super) commands: Vec<Command>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    NotRun,
    Excerpt(String),
    File(String),
    /// Between `<!-- NAME:begin -->` and `<!-- NAME:end -->` stands what a program printed.
    Printed,
}

/// One command, with all its lines.
#[derive(Debug)]
pub(super) struct Command {
    /// Of its first line, from 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// Typed into the document's shell; else only looked at.
    pub(super) is_run: bool,
    /// What `# exit status N` behind it says.
    pub(super) status: i32,
    /// What the document shows as its answer.
    pub(super) answer: Vec<String>,
}

impl Document {
    /// Reads a document; refuses what could hide a command.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, String> {
        let lines: Vec<&str> = text.lines().collect();
        let (mut blocks, mut prose) = (Vec::new(), Vec::new());
        let (mut marker, mut printed, mut at) = (None, false, 0);
        while let Some(line) = lines.get(at) {
            let place = format!("{name}:{}", at + 1);
            at += 1;
            if let Some(language) = line.trim_start().strip_prefix("```") {
                let begin = at;
                let length = lines.iter().skip(at).take_while(|line| line.trim() != "```").count();
                at += length + 1;
                if at > lines.len() {
                    return Err(format!("{place}: a block without an end"));
                }
                let inside: Vec<String> = lines.iter().skip(begin).take(length).map(|&line| line.to_owned()).collect();
                let marker = marker.take().or(printed.then_some(Marker::Printed));
                blocks.push(Block::new(name, language.trim(), begin + 1, inside, marker)?);
                continue;
            }
            if let Some(new) = parse_marker(line).map_err(|why| format!("{place}: {why}"))? {
                marker = Some(new);
                continue;
            }
            if marker.is_some() && !line.trim().is_empty() {
                return Err(format!("{place}: the marker above belongs to no block"));
            }
            match line.trim().strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) {
                Some(mark) if mark.ends_with(":begin") => printed = true,
                Some(mark) if mark.ends_with(":end") => printed = false,
                _ => {}
            }
            if line.starts_with("    ") && is_command(line.trim()) {
                return Err(format!("{place}: a command by indentation alone: put it into a block ```sh"));
            }
            prose.push((at, *line));
        }
        match marker {
            Some(_) => Err(format!("{name}: the last marker belongs to no block")),
            None => Ok(Self { name: name.to_owned(), blocks, spans: spans(&prose) }),
        }
    }

    /// Every command of every block.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.blocks.iter().flat_map(|block| &block.commands)
    }

    pub(super) fn excerpts(&self) -> impl Iterator<Item = (&Block, &str)> {
        self.blocks.iter().filter_map(|block| match &block.marker {
            Some(Marker::Excerpt(file)) => Some((block, file.as_str())),
            _ => None,
        })
    }
}

impl Block {
    fn new(
        name: &str,
        language: &str,
        line: usize,
        lines: Vec<String>,
        marker: Option<Marker>,
    ) -> Result<Self, String> {
        let commands = match (&marker, language) {
            (Some(_), _) => Vec::new(),
            (None, "sh") => of_script(&lines, line),
            (None, "console") => of_console(&lines, line),
            (None, "bash" | "shell" | "shell-session") => {
                return Err(format!("{name}:{line}: say ```sh for commands, ```console for a prompt with answers"));
            }
            (None, _) => match lines.iter().position(|text| is_command(text.trim_start_matches("$ "))) {
                Some(hidden) => {
                    return Err(format!("{name}:{}: a command in a block that is not ```sh", line + hidden));
                }
                None => Vec::new(),
            },
        };
        if marker.is_none() && matches!(language, "sh" | "console") && commands.is_empty() {
            return Err(format!("{name}:{line}: a block of commands without one (console wants `$ ` in front)"));
        }
        Ok(Self { line, lines, marker, commands })
    }
}

fn parse_marker(line: &str) -> Result<Option<Marker>, String> {
    let Some(inside) = line.trim().strip_prefix("<!--").and_then(|line| line.strip_suffix("-->")) else {
        return Ok(None);
    };
    let Some((kind, rest)) = inside.trim().split_once(':') else { return Ok(None) };
    let rest = rest.trim();
    let marker = match kind {
        "not run" => Marker::NotRun,
        "excerpt" => Marker::Excerpt(rest.to_owned()),
        "file" => Marker::File(rest.to_owned()),
        _ => return Ok(None),
    };
    if rest.is_empty() { Err("the marker gives no reason, or no name".to_owned()) } else { Ok(Some(marker)) }
}

/// Whether a line begins as a command does: a program and something behind it.
fn is_command(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next().is_some_and(|word| PROGRAMS.contains(&word)) && words.next().is_some()
}

fn of_script(lines: &[String], first: usize) -> Vec<Command> {
    let mut found: Vec<Command> = Vec::new();
    let mut rest = lines.iter().enumerate();
    while let Some((index, line)) = rest.next() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let mut text = line.trim().to_owned();
        while text.ends_with('\\') {
            let Some((_, next)) = rest.next() else { break };
            text = format!("{text}\n{next}");
        }
        if let Some(end) = here_document(&text) {
            for (_, next) in rest.by_ref() {
                text = format!("{text}\n{next}");
                if *next == end {
                    break;
                }
            }
        }
        found.push(Command::new(first + index, text));
    }
    found
}

fn of_console(lines: &[String], first: usize) -> Vec<Command> {
    let mut found: Vec<Command> = Vec::new();
    let mut rest = lines.iter().enumerate();
    while let Some((index, line)) = rest.next() {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => {
                let mut text = command.to_owned();
                while text.ends_with('\\') {
                    let Some((_, next)) = rest.next() else { break };
                    text = format!("{text}\n{next}");
                }
                found.push(Command::new(first + index, text));
            }
            (None, Some(last)) => last.answer.push(line.clone()),
            (None, None) => {}
        }
    }
    found
}

/// The word that ends what is written behind `<<`.
fn here_document(text: &str) -> Option<String> {
    let (_, behind) = text.split_once("<<")?;
    let word: String =
        behind.trim_start_matches(['-', '\'', '"']).chars().take_while(char::is_ascii_alphanumeric).collect();
    (!word.is_empty()).then_some(word)
}

impl Command {
    fn new(line: usize, text: String) -> Self {
        let (text, status) = match text.split_once("# exit status ") {
            Some((before, status)) => (before.trim().to_owned(), status.trim().parse().unwrap_or(-1)),
            None => (text, 0),
        };
        let is_run = !text.split_whitespace().next().is_some_and(|word| RUNNERS.contains(&word));
        Self { line, text, is_run, status, answer: Vec::new() }
    }
}

/// Commands between backticks, also over the end of a line. `a|b` is each of them.
fn spans(prose: &[(usize, &str)]) -> Vec<Command> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in prose {
        // A paragraph ends what was never closed.
        if line.trim().is_empty() {
            open = None;
        }
        for (index, part) in line.split('`').enumerate() {
            if index > 0 {
                open = match open.take() {
                    Some((line, text)) => {
                        found.push((line, text));
                        None
                    }
                    None => Some((*number, String::new())),
                };
            }
            if let Some((_, text)) = &mut open {
                text.push_str(part);
            }
        }
        if let Some((_, text)) = &mut open {
            text.push(' ');
        }
    }
    found.retain(|(_, text)| is_command(text) && !text.starts_with("export "));
    let each = |(line, text): (usize, String)| {
        let text = text.trim().to_owned();
        let choice = text.split_whitespace().find(|word| word.contains('|')).map(str::to_owned);
        let texts = match choice {
            Some(choice) => choice.split('|').map(|one| text.replace(&choice, one)).collect(),
            None => vec![text],
        };
        texts.into_iter().map(move |text| Command { is_run: false, ..Command::new(line, text) })
    };
    found.into_iter().flat_map(each).collect()
}
