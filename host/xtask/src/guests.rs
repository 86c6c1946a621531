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

type Components = BTreeMap<String, Vec<u8>>;

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

/// Builds what changed, and a copy of the sources in another directory from nothing, and compares the bytes: what [`build`]
/// writes depends neither on where it was built nor on what had been built there before. Writes nothing itself.
pub(crate) fn check_reproducible(root: &Path) -> Result<(), Error> {
    let toolchain = Toolchain::find()?;
    let ours = components(&toolchain, root, &root.join("guests/target"))?;
    let place = root.join("target/reproducible");
    if place.exists() {
        fs::remove_dir_all(&place).map_err(Error::io("remove", &place))?;
    }
    let copy = place.join("another-directory/deeper");
    for part in ["guests", "wit"] {
        copy_sources(&root.join(part), &copy.join(part))?;
    }
    let others = components(&toolchain, &copy, &copy.join("guests/target"))?;
    let differing = differing(&ours, &others);
    if !differing.is_empty() {
        return Err(Error::NotReproducible(differing.join(", ")));
    }
    println!("the same bytes from another directory, by {}", toolchain.version);
    fs::remove_dir_all(&place).map_err(Error::io("remove", &place))
}

/// The guests whose bytes are not the same, or that only one side has.
fn differing<'a>(ours: &'a Components, others: &'a Components) -> Vec<&'a str> {
    let mut names: Vec<_> =
        ours.keys().chain(others.keys()).filter(|name| ours.get(*name) != others.get(*name)).collect();
    names.sort();
    names.dedup();
    names.into_iter().map(String::as_str).collect()
}

/// The file that holds a guest's component.
pub(crate) fn file_name(name: &str) -> String {
    format!("{name}.component.wasm")
}

fn components(toolchain: &Toolchain, root: &Path, target: &Path) -> Result<Components, Error> {
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
fn remove_others(out: &Path, components: &Components) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_differ_by_their_bytes_and_by_being_there() {
        let side = |guests: &[(&str, &[u8])]| -> Components {
            guests.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
        };
        let ours = side(&[("acl", b"a"), ("probe", b"p"), ("statements", b"s")]);
        assert_eq!(differing(&ours, &ours), Vec::<&str>::new());
        assert_eq!(
            differing(&ours, &side(&[("acl", b"b"), ("new", b"n"), ("statements", b"s")])),
            ["acl", "new", "probe"]
        );
    }
}
