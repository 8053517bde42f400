//! Strict JSON (RFC 8259, and I-JSON, RFC 7493, where they differ): one reading of a document or none.
//!
//! serde_json knows the grammar, but keeps the last of two members of one name, rounds numbers and has its own depth
//! limit. So it only splits one level here, and this file builds the value: every byte is looked at once a level, at
//! most [`limits::JSON_DEPTH`] + 1 times.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits;
pub use crate::number::Number;

/// A JSON value; objects keep their order and hold each name once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, exact.
    Number(Number),
    /// A string; never holds U+0000, which PostgreSQL cannot store.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

/// Why a text is refused. Holds nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonProblem {
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON: the grammar, bytes after the value, a byte order mark, a lone surrogate.
    NotJson,
    /// Not an object where one is needed.
    NotObject,
    /// More levels than [`limits::JSON_DEPTH`].
    TooDeep,
    /// Too many object members in the document.
    TooManyMembers,
    /// Too many elements in one array.
    TooManyElements,
    /// One name twice in one object, at any level.
    DuplicateMember,
    /// U+0000 in a string or a name.
    NulCharacter,
    /// A number longer than [`limits::NUMBER_BYTES`], or with an exponent beyond
    /// [`limits::NUMBER_EXPONENT`].
    NumberTooLong,
}

/// How much a document may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Object members, all levels together.
    pub(crate) members: usize,
    /// Elements of any one array.
    pub(crate) elements: usize,
}

/// The bounds of a token's header and payload.
pub(crate) const TOKEN_BOUNDS: Bounds = Bounds { members: limits::CLAIM_MEMBERS, elements: limits::GROUPS };

/// The bounds of a key set.
pub(crate) const JWKS_BOUNDS: Bounds =
    Bounds { members: limits::JWKS_MEMBERS, elements: limits::JWKS_MEMBERS };

/// Parses a whole document, which must be an object: its members.
pub(crate) fn parse_object(bytes: &[u8], bounds: Bounds) -> Result<Json, JsonProblem> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonProblem::NotUtf8)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|_| JsonProblem::NotJson)?;
    let mut parser = Parser { bounds, members: 0 };
    match parser.value(raw.get(), 0)? {
        object @ Json::Object(_) => Ok(object),
        _ => Err(JsonProblem::NotObject),
    }
}

struct Parser {
    bounds: Bounds,
    members: usize,
}

impl Parser {
    /// `outside`: how many arrays and objects are around this value.
    fn value(&mut self, text: &str, outside: usize) -> Result<Json, JsonProblem> {
        match text.bytes().next() {
            Some(b'{') => self.object(text, deeper(outside)?),
            Some(b'[') => self.array(text, deeper(outside)?),
            Some(b'"') => {
                Ok(Json::String(without_nul(serde_json::from_str(text).map_err(|_| JsonProblem::NotJson)?)?))
            }
            Some(b'-' | b'0'..=b'9') => {
                Number::parse(text).map(Json::Number).ok_or(JsonProblem::NumberTooLong)
            }
            _ => match text {
                "null" => Ok(Json::Null),
                "true" => Ok(Json::Bool(true)),
                "false" => Ok(Json::Bool(false)),
                _ => Err(JsonProblem::NotJson),
            },
        }
    }

    fn object(&mut self, text: &str, depth: usize) -> Result<Json, JsonProblem> {
        let members = serde_json::Deserializer::from_str(text)
            .deserialize_map(Members { most: self.bounds.members })
            .map_err(|_| JsonProblem::NotJson)?;
        self.members = self.members.saturating_add(members.len());
        if self.members > self.bounds.members {
            return Err(JsonProblem::TooManyMembers);
        }
        let distinct: BTreeSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        if distinct.len() != members.len() {
            return Err(JsonProblem::DuplicateMember);
        }
        let members = members
            .into_iter()
            .map(|(name, raw)| Ok((without_nul(name)?, self.value(raw.get(), depth)?)))
            .collect::<Result<_, JsonProblem>>()?;
        Ok(Json::Object(members))
    }

    fn array(&mut self, text: &str, depth: usize) -> Result<Json, JsonProblem> {
        let elements = serde_json::Deserializer::from_str(text)
            .deserialize_seq(Elements { most: self.bounds.elements })
            .map_err(|_| JsonProblem::NotJson)?;
        if elements.len() > self.bounds.elements {
            return Err(JsonProblem::TooManyElements);
        }
        let elements = elements
            .into_iter()
            .map(|raw| self.value(raw.get(), depth))
            .collect::<Result<_, JsonProblem>>()?;
        Ok(Json::Array(elements))
    }
}

fn deeper(outside: usize) -> Result<usize, JsonProblem> {
    if outside >= limits::JSON_DEPTH { Err(JsonProblem::TooDeep) } else { Ok(outside.saturating_add(1)) }
}

fn without_nul(text: String) -> Result<String, JsonProblem> {
    if text.contains('\0') { Err(JsonProblem::NulCharacter) } else { Ok(text) }
}

/// Collects the members of one object, repeats and all, and of more than it may have only the first too many: a text
/// names many more than memory should hold.
struct Members {
    most: usize,
}

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while members.len() <= self.most
            && let Some(member) = map.next_entry()?
        {
            members.push(member);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

/// The same for the elements of one array.
struct Elements {
    most: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() <= self.most
            && let Some(element) = seq.next_element()?
        {
            elements.push(element);
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(elements)
    }
}

impl Json {
    /// The member of that name, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(known, _)| known == name).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// The strings, if this is a string or an array of nothing but strings.
    pub(crate) fn strings(&self) -> Option<Vec<&str>> {
        match self {
            Json::String(text) => Some(vec![text]),
            Json::Array(elements) => elements.iter().map(Json::as_str).collect(),
            _ => None,
        }
    }
}

/// Compact JSON: no white space, members in their order, numbers as they were written.
impl fmt::Display for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => formatter.write_str("null"),
            Json::Bool(value) => write!(formatter, "{value}"),
            Json::Number(number) => formatter.write_str(number.text()),
            Json::String(text) => write_string(formatter, text),
            Json::Array(elements) => {
                formatter.write_str("[")?;
                for (position, element) in elements.iter().enumerate() {
                    if position > 0 {
                        formatter.write_str(",")?;
                    }
                    write!(formatter, "{element}")?;
                }
                formatter.write_str("]")
            }
            Json::Object(members) => {
                formatter.write_str("{")?;
                for (position, (name, value)) in members.iter().enumerate() {
                    if position > 0 {
                        formatter.write_str(",")?;
                    }
                    write_string(formatter, name)?;
                    write!(formatter, ":{value}")?;
                }
                formatter.write_str("}")
            }
        }
    }
}

fn write_string(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    formatter.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}
