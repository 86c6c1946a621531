//! `cargo xtask guests`: every guest of ours, as a component in `target/guests`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    build::{self, Built},
    component,
    error::Error,
    files,
    toolchain::Toolchain,
};

/// The components that ship with the server.
pub(crate) const BUILT_IN: [&str; 2] = ["acl", "statements"];

/// Builds what changed and prints every digest.
pub(crate) fn build(root: &Path) -> Result<(), Error> {
    let toolchain = Toolchain::find()?;
    let components = components(&toolchain, root, &root.join("guests/target"))?;
    let out = files::guests_out(root);
    fs::create_dir_all(&out).map_err(Error::io("make", &out))?;
    remove_others(&out, &components)?;
    let mut sums = String::new();
    for (name, bytes) in &components {
        let digest = files::digest(bytes);
        files::write_if_changed(&out.join(file_name(name)), bytes)?;
        sums.push_str(&format!("{digest}  {}\n", file_name(name)));
        println!("{digest}  {:>7} bytes  target/guests/{}", bytes.len(), file_name(name));
    }
    files::write_if_changed(&out.join("SHA256SUMS"), sums.as_bytes())?;
    // Other compilers give other bytes: whoever compares digests compares this first.
    files::write_if_changed(&out.join("COMPILER"), format!("{}\n", toolchain.version).as_bytes())
}

/// Builds from two copies of the sources in different directories, each from nothing, and compares the bytes.
pub(crate) fn check_reproducible(root: &Path) -> Result<(), Error> {
    let toolchain = Toolchain::find()?;
    let place = root.join("target/reproducible");
    let mut results = Vec::new();
    for copy in ["a", "another-directory/deeper"] {
        let copy = place.join(copy);
        if copy.exists() {
            fs::remove_dir_all(&copy).map_err(Error::io("remove", &copy))?;
        }
        for part in ["guests", "wit"] {
            copy_sources(&root.join(part), &copy.join(part))?;
        }
        results.push(components(&toolchain, &copy, &copy.join("guests/target"))?);
    }
    let [one, other] = results.as_slice() else { return Ok(()) };
    let differing: Vec<_> = one.keys().filter(|name| one.get(*name) != other.get(*name)).map(String::as_str).collect();
    if !differing.is_empty() {
        return Err(Error::NotReproducible(differing.join(", ")));
    }
    for (name, bytes) in one {
        println!("{}  {}: the same from two directories", files::digest(bytes), file_name(name));
    }
    fs::remove_dir_all(&place).map_err(Error::io("remove", &place))
}

/// The file that holds a guest's component.
pub(crate) fn file_name(name: &str) -> String {
    format!("{name}.component.wasm")
}

fn components(toolchain: &Toolchain, root: &Path, target: &Path) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let guests = root.join("guests");
    let workspace = build::workspace(toolchain, &guests.join("Cargo.toml"))?;
    let built = build::build(toolchain, &workspace, &workspace.packages, root, target)?;
    built.into_iter().map(|guest| Ok((guest.name.clone(), component_of(&guest, &guests)?))).collect()
}

fn component_of(guest: &Built, guests: &Path) -> Result<Vec<u8>, Error> {
    let core = fs::read(&guest.core).map_err(Error::io("read", &guest.core))?;
    let component = component::encode(&guest.name, &core)?;
    // Probes exist to be refused.
    if !guest.manifest.starts_with(guests.join("probes")) {
        component::check_pure(&guest.name, &component)?;
    }
    Ok(component)
}

/// Takes away components of guests that are no more.
fn remove_others(out: &Path, components: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
    for path in files::beneath(out, &[])? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stale = name.strip_suffix(".component.wasm").is_some_and(|guest| !components.contains_key(guest));
        if stale {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn copy_sources(from: &Path, to: &Path) -> Result<(), Error> {
    for file in files::beneath(from, &["target"])? {
        let relative: PathBuf = file.strip_prefix(from).map(Path::to_owned).unwrap_or_default();
        let copy = to.join(relative);
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
        }
        fs::copy(&file, &copy).map_err(Error::io("copy", &file))?;
    }
    Ok(())
}
