//! What a line of the HBA file with method `oauth` asks of a token beside the policy: whose it is and what for.

use crate::effort::Effort;
use crate::matching::ScalarRef;
use crate::refusal::Refusal;
use crate::subject::{Subject, WORD_LISTS};
use crate::token::Untrusted;
use crate::verify::Verified;

/// The options of such a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OauthLine {
    /// `issuer`, as it is written there. The address of a discovery document, which core would take too, is no issuer.
    pub issuer: String,
    /// `scope`: words between blanks, each of which the token must have. None: it asks for nothing.
    pub scope: String,
}

impl OauthLine {
    /// The claim `iss` is the line's issuer, byte for byte: a client that was sent to one provider does not come with
    /// another's token. Before a key is looked for.
    ///
    /// # Errors
    /// [`Refusal::IssuerNotOfLine`], or as [`Untrusted::issuer`].
    pub fn check_issuer(&self, untrusted: &Untrusted) -> Result<(), Refusal> {
        if untrusted.issuer()? == self.issuer { Ok(()) } else { Err(Refusal::IssuerNotOfLine) }
    }

    /// Each word of the line's scope is in the claim `scope` or `scp`, strings of words or arrays (RFC 8693, section
    /// 4.2; RFC 6749, section 3.3: compared byte for byte).
    ///
    /// # Errors
    /// [`Refusal::ScopeMissing`] with the first that is not.
    pub fn check_scope(&self, verified: &Verified) -> Result<(), Refusal> {
        let effort = Effort::new();
        let subject = Subject::new(&verified.claims, verified.email_trusted, &effort);
        let has = |word: &str| {
            WORD_LISTS.into_iter().any(|claim| {
                subject.any_value(std::iter::once(claim), |value| value == ScalarRef::String(word))
            })
        };
        match self.scope.split(' ').find(|word| !word.is_empty() && !has(word)) {
            Some(word) => Err(Refusal::ScopeMissing { scope: word.to_owned() }),
            None => Ok(()),
        }
    }
}
