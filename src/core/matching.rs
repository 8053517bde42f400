//! The language of `match` and `required_claims`: a JSON object, every member of which must hold.
//!
//! | value of the member | holds if |
//! |---|---|
//! | a string, a number, true, false, null | the claim equals it, or is an array that contains it |
//! | `{"any": [..]}` | one of these values or operators holds |
//! | `{"not": ..}` | this value or operator does not hold; for an array: no element passes |
//! | `{"exists": true}`, `{"exists": false}` | the claim is there, even as null; it is not |
//! | `{"glob": ".."}`, `{"regex": ".."}` | the claim, or an element of it, fits as a whole |
//!
//! A claim that is missing fails every test but `not` and `{"exists": false}`. `scope` and `scp` given as one string
//! are lists of words (RFC 8693, section 4.2).

use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::json::{self, Json, JsonProblem};
use crate::limits;
use crate::path::ClaimPath;
use crate::pattern::{Pattern, PatternRef};
use crate::row::{RowError, shown};
use crate::subject::is_word_list;

/// One member: a claim and the test that it must pass.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) path: ClaimPath,
    pub(crate) test: Test,
}

/// What a claim is asked. Never deeper than [`limits::JSON_DEPTH`], as it was JSON.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rancor::Source),
    deserialize_bounds(__D::Error: rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rancor::Source))
)]
pub(crate) enum Test {
    Equals(Scalar),
    Fits(Pattern),
    Any(#[rkyv(omit_bounds)] Vec<Test>),
    Not(#[rkyv(omit_bounds)] Box<Test>),
    Exists(bool),
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

/// A [`Test`], wherever it is stored.
pub(crate) trait Testing: Sized {
    fn view(&self) -> View<'_, Self>;
}

/// One level of a [`Test`].
pub(crate) enum View<'a, T> {
    Equals(ScalarRef<'a>),
    Fits(PatternRef<'a>),
    Any(&'a [T]),
    Not(&'a T),
    Exists(bool),
}

const OPERATORS: &str =
    "The operators are \"any\", \"not\", \"exists\", \"glob\" and \"regex\", one in an object.";

const REGEX: &str = "The language is Perl's without look-around, references back and Unicode classes; the whole \
    value must fit, as if between ^ and $.";

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
        return Err(RowError::new(format!("\"{column}\" has too many members"))
            .detail(format!("It has {}; at most {} are allowed.", members.len(), limits::MATCH_MEMBERS))
            .hint("All of them must hold: keep those that decide."));
    }
    let members: Vec<Member> = members
        .into_iter()
        .map(|(name, value)| Place { column, name: &name }.member(&value))
        .collect::<Result<_, _>>()?;
    let patterns: usize = members.iter().map(|member| member.test.patterns()).sum();
    if patterns > limits::PATTERNS {
        return Err(RowError::new(format!("\"{column}\" has too many regular expressions and globs"))
            .detail(format!("It has {patterns}; at most {} are allowed.", limits::PATTERNS))
            .hint("Join them with \"|\" in one regular expression, or write several rules."));
    }
    Ok(members)
}

/// Where in a row something stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    column: &'a str,
    name: &'a str,
}

impl Place<'_> {
    /// `member "groups" of "match"`, and what is wrong with it.
    fn error(self, what: &str) -> RowError {
        RowError::new(format!("member {} of \"{}\" {what}", shown(self.name), self.column))
    }

    fn member(self, value: &Json) -> Result<Member, RowError> {
        let path = ClaimPath::parse(self.name).map_err(|problem| {
            self.error("names no claim")
                .detail(format!("The name {problem}."))
                .hint("Write the name of a top-level claim, or a JSON Pointer that starts with \"/\".")
        })?;
        let test = self.test(value)?;
        if is_word_list(path.steps()) {
            self.check_words(&test)?;
        }
        Ok(Member { path, test })
    }

    /// A plain value, or an object with one operator.
    fn test(self, value: &Json) -> Result<Test, RowError> {
        Ok(match value {
            Json::Null => Test::Equals(Scalar::Null),
            Json::Bool(value) => Test::Equals(Scalar::Bool(*value)),
            Json::Number(number) => Test::Equals(Scalar::Number(number.canonical().to_owned())),
            Json::String(text) => Test::Equals(Scalar::String(text.clone())),
            Json::Array(_) => {
                return Err(self
                    .error("must not be an array")
                    .detail("A claim is compared with one value, or with {\"any\": [...]}.")
                    .hint("Write {\"any\": [...]} for one of several values."));
            }
            Json::Object(operators) => {
                match operators.as_slice() {
                    [(operator, operand)] => self.operator(operator, operand)?,
                    [] => {
                        return Err(self
                            .error("has an empty object")
                            .detail(
                                "A claim is compared with plain values and operators, never with an object.",
                            )
                            .hint(OPERATORS));
                    }
                    _ => {
                        return Err(self
                        .error("has more than one operator in one object")
                        .detail(format!(
                            "They are {}.",
                            operators.iter().take(5).map(|(name, _)| shown(name)).collect::<Vec<_>>().join(", ")
                        ))
                        .hint(
                            "Write one rule for each, or nest them, as in {\"not\": {\"glob\": \"dev-*\"}}.",
                        ));
                    }
                }
            }
        })
    }

    fn operator(self, operator: &str, operand: &Json) -> Result<Test, RowError> {
        match (operator, operand) {
            ("any", Json::Array(tests)) if tests.is_empty() => Err(self
                .error("can never match")
                .detail("Operator \"any\" has an empty array.")
                .hint("Write the values, of which one must hold.")),
            ("any", Json::Array(tests)) => {
                tests.iter().map(|test| self.test(test)).collect::<Result<_, _>>().map(Test::Any)
            }
            ("any", _) => Err(self.operand("any", operand, "an array of values or operators")),
            ("not", test) => Ok(Test::Not(Box::new(self.test(test)?))),
            ("exists", Json::Bool(wanted)) => Ok(Test::Exists(*wanted)),
            ("exists", _) => Err(self.operand("exists", operand, "true or false")),
            ("glob", Json::String(glob)) => Pattern::glob(glob)
                .map(Test::Fits)
                .map_err(|problem| self.pattern("glob", &problem, "Write a shorter one.")),
            ("glob", _) => Err(self.operand("glob", operand, "a string, such as \"refs/heads/release-*\"")),
            ("regex", Json::String(regex)) => Pattern::regex(regex)
                .map(Test::Fits)
                .map_err(|problem| self.pattern("regular expression", &problem, REGEX)),
            ("regex", _) => Err(self.operand("regex", operand, "a string, such as \"pg-(.+)\"")),
            (unknown, _) => Err(self
                .error(&format!("has the unknown operator {}", shown(unknown)))
                .detail("A claim is compared with plain values and operators, never with an object.")
                .hint(OPERATORS)),
        }
    }

    fn operand(self, operator: &str, operand: &Json, wanted: &str) -> RowError {
        self.error(&format!("has operator \"{operator}\" with a value of the wrong type"))
            .detail(format!("It is {}.", kind(operand)))
            .hint(format!("Operator \"{operator}\" takes {wanted}."))
    }

    fn pattern(self, kind: &str, problem: &str, hint: &str) -> RowError {
        self.error(&format!("has a {kind} that cannot be compiled"))
            .detail(format!("The reason is: {problem}."))
            .hint(hint)
    }

    /// A list of words never holds what is not one word.
    fn check_words(self, test: &Test) -> Result<(), RowError> {
        match test {
            Test::Equals(Scalar::String(text)) if text.is_empty() || text.contains(' ') => Err(self
                .error("can never match")
                .detail("The claim is compared word by word, and the value is not one word.")
                .hint("Write one word.")),
            Test::Any(tests) => tests.iter().try_for_each(|test| self.check_words(test)),
            Test::Not(test) => self.check_words(test),
            _ => Ok(()),
        }
    }
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
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

impl Test {
    /// How many patterns are in it.
    pub(crate) fn patterns(&self) -> usize {
        match self {
            Test::Fits(_) => 1,
            Test::Any(tests) => tests.iter().map(Test::patterns).sum(),
            Test::Not(test) => test.patterns(),
            Test::Equals(_) | Test::Exists(_) => 0,
        }
    }
}

impl Testing for Test {
    fn view(&self) -> View<'_, Test> {
        match self {
            Test::Equals(value) => View::Equals(value.borrowed()),
            Test::Fits(pattern) => View::Fits(pattern.borrowed()),
            Test::Any(tests) => View::Any(tests),
            Test::Not(test) => View::Not(test),
            Test::Exists(wanted) => View::Exists(*wanted),
        }
    }
}

impl Testing for ArchivedTest {
    fn view(&self) -> View<'_, ArchivedTest> {
        match self {
            ArchivedTest::Equals(value) => View::Equals(value.borrowed()),
            ArchivedTest::Fits(pattern) => View::Fits(pattern.borrowed()),
            ArchivedTest::Any(tests) => View::Any(tests),
            ArchivedTest::Not(test) => View::Not(test),
            ArchivedTest::Exists(wanted) => View::Exists(*wanted),
        }
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
