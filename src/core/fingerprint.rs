//! A 64-bit name for a list of values: equal lists, equal names.

use aws_lc_rs::digest::{Context, SHA256};

/// Builds the first 64 bits of a SHA-256 over values with their lengths, so that no two lists run into one another.
pub(crate) struct Fingerprint(Context);

impl Fingerprint {
    pub(crate) fn new() -> Fingerprint {
        Fingerprint(Context::new(&SHA256))
    }

    pub(crate) fn text(mut self, text: &str) -> Fingerprint {
        self.0.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    pub(crate) fn number(mut self, number: i64) -> Fingerprint {
        self.0.update(&number.to_be_bytes());
        self
    }

    pub(crate) fn optional(self, text: Option<&str>) -> Fingerprint {
        match text {
            Some(text) => self.number(1).text(text),
            None => self.number(0),
        }
    }

    pub(crate) fn list<'a>(self, texts: impl ExactSizeIterator<Item = &'a str>) -> Fingerprint {
        let counted = self.number(i64::try_from(texts.len()).unwrap_or(i64::MAX));
        texts.fold(counted, Fingerprint::text)
    }

    pub(crate) fn finish(self) -> u64 {
        let digest = self.0.finish();
        digest.as_ref().iter().take(8).fold(0, |name, byte| (name << 8) | u64::from(*byte))
    }
}
