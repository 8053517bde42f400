//! Who watches while a token is judged: nobody in a login, [`crate::explanation`] when somebody asks why.

use crate::refusal::Refusal;

/// A step of the decision, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Token,
    Provider,
    Algorithm,
    Key,
    Signature,
    Audience,
    Times,
    Typ,
    RequiredClaims,
    Binding,
    Subject,
    Identity,
    Groups,
    Revocation,
    DenyRules,
}

impl Step {
    /// Its name in an explanation.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Step::Token => "token",
            Step::Provider => "provider",
            Step::Algorithm => "algorithm",
            Step::Key => "key",
            Step::Signature => "signature",
            Step::Audience => "audience",
            Step::Times => "times",
            Step::Typ => "typ",
            Step::RequiredClaims => "required claims",
            Step::Binding => "binding",
            Step::Subject => "subject",
            Step::Identity => "identity",
            Step::Groups => "groups",
            Step::Revocation => "revocation",
            Step::DenyRules => "deny rules",
        }
    }
}

/// Takes note of each step. In a login a refusal is the end; an explanation goes on to show all that is wrong.
pub(crate) trait Trace {
    /// `said` tells what was found; `instead` is gone on with after a refusal, and never in a login.
    fn step<T>(
        &mut self,
        step: Step,
        result: Result<T, Refusal>,
        said: impl FnOnce(&T) -> String,
        instead: impl FnOnce() -> T,
    ) -> Result<T, Refusal>;

    /// A step that only passes or does not.
    fn check(&mut self, step: Step, result: Result<(), Refusal>, said: &str) -> Result<(), Refusal> {
        self.step(step, result, |()| said.to_owned(), || ())
    }
}

/// A login: nobody watches, and the first refusal ends it.
pub(crate) struct Login;

impl Trace for Login {
    fn step<T>(
        &mut self,
        _: Step,
        result: Result<T, Refusal>,
        _: impl FnOnce(&T) -> String,
        _: impl FnOnce() -> T,
    ) -> Result<T, Refusal> {
        result
    }
}
