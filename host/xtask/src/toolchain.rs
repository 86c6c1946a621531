//! Finds a compiler that can make WebAssembly: an ordinary machine has a rustup target, others the distribution's compiler
//! with the standard library's sources (`rustc-web`, `rust-web-src` and `lld` on Debian).

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::error::Error;

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";
const OVERRIDE: &str = "LEASEHOLD_WASM_RUSTC";
const DISTRIBUTION: &str = "/usr/bin/rustc";

const ADVICE: &str = "no compiler for wasm32-unknown-unknown was found. Install one of\n  \
    rustup:          rustup target add wasm32-unknown-unknown\n  \
    Debian 12:       sudo apt-get install rustc-web cargo-web rust-web-src lld-22\n  \
    Fedora:          sudo dnf install rust-std-static-wasm32-unknown-unknown lld\n\
    or set LEASEHOLD_WASM_RUSTC to a rustc that has the target";

/// Where the guests' standard library comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Std {
    /// Installed beside the compiler.
    Installed,
    /// Its sources are; cargo builds it (`-Z build-std`).
    FromSource,
}

/// A compiler with which guests can be built.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    sysroot: PathBuf,
    std: Std,
    linker: Option<PathBuf>,
    /// As `rustc --version` says it: digests are comparable under the same one only.
    pub(crate) version: String,
}

impl Toolchain {
    /// The override, then `rustc` on PATH, then the distribution's: the first that has the target or the sources.
    pub(crate) fn find() -> Result<Self, Error> {
        if let Some(chosen) = env::var_os(OVERRIDE) {
            let chosen = PathBuf::from(chosen);
            let said = || format!("{OVERRIDE} is `{}`, which cannot build for {TARGET}\n{ADVICE}", chosen.display());
            return Self::try_rustc(&chosen)?.ok_or_else(|| Error::Toolchain(said()));
        }
        for candidate in ["rustc", DISTRIBUTION] {
            if let Some(found) = Self::try_rustc(Path::new(candidate))? {
                return Ok(found);
            }
        }
        Err(Error::Toolchain(ADVICE.to_owned()))
    }

    fn try_rustc(rustc: &Path) -> Result<Option<Self>, Error> {
        let ask = |arguments: &[&str]| {
            let mut command = Command::new(rustc);
            scrub(&mut command);
            let output = command.args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let (Some(sysroot), Some(about)) = (ask(&["--print", "sysroot"]), ask(&["-vV"])) else { return Ok(None) };
        let sysroot = PathBuf::from(sysroot);
        let Some(std) = available_std(&sysroot) else { return Ok(None) };
        let fact = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let host = fact("host:").unwrap_or_default();
        let linker = if has_own_linker(&sysroot, host) {
            None
        } else {
            let major = fact("LLVM version:").and_then(|version| version.split('.').next()).unwrap_or_default();
            let names = [format!("lld-{major}"), "lld".to_owned(), "rust-lld".to_owned()];
            let found = names.iter().find_map(|name| on_path(name));
            let advice = || format!("`{}` needs a linker: sudo apt-get install lld-{major}", rustc.display());
            Some(found.ok_or_else(|| Error::Toolchain(advice()))?)
        };
        let beside = rustc.with_file_name("cargo");
        let cargo = if rustc.components().count() > 1 && beside.exists() { beside } else { PathBuf::from("cargo") };
        let version = about.lines().next().unwrap_or_default().to_owned();
        Ok(Some(Self { rustc: rustc.to_owned(), cargo, sysroot, std, linker, version }))
    }

    /// A cargo that builds for [`TARGET`] with this compiler. `sources` is the directory whose name must not get into the
    /// bytes.
    pub(crate) fn cargo(&self, verb: &str, sources: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        scrub(&mut command);
        if self.rustc.components().count() > 1 {
            // Not the one that a rustup proxy would choose.
            command.env_remove("RUSTUP_TOOLCHAIN").env("RUSTC", &self.rustc);
        }
        command.arg(verb);
        if verb == "metadata" {
            return command;
        }
        if let Some(linker) = &self.linker {
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        // With --target these flags reach the guests only, not their build scripts and macros.
        command.env("CARGO_ENCODED_RUSTFLAGS", self.flags(sources).join("\u{1f}")).args(["--target", TARGET]);
        if self.std == Std::FromSource {
            command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "build-std=std,panic_abort"]);
        }
        command
    }

    fn flags(&self, sources: &Path) -> Vec<String> {
        let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
        vec![
            // Rust's own 1 MiB of shadow stack makes a fresh instance three times as dear.
            "-Clink-arg=-zstack-size=65536".to_owned(),
            // The later flag wins where one directory lies in another.
            remap(&self.sysroot, "/rust"),
            remap(&cargo_home(), "/cargo"),
            remap(sources, "/src"),
        ]
    }
}

fn available_std(sysroot: &Path) -> Option<Std> {
    let library = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    let has_std = fs::read_dir(library)
        .is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| is_libstd(&entry.file_name()))));
    if has_std {
        return Some(Std::Installed);
    }
    let sources = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    sources.exists().then_some(Std::FromSource)
}

fn is_libstd(name: &OsString) -> bool {
    name.to_string_lossy().starts_with("libstd-")
}

fn has_own_linker(sysroot: &Path, host: &str) -> bool {
    sysroot.join("lib/rustlib").join(host).join("bin/rust-lld").exists()
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(name)).find(|path| path.is_file())
}

fn cargo_home() -> PathBuf {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).unwrap_or_default()
}

/// Takes away what the outer cargo and the user's settings for the host would do to a guest.
fn scrub(command: &mut Command) {
    const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_TERM_"];
    const REMOVED: [&str; 6] =
        ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC", "LD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let starts = |list: &[&str]| list.iter().any(|start| text.starts_with(start));
        if starts(&REMOVED) && !starts(&KEPT) {
            command.env_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_this_machine_do_not_reach_the_bytes() {
        let toolchain = Toolchain {
            rustc: "/opt/rust/bin/rustc".into(),
            cargo: "/opt/rust/bin/cargo".into(),
            sysroot: "/opt/rust".into(),
            std: Std::FromSource,
            linker: Some("/usr/bin/lld-22".into()),
            version: String::new(),
        };

        let command = toolchain.cargo("build", Path::new("/home/me/leasehold"));

        let flags =
            command.get_envs().find(|(name, _)| *name == "CARGO_ENCODED_RUSTFLAGS").and_then(|(_, value)| value);
        let flags = flags.unwrap().to_str().unwrap();
        for expected in ["=/opt/rust=/rust", "=/home/me/leasehold=/src", "zstack-size=65536"] {
            assert!(flags.contains(expected), "{flags}");
        }
        assert!(command.get_args().any(|argument| argument == "build-std=std,panic_abort"));
    }

    #[test]
    fn a_compiler_without_target_and_sources_is_passed_over() {
        assert_eq!(available_std(Path::new("/nowhere")), None);
        assert!(Toolchain::try_rustc(Path::new("/nowhere/rustc")).unwrap().is_none());
    }
}
