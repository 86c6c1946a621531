//! `cargo xtask module PATH`: a third party's policy module, built as ours are.

use std::{fs, path::Path};

use crate::{build, component, error::Error, files, guests, toolchain::Toolchain};

/// Builds the crate in the folder `path` and writes the component into its own target directory.
pub(crate) fn build(root: &Path, path: &Path) -> Result<(), Error> {
    let toolchain = Toolchain::find()?;
    // Given relative to where the user stands, which may be anywhere in the tree.
    let folder = path.canonicalize().or_else(|_| root.join(path).canonicalize()).map_err(Error::io("find", path))?;
    let manifest = folder.join("Cargo.toml");
    let workspace = build::workspace(&toolchain, &manifest)?;
    let packages: Vec<_> =
        workspace.packages.iter().filter(|package| package.manifest.starts_with(&folder)).cloned().collect();
    if packages.is_empty() {
        return Err(Error::NoModule(folder.display().to_string()));
    }
    // Beneath our tree the sources are named from its root, so the world's files are the same for all.
    let sources = if folder.starts_with(root) { root } else { workspace.root.as_path() };
    for built in build::build(&toolchain, &workspace, &packages, sources, &workspace.target_directory)? {
        let core = fs::read(&built.core).map_err(Error::io("read", &built.core))?;
        let component = component::encode(&built.name, &core)?;
        component::check_pure(&built.name, &component)?;
        let out = workspace.target_directory.join(guests::file_name(&built.name));
        files::write_if_changed(&out, &component)?;
        println!("{}  {:>7} bytes  {}", files::digest(&component), component.len(), out.display());
    }
    Ok(())
}
