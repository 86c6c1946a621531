//! Who holds policies: what their names are, and whom the templates in their texts are about.

use crate::identity::CallerIdentity;
use crate::seams::sandbox::IdentityValues;
use crate::token::Caller;

#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// Sorted, without doubles.
    pub policies: &'a [String],
    /// None: a template has no value.
    pub identity: Option<&'a CallerIdentity>,
}

impl<'a> Holder<'a> {
    #[must_use]
    pub fn of(caller: &'a Caller) -> Self {
        Self { policies: caller.policies(), identity: caller.identity.as_deref() }
    }

    /// No entity and no group gives `root`, and a token that has it has nothing besides.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(|name| name == "root")
    }

    /// The values that the holder has for these names: with the policies, all that a decision about them rests on.
    #[must_use]
    pub fn values(&self, names: &[String]) -> IdentityValues {
        let Some(identity) = self.identity else { return IdentityValues::new() };
        let value = |name: &String| Some((name.clone(), identity.value(name)?.to_owned()));
        names.iter().filter_map(value).collect()
    }
}
