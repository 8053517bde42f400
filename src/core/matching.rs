//! The language of `match` and `required_claims`: a JSON object, every member of which must hold.
//!
//! A member holds if the claim equals its value or is an array that contains it. `scope` and `scp` given as one
//! string are lists of words (RFC 8693, section 4.2). Operators are refused until they are built.

use rkyv::{Archive, Deserialize, Serialize};

use crate::json::{self, Json, JsonProblem};
use crate::limits;
use crate::path::{self, ClaimPath};
use crate::row::{RowError, shown};

/// Claims that are lists of words if they are strings (RFC 8693, section 4.2; `scp`: Entra, Okta).
pub(crate) const WORD_LISTS: [&str; 2] = ["scope", "scp"];

/// One member: a claim and the value it must have.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) path: ClaimPath,
    pub(crate) value: Scalar,
}

/// A value that claims are compared with.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    /// In the canonical form of [`crate::number::Number`].
    Number(String),
    String(String),
}

/// A [`Scalar`], wherever it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarRef<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    String(&'a str),
}

/// Compiles the object in `text`; `column` is named in errors.
pub(crate) fn compile(column: &str, text: &str) -> Result<Vec<Member>, RowError> {
    if text.len() > limits::MATCH_BYTES {
        return Err(RowError::new(format!("\"{column}\" is too long")).detail(format!(
            "It has {} bytes; at most {} are allowed.",
            text.len(),
            limits::MATCH_BYTES
        )));
    }
    let members = match json::parse_object(text.as_bytes(), json::TOKEN_BOUNDS) {
        Ok(Json::Object(members)) => members,
        Ok(_) | Err(JsonProblem::NotObject) => {
            return Err(RowError::new(format!("\"{column}\" must be a JSON object"))
                .hint("Write an object of claims and values, such as {\"groups\": \"analytics-read\"}."));
        }
        Err(problem) => {
            return Err(RowError::new(format!("\"{column}\" is not acceptable JSON"))
                .detail(problem_sentence(problem)));
        }
    };
    if members.len() > limits::MATCH_MEMBERS {
        return Err(RowError::new(format!("\"{column}\" has too many members")).detail(format!(
            "It has {}; at most {} are allowed.",
            members.len(),
            limits::MATCH_MEMBERS
        )));
    }
    members.into_iter().map(|(name, value)| compile_member(column, &name, &value)).collect()
}

fn compile_member(column: &str, name: &str, value: &Json) -> Result<Member, RowError> {
    let path = ClaimPath::parse(name).map_err(|problem| {
        RowError::new(format!("member {} of \"{column}\" names no claim", shown(name)))
            .detail(format!("The name {problem}."))
            .hint("Write the name of a top-level claim, or a JSON Pointer that starts with \"/\".")
    })?;
    let value = match value {
        Json::Null => Scalar::Null,
        Json::Bool(value) => Scalar::Bool(*value),
        Json::Number(number) => Scalar::Number(number.canonical().to_owned()),
        Json::String(text) => Scalar::String(text.clone()),
        Json::Array(_) => {
            return Err(RowError::new(format!(
                "member {} of \"{column}\" must be a string, a number, true, false or null",
                shown(name)
            ))
            .detail("It is an array.")
            .hint("Write one rule for each value."));
        }
        Json::Object(operators) => return Err(refused_operator(column, name, operators)),
    };
    if let Scalar::String(text) = &value
        && is_word_list(path.steps())
        && (text.is_empty() || text.contains(' '))
    {
        return Err(RowError::new(format!("member {} of \"{column}\" can never match", shown(name)))
            .detail("The claim is compared word by word, and the value is not one word.")
            .hint("Write one word."));
    }
    Ok(Member { path, value })
}

fn refused_operator(column: &str, name: &str, operators: &[(String, Json)]) -> RowError {
    let names: Vec<String> = operators.iter().map(|(operator, _)| shown(operator)).collect();
    let what = match names.as_slice() {
        [] => "an empty object".to_owned(),
        [operator] => format!("operator {operator}"),
        several => format!("operators {}", several.join(", ")),
    };
    RowError::unsupported(
        format!("{what} in member {} of \"{column}\"", shown(name)),
        "This version compares a claim only with a string, a number, true, false or null.",
        "Write the value itself; an array claim matches if it contains the value.",
    )
}

pub(crate) fn problem_sentence(problem: JsonProblem) -> &'static str {
    match problem {
        JsonProblem::NotUtf8 => "It is not UTF-8.",
        JsonProblem::NotJson => "It is not JSON.",
        JsonProblem::NotObject => "It is not a JSON object.",
        JsonProblem::TooDeep => "It has too many levels of arrays and objects.",
        JsonProblem::TooManyMembers => "It has too many object members.",
        JsonProblem::TooManyElements => "It has an array of too many elements.",
        JsonProblem::DuplicateMember => "It has one member name twice in one object.",
        JsonProblem::NulCharacter => "It holds the character U+0000.",
        JsonProblem::NumberTooLong => "It holds a number with too many digits or too large an exponent.",
    }
}

impl Scalar {
    pub(crate) fn borrowed(&self) -> ScalarRef<'_> {
        match self {
            Scalar::Null => ScalarRef::Null,
            Scalar::Bool(value) => ScalarRef::Bool(*value),
            Scalar::Number(number) => ScalarRef::Number(number),
            Scalar::String(text) => ScalarRef::String(text),
        }
    }
}

impl ArchivedScalar {
    pub(crate) fn borrowed(&self) -> ScalarRef<'_> {
        match self {
            ArchivedScalar::Null => ScalarRef::Null,
            ArchivedScalar::Bool(value) => ScalarRef::Bool(*value),
            ArchivedScalar::Number(number) => ScalarRef::Number(number.as_str()),
            ArchivedScalar::String(text) => ScalarRef::String(text.as_str()),
        }
    }
}

/// Claims, and whether their e-mail address may decide anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) claims: &'a Json,
    /// `email_verified` is true, or the provider's `required_claims` has decided that question.
    pub(crate) email_trusted: bool,
}

impl Subject<'_> {
    /// Whether the member of a provider's `required_claims` holds.
    pub(crate) fn has(&self, member: &Member) -> bool {
        self.any_value(member.path.steps(), |value| value == member.value.borrowed())
    }

    /// Whether the member of a rule holds.
    pub(crate) fn has_archived(&self, member: &ArchivedMember) -> bool {
        self.any_value(member.path.steps(), |value| value == member.value.borrowed())
    }

    /// Calls `test` with each value that counts as the claim's, until it says yes. This one function says what a
    /// claim's values are, for the index and for the comparison alike.
    pub(crate) fn any_value<'p>(
        &self,
        steps: impl Iterator<Item = &'p str> + Clone,
        mut test: impl FnMut(ScalarRef<'_>) -> bool,
    ) -> bool {
        if !self.email_trusted && steps.clone().next() == Some("email") {
            return false;
        }
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

fn is_word_list<'p>(steps: impl Iterator<Item = &'p str> + Clone) -> bool {
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
