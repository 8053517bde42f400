//! The name of a claim: a top-level name, or a JSON Pointer (RFC 6901).

use rkyv::{Archive, Deserialize, Serialize};

use crate::json::Json;
use crate::limits;

/// Where a claim is: the steps from the claims object to it, never empty, unescaped when the row was compiled.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClaimPath {
    steps: Vec<String>,
}

impl ClaimPath {
    /// A leading `/` makes a JSON Pointer; anything else, dots and colons included, names a top-level claim. The
    /// error says what is wrong, as the end of a sentence about the name.
    pub(crate) fn parse(text: &str) -> Result<ClaimPath, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        if text.len() > limits::NAME_BYTES {
            return Err("is too long");
        }
        if text.contains('\0') {
            return Err("holds U+0000");
        }
        let steps = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescape).collect::<Result<Vec<_>, _>>()?,
            None => vec![text.to_owned()],
        };
        if steps.len() > limits::JSON_DEPTH {
            return Err("has more steps than a token may have levels");
        }
        Ok(ClaimPath { steps })
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &str> + Clone {
        self.steps.iter().map(String::as_str)
    }

    /// Whether it is the top-level claim of that name.
    pub(crate) fn is(&self, name: &str) -> bool {
        is(self.steps(), name)
    }

    pub(crate) fn find<'json>(&self, claims: &'json Json) -> Option<&'json Json> {
        find(self.steps(), claims)
    }

    /// As the row may have written it.
    pub(crate) fn text(&self) -> String {
        text(self.steps())
    }
}

impl ArchivedClaimPath {
    pub(crate) fn steps(&self) -> impl Iterator<Item = &str> + Clone {
        self.steps.iter().map(|step| step.as_str())
    }

    pub(crate) fn text(&self) -> String {
        text(self.steps())
    }
}

fn text<'a>(mut steps: impl Iterator<Item = &'a str> + Clone) -> String {
    match (steps.clone().nth(1), steps.clone().next()) {
        (None, Some(name)) if !name.starts_with('/') => name.to_owned(),
        _ => steps.by_ref().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1"))).collect(),
    }
}

/// Whether the steps lead to the top-level claim of that name.
pub(crate) fn is<'a>(mut steps: impl Iterator<Item = &'a str>, name: &str) -> bool {
    steps.next() == Some(name) && steps.next().is_none()
}

/// The value at the end of the steps, if every step leads somewhere.
pub(crate) fn find<'a, 'json>(
    steps: impl Iterator<Item = &'a str>,
    claims: &'json Json,
) -> Option<&'json Json> {
    let mut place = claims;
    for step in steps {
        place = match place {
            Json::Object(_) => place.get(step)?,
            Json::Array(elements) => elements.get(element_number(step)?)?,
            _ => return None,
        };
    }
    Some(place)
}

/// Digits without a leading zero (RFC 6901, section 4).
fn element_number(step: &str) -> Option<usize> {
    let plain = step == "0" || !step.starts_with('0');
    if plain && step.bytes().all(|byte| byte.is_ascii_digit()) { step.parse().ok() } else { None }
}

fn unescape(step: &str) -> Result<String, &'static str> {
    let mut parts = step.split('~');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = if let Some(rest) = part.strip_prefix('0') {
            ('~', rest)
        } else if let Some(rest) = part.strip_prefix('1') {
            ('/', rest)
        } else {
            return Err("is no JSON Pointer: only \"~0\" and \"~1\" may follow a tilde (RFC 6901)");
        };
        unescaped.push(sign);
        unescaped.push_str(rest);
    }
    Ok(unescaped)
}
