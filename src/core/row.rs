//! What a table trigger tells a DBA whose row cannot be compiled.

use std::fmt;

use crate::limits;

/// Why a row is refused, in PostgreSQL's style: a primary line in lower case without a full stop, then whole sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The primary line.
    pub message: String,
    /// What was found.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl RowError {
    pub(crate) fn new(message: impl Into<String>) -> RowError {
        RowError { message: message.into(), detail: None, hint: None }
    }

    pub(crate) fn detail(mut self, detail: impl Into<String>) -> RowError {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> RowError {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for RowError {}

/// A name as messages show it: control characters and quotes escaped, at most [`limits::SHOWN_BYTES`] of the name.
pub(crate) fn shown(name: &str) -> String {
    let mut short = String::new();
    for character in name.chars() {
        if short.len().saturating_add(character.len_utf8()) > limits::SHOWN_BYTES {
            short.push('…');
            break;
        }
        short.push(character);
    }
    format!("\"{}\"", short.escape_debug())
}

/// The elements of a SQL array that may hold neither nulls, nor empty strings, nor repeats, nor more than `most`
/// elements of at most [`limits::NAME_BYTES`] bytes.
pub(crate) fn plain_list(
    column: &str,
    elements: &[Option<String>],
    most: usize,
) -> Result<Vec<String>, RowError> {
    let mut plain: Vec<String> = Vec::with_capacity(elements.len().min(most));
    if elements.len() > most {
        return Err(RowError::new(format!("\"{column}\" has too many elements"))
            .detail(format!("It has {}; at most {most} are allowed.", elements.len())));
    }
    for element in elements {
        let Some(text) = element else {
            return Err(RowError::new(format!("\"{column}\" must not contain nulls")));
        };
        if text.len() > limits::NAME_BYTES {
            return Err(RowError::new(format!("an element of \"{column}\" is too long")).detail(format!(
                "It has {} bytes; at most {} are allowed.",
                text.len(),
                limits::NAME_BYTES
            )));
        }
        if plain.contains(text) {
            return Err(RowError::new(format!("\"{column}\" contains {} twice", shown(text))));
        }
        plain.push(text.clone());
    }
    Ok(plain)
}

/// A row as `to_jsonb` gives it.
///
/// # Errors
/// A column is missing or has another type than the extension's script gave it.
pub fn from_json<'de, Row: serde::Deserialize<'de>>(text: &'de str) -> Result<Row, RowError> {
    serde_json::from_str(text).map_err(|error| {
        RowError::new("could not read the row")
            .detail(format!("{error}."))
            .hint("The tables of pg_oidc must be as its script made them.")
    })
}

/// A column of type jsonb, kept as its text, exact to the last digit.
pub(crate) fn json<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let raw: Box<serde_json::value::RawValue> = serde::Deserialize::deserialize(deserializer)?;
    Ok(raw.get().to_owned())
}

/// As [`json`], for a column that may be null. A JSON `null` that is stored is the same as no value.
pub(crate) fn optional_json<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let text = json(deserializer)?;
    Ok((text != "null").then_some(text))
}
