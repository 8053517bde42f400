//! A `match` in words, for whoever reviews who gets what. Says what is written, and judges nothing: what the compiler of
//! rules would refuse is shown as its JSON.

use crate::json::{self, Json, JsonProblem};
use crate::matching::problem_sentence;
use crate::row::RowError;

/// Last words of the names of claims that are lists as a rule: of them it reads better that they have something.
const LISTS: [&str; 6] = ["groups", "roles", "scope", "scp", "permissions", "entitlements"];

/// The condition in words: `groups has "analytics-read" and env is not "dev"`.
///
/// # Errors
/// The text is not a JSON object.
pub fn describe(match_text: &str) -> Result<String, RowError> {
    match json::parse_object(match_text.as_bytes(), json::TOKEN_BOUNDS) {
        Ok(Json::Object(members)) if members.is_empty() => Ok("every token".to_owned()),
        Ok(Json::Object(members)) => {
            let tests: Vec<String> =
                members.iter().map(|(name, value)| Claim::of(name).test(value)).collect();
            Ok(tests.join(" and "))
        }
        Ok(_) => Err(refused(JsonProblem::NotObject)),
        Err(problem) => Err(refused(problem)),
    }
}

fn refused(problem: JsonProblem) -> RowError {
    RowError::new("could not read the condition").detail(problem_sentence(problem))
}

/// The claim of one member, and the verb that it takes.
struct Claim {
    shown: String,
    list: bool,
}

impl Claim {
    fn of(name: &str) -> Claim {
        let last = name.rsplit(|character: char| !character.is_ascii_alphanumeric()).next();
        let list = last.is_some_and(|word| LISTS.contains(&word));
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/~@#".contains(&byte);
        let shown = if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { quoted(name) };
        Claim { shown, list }
    }

    /// One of two words: for lists, and for the rest.
    fn says(&self, list: &str, other: &str, what: &str) -> String {
        format!("{} {} {what}", self.shown, if self.list { list } else { other })
    }

    fn test(&self, value: &Json) -> String {
        match Test::of(value) {
            Test::Plain(value) => self.says("has", "is", &value),
            Test::OneOf(values) => self.says("has one of", "is one of", &values),
            Test::Any(tests) => format!("({})", self.either(tests)),
            Test::Not(negated) => self.negated(negated),
            Test::Exists(true) => format!("{} is there", self.shown),
            Test::Exists(false) => format!("{} is not there", self.shown),
            Test::Glob(pattern) => format!("{} like {}", self.shown, quoted(pattern)),
            Test::Regex(pattern) => format!("{} matches {}", self.shown, quoted(pattern)),
            Test::Other => format!("{} {value}", self.shown),
        }
    }

    fn negated(&self, value: &Json) -> String {
        match Test::of(value) {
            Test::Plain(value) => self.says("has not", "is not", &value),
            Test::OneOf(values) => self.says("has none of", "is none of", &values),
            Test::Any(tests) => format!("not ({})", self.either(tests)),
            Test::Not(_) => format!("not ({})", self.test(value)),
            Test::Exists(true) => format!("{} is not there", self.shown),
            Test::Exists(false) => format!("{} is there", self.shown),
            Test::Glob(pattern) => format!("{} not like {}", self.shown, quoted(pattern)),
            Test::Regex(pattern) => format!("{} does not match {}", self.shown, quoted(pattern)),
            Test::Other => format!("{} not {value}", self.shown),
        }
    }

    fn either(&self, values: &[Json]) -> String {
        let tests: Vec<String> = values.iter().map(|value| self.test(value)).collect();
        tests.join(" or ")
    }
}

/// What the value of a member asks for.
enum Test<'a> {
    Plain(String),
    /// Any of plain values.
    OneOf(String),
    /// Any of tests.
    Any(&'a [Json]),
    Not(&'a Json),
    Exists(bool),
    Glob(&'a str),
    Regex(&'a str),
    /// Nothing that the language knows.
    Other,
}

impl<'a> Test<'a> {
    fn of(value: &'a Json) -> Test<'a> {
        if let Some(text) = plain(value) {
            return Test::Plain(text);
        }
        let Json::Object(operators) = value else { return Test::Other };
        let [(operator, operand)] = operators.as_slice() else { return Test::Other };
        match (operator.as_str(), operand) {
            ("any", Json::Array(values)) if values.is_empty() => Test::Other,
            ("any", Json::Array(values)) => match values.iter().map(plain).collect::<Option<Vec<_>>>() {
                Some(plain) => Test::OneOf(plain.join(", ")),
                None => Test::Any(values),
            },
            ("not", operand) => Test::Not(operand),
            ("exists", Json::Bool(there)) => Test::Exists(*there),
            ("glob", Json::String(pattern)) => Test::Glob(pattern),
            ("regex", Json::String(pattern)) => Test::Regex(pattern),
            _ => Test::Other,
        }
    }
}

fn plain(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(quoted(text)),
        Json::Array(_) | Json::Object(_) => None,
        other => Some(other.to_string()),
    }
}

/// In double quotes, on one line: what cannot be seen, or would turn the line around, is shown as its code.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '\'' => quoted.push('\''),
            other => quoted.extend(other.escape_debug()),
        }
    }
    quoted.push('"');
    quoted
}
