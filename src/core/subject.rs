//! Who a token speaks of, as rules see it: what a claim's values are, and whether a test holds for them.

use crate::json::Json;
use crate::matching::{ScalarRef, Testing, View};
use crate::path;
use crate::pattern::Matcher;

/// Claims that are lists of words if they are strings (RFC 8693, section 4.2; `scp`: Entra, Okta).
pub(crate) const WORD_LISTS: [&str; 2] = ["scope", "scp"];

/// Claims, and whether their e-mail address may decide anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) claims: &'a Json,
    /// `email_verified` is true, or the provider's `required_claims` has decided that question, or a deny rule asks.
    pub(crate) email_trusted: bool,
}

impl<'a> Subject<'a> {
    /// The same claims as deny rules see them: an address that nobody has verified still denies.
    pub(crate) fn denied(self) -> Subject<'a> {
        Subject { email_trusted: true, ..self }
    }

    /// Whether a member of `match` or `required_claims` holds. One on an untrusted e-mail address never does, `not` and
    /// `exists` included.
    pub(crate) fn has<'p>(&self, steps: impl Iterator<Item = &'p str> + Clone, test: &impl Testing) -> bool {
        let hidden = !self.email_trusted && steps.clone().next() == Some("email");
        !hidden && self.holds(&steps, test)
    }

    fn holds<'p, T: Testing>(&self, steps: &(impl Iterator<Item = &'p str> + Clone), test: &T) -> bool {
        match test.view() {
            View::Equals(wanted) => self.any_value(steps.clone(), |value| value == wanted),
            View::Fits(pattern) => {
                let mut matcher = Matcher::new(pattern);
                self.any_value(
                    steps.clone(),
                    |value| matches!(value, ScalarRef::String(text) if matcher.fits(text)),
                )
            }
            View::Any(tests) => tests.iter().any(|test| self.holds(steps, test)),
            View::Not(test) => !self.holds(steps, test),
            View::Exists(wanted) => path::find(steps.clone(), self.claims).is_some() == wanted,
        }
    }

    /// Calls `test` with each value that counts as the claim's, until it says yes. This one function says what a
    /// claim's values are, for the index and for the comparison alike.
    pub(crate) fn any_value<'p>(
        &self,
        steps: impl Iterator<Item = &'p str> + Clone,
        mut test: impl FnMut(ScalarRef<'a>) -> bool,
    ) -> bool {
        match path::find(steps.clone(), self.claims) {
            Some(Json::String(text)) if is_word_list(steps) => {
                text.split(' ').filter(|word| !word.is_empty()).any(|word| test(ScalarRef::String(word)))
            }
            Some(Json::Array(elements)) => elements.iter().filter_map(scalar).any(test),
            Some(value) => scalar(value).is_some_and(test),
            None => false,
        }
    }
}

/// Whether the claim at the end of these steps is a list of words if it is a string.
pub(crate) fn is_word_list<'p>(steps: impl Iterator<Item = &'p str> + Clone) -> bool {
    WORD_LISTS.into_iter().any(|name| path::is(steps.clone(), name))
}

fn scalar(value: &Json) -> Option<ScalarRef<'_>> {
    match value {
        Json::Null => Some(ScalarRef::Null),
        Json::Bool(value) => Some(ScalarRef::Bool(*value)),
        Json::Number(number) => Some(ScalarRef::Number(number.canonical())),
        Json::String(text) => Some(ScalarRef::String(text)),
        Json::Array(_) | Json::Object(_) => None,
    }
}
