//! Text that a caller has already, piece by piece, before the block came that it belongs to.

use adj_providers::ProviderError;

/// What was shown and belongs to no whole block yet: some vendors send all blocks at the end.
#[derive(Debug, Default)]
pub(super) struct Shown(String);

impl Shown {
    pub(super) fn grow(&mut self, piece: &str) {
        self.0.push_str(piece);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a block's text as shown, and returns the rest of it that is not.
    pub(super) fn claim(&mut self, text: &str) -> Result<String, ProviderError> {
        if let Some(later) = self.0.strip_prefix(text) {
            self.0 = later.to_owned();
            return Ok(String::new());
        }
        match text.strip_prefix(self.0.as_str()) {
            Some(rest) => {
                self.0.clear();
                Ok(rest.to_owned())
            }
            None => Err(ProviderError::protocol("the vendor's whole text is not what it sent piece by piece")),
        }
    }
}
