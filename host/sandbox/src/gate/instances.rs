//! How many core instances a component makes, all in all: a component that instantiates another twice doubles them.
//!
//! Must not know: whether the indices are right. The validator finds that out afterwards.

use leasehold_core::seams::sandbox::LoadError;
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, Encoding, Instance, Payload,
};

use super::{damaged, refuse};

/// The components that are open, the outermost first.
#[derive(Default)]
pub(super) struct Instances {
    open: Vec<Open>,
    outermost: u32,
}

/// One component, or one core module, which has neither instances nor components.
#[derive(Default)]
struct Open {
    is_component: bool,
    /// Core instances that one instance of it makes.
    makes: u32,
    /// The same of each component that has an index in it.
    components: Vec<u32>,
}

impl Instances {
    /// Of the whole component, as far as it was read.
    pub(super) fn made(&self) -> u32 {
        self.open.first().map_or(self.outermost, |outermost| outermost.makes)
    }

    pub(super) fn see(&mut self, payload: &Payload<'_>, bytes: &[u8]) -> Result<(), LoadError> {
        let wrong = |error| damaged(bytes, &error);
        match payload {
            Payload::Version { encoding, .. } => {
                self.open.push(Open { is_component: *encoding == Encoding::Component, ..Open::default() });
            }
            Payload::End(_) => self.close(),
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    if matches!(instance.map_err(wrong)?, Instance::Instantiate { .. }) {
                        self.add(1);
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.clone() {
                    if let ComponentInstance::Instantiate { component_index, .. } = instance.map_err(wrong)? {
                        self.add(self.of(0, component_index));
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    match alias.map_err(wrong)? {
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            let makes = self.of(count, index);
                            self.name(makes);
                        }
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => {
                            return handed_around();
                        }
                        _ => {}
                    }
                }
            }
            Payload::ComponentImportSection(section) if self.open.len() > 1 => {
                for import in section.clone() {
                    if import.map_err(wrong)?.ty.kind() == ComponentExternalKind::Component {
                        return handed_around();
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export.map_err(wrong)?;
                    // An export gets an index of its own.
                    if export.kind == ComponentExternalKind::Component {
                        let makes = self.of(0, export.index);
                        self.name(makes);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, made: u32) {
        if let Some(open) = self.open.last_mut() {
            open.makes = open.makes.saturating_add(made);
        }
    }

    fn name(&mut self, makes: u32) {
        if let Some(open) = self.open.last_mut() {
            open.components.push(makes);
        }
    }

    /// Of the component with this index, so many components further out. None: the validator will refuse it.
    fn of(&self, outwards: u32, index: u32) -> u32 {
        let open = self.open.iter().rev().nth(outwards as usize);
        open.and_then(|open| open.components.get(index as usize)).copied().unwrap_or(0)
    }

    fn close(&mut self) {
        let Some(closed) = self.open.pop() else { return };
        match self.open.last_mut() {
            Some(around) if closed.is_component => around.components.push(closed.makes),
            Some(_) => {}
            None => self.outermost = closed.makes,
        }
    }
}

/// What such a one makes is known only where it ends up. No toolchain hands components around.
fn handed_around<T>() -> Result<T, LoadError> {
    refuse("the module hands components around inside (imports or aliases them): instantiate them where they stand")
}
