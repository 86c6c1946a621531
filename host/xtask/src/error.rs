//! Why a task failed.

use std::{io, path::Path};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("unknown task\n{0}")]
    Usage(&'static str),
    #[error("{0}")]
    Toolchain(String),
    #[error("could not {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("`{0}` failed")]
    Program(String),
    #[error("`{program}` answered something unexpected: {what}")]
    Answer { program: String, what: String },
    #[error("guest `{name}` does not become a component: {reason}")]
    Component { name: String, reason: String },
    #[error("`{name}` imports {imports}: nothing may be imported")]
    Imports { name: String, imports: String },
    #[error("no package with a `cdylib` library in `{0}`")]
    NoModule(String),
    #[error("builds from two directories differ: {0}")]
    NotReproducible(String),
    #[error("the tree breaks its rules:\n{}", .0.join("\n"))]
    Tree(Vec<String>),
}

impl Error {
    /// Wraps an I/O error with what was tried: `.map_err(Error::io("read", path))`.
    pub(crate) fn io(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let what = format!("{verb} `{}`", path.display());
        move |source| Self::Io { what, source }
    }
}
