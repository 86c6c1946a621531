//! How the lines of a device look: the options that every kind of device has.

use std::collections::BTreeMap;

use crate::fields::parse_bool;
use crate::seams::error::RequestError;

/// What [`Form::of`] reads from a device's options.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub(super) raw: bool,
    pub(super) hash_accessor: bool,
    pub(super) elide_lists: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self { raw: false, hash_accessor: true, elide_lists: false }
    }
}

/// An option that must say yes or no and says neither: it would be taken for the one that nobody meant.
#[derive(Debug)]
pub struct NeitherYesNorNo {
    pub option: &'static str,
    text: String,
}

impl From<NeitherYesNorNo> for RequestError {
    /// In Vault's words.
    fn from(wrong: NeitherYesNorNo) -> Self {
        let text: String = wrong.text.chars().take(64).collect();
        Self::Invalid(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))
    }
}

impl Form {
    /// # Errors
    /// The first option that cannot be read.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Self, NeitherYesNorNo> {
        let mut form = Self::default();
        let wanted = [&mut form.raw, &mut form.hash_accessor, &mut form.elide_lists];
        for (option, wanted) in ["log_raw", "hmac_accessor", "elide_list_responses"].into_iter().zip(wanted) {
            let Some(text) = options.get(option) else { continue };
            *wanted = parse_bool(text).ok_or_else(|| NeitherYesNorNo { option, text: text.clone() })?;
        }
        Ok(form)
    }
}
