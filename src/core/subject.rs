//! Who a token speaks of, as rules see it: what a claim's values are, and whether a test holds for them.

use crate::effort::Effort;
use crate::json::Json;
use crate::matching::{ScalarRef, Testing, View};
use crate::path;
use crate::pattern::Matcher;

/// Claims that are lists of words if they are strings (RFC 8693, section 4.2; `scp`: Entra, Okta).
pub(crate) const WORD_LISTS: [&str; 2] = ["scope", "scp"];

/// Claims, how far their e-mail address counts, and what looking at them may still cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) claims: &'a Json,
    pub(crate) email: Email,
    pub(crate) effort: &'a Effort,
}

/// How far an e-mail address counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Email {
    /// `email_verified` is true, or the provider's `required_claims` has decided that question.
    Trusted,
    /// Nobody has verified it: it gives nothing.
    Hidden,
    /// Nobody has verified it, and a rule that denies asks: it neither helps nor saves.
    Doubtful,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(claims: &'a Json, email_trusted: bool, effort: &'a Effort) -> Subject<'a> {
        let email = if email_trusted { Email::Trusted } else { Email::Hidden };
        Subject { claims, email, effort }
    }

    /// The same claims as rules that deny see them.
    pub(crate) fn denied(self) -> Subject<'a> {
        let email = if self.email == Email::Hidden { Email::Doubtful } else { self.email };
        Subject { email, ..self }
    }

    /// Whether a member of `match` or `required_claims` holds. One on a hidden e-mail address never does, `not` and
    /// `exists` included; one on a doubtful address does if it holds for the address or without any.
    pub(crate) fn has<'p>(&self, steps: impl Iterator<Item = &'p str> + Clone, test: &impl Testing) -> bool {
        match self.email {
            Email::Hidden if steps.clone().next() == Some("email") => false,
            Email::Doubtful if steps.clone().next() == Some("email") => {
                let without = Subject { claims: &Json::Null, ..*self };
                self.holds(&steps, test) || without.holds(&steps, test)
            }
            _ => self.holds(&steps, test),
        }
    }

    fn holds<'p, T: Testing>(&self, steps: &(impl Iterator<Item = &'p str> + Clone), test: &T) -> bool {
        match test.view() {
            View::Equals(wanted) => self.any_value(steps.clone(), |value| value == wanted),
            View::Fits(pattern) => {
                let mut matcher = Matcher::new(pattern, self.effort);
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
