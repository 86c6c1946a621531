//! Statement texts of a role, and what the template component makes of them.

use leasehold_core::seams::error::RequestError;
use leasehold_core::seams::sandbox::{Dialect, RenderError, TemplateRenderer};
use serde::{Deserialize, Serialize};

use super::postgresql::statements;

/// Statement texts and the dialect in which the template component will read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Templates {
    /// As given: elements may hold several statements, base64 or JSON.
    pub(super) texts: Vec<String>,
    pub(super) dialect: Dialect,
}

impl Default for Templates {
    fn default() -> Self {
        Self { texts: Vec::new(), dialect: Dialect::Handlebars }
    }
}

impl Templates {
    /// Base64 and JSON arrays taken apart.
    pub(super) fn unpacked(&self) -> Vec<String> {
        self.texts.iter().flat_map(|text| statements::unpack(text)).collect()
    }

    /// Rendered and split. `plain` texts are split first, so that no value can add a statement; handlebars may span them.
    pub(super) async fn rendered(
        &self,
        renderer: &dyn TemplateRenderer,
        values: &[(&str, &str)],
        purpose: &str,
    ) -> Result<Vec<String>, RequestError> {
        let texts = self.unpacked();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error: RenderError| match error {
            RenderError::Refused(found) => RequestError::Engine(format!(
                "failed to render {purpose} statements: line {}, column {}: {}",
                found.line, found.column, found.message
            )),
            RenderError::Sandbox(error) => error.into(),
        };
        match self.dialect {
            Dialect::Plain => {
                let pieces: Vec<String> = texts.iter().flat_map(|text| statements::split(text)).collect();
                renderer.render(&pieces, Dialect::Plain, values).await.map_err(failed)
            }
            Dialect::Handlebars => {
                let rendered = renderer.render(&texts, Dialect::Handlebars, values).await.map_err(failed)?;
                Ok(rendered.iter().flat_map(|text| statements::split(text)).collect())
            }
        }
    }
}
