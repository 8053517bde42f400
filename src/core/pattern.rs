//! Regular expressions and globs in rules: what a pattern says, and what every text that it fits must hold.
//!
//! The language is that of regex-lite: `\d`, `\w` and `(?i)` are ASCII only, so no look-alike from another script fits
//! a class by surprise. A login is a new process, so nothing stays compiled: an expression compiles in some 3 us
//! (regex: 80 to 780 us), and literals that every match holds keep most expressions from being compiled at all.

use regex_lite::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind};
use rkyv::{Archive, Deserialize, Serialize};

use crate::limits;

/// A pattern that fits a whole text or does not fit it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Anchored at both ends.
    expression: String,
    /// Every text that fits starts with it.
    pub(crate) prefix: String,
    /// Every text that fits ends with it.
    pub(crate) suffix: String,
    /// Every text that fits holds it somewhere.
    needle: String,
    /// Written as a regular expression, not as a glob.
    pub(crate) is_regex: bool,
    /// Group 1 is there, for `\1`.
    pub(crate) captures: bool,
}

/// A [`Pattern`], wherever it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PatternRef<'a> {
    expression: &'a str,
    prefix: &'a str,
    suffix: &'a str,
    needle: &'a str,
}

impl Pattern {
    /// A regular expression, anchored at both ends. The error says what is wrong with it.
    pub(crate) fn regex(text: &str) -> Result<Pattern, String> {
        // By itself first: `a)|(?:b` would close the group that the anchors stand around.
        compile(text)?;
        let expression = format!(r"\A(?:{text})\z");
        let compiled = compile(&expression)?;
        let mut literals = Literals::default();
        // What only the other parser refuses has no literals, and is tried against every text.
        if let Ok(hir) = regex_syntax::parse(text) {
            literals.prefix = edge(&hir, Edge::Start).0;
            literals.suffix = edge(&hir, Edge::End).0;
            literals.collect(&hir);
        }
        Ok(Pattern {
            expression,
            prefix: literals.prefix,
            suffix: literals.suffix,
            needle: literals.longest,
            is_regex: true,
            captures: compiled.captures_len() > 1,
        })
    }

    /// A glob: `*` is any run without `/`, `**` any run, `?` one character, and everything else is itself.
    pub(crate) fn glob(text: &str) -> Result<Pattern, String> {
        let mut expression = String::from("(?s)");
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '*' if rest.next_if_eq(&'*').is_some() => expression.push_str(".*"),
                '*' => expression.push_str("[^/]*"),
                '?' => expression.push('.'),
                other => expression.push_str(&regex_lite::escape(other.encode_utf8(&mut [0; 4]))),
            }
        }
        Ok(Pattern { is_regex: false, ..Pattern::regex(&expression)? })
    }

    pub(crate) fn borrowed(&self) -> PatternRef<'_> {
        let Pattern { expression, prefix, suffix, needle, .. } = self;
        PatternRef { expression, prefix, suffix, needle }
    }
}

impl ArchivedPattern {
    pub(crate) fn borrowed(&self) -> PatternRef<'_> {
        PatternRef {
            expression: self.expression.as_str(),
            prefix: self.prefix.as_str(),
            suffix: self.suffix.as_str(),
            needle: self.needle.as_str(),
        }
    }
}

/// A pattern that is compiled when the first text comes that it may fit.
pub(crate) struct Matcher<'a> {
    pattern: PatternRef<'a>,
    /// The inner None: it does not compile (any more), and fits nothing.
    compiled: Option<Option<Regex>>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(pattern: PatternRef<'a>) -> Matcher<'a> {
        Matcher { pattern, compiled: None }
    }

    pub(crate) fn fits(&mut self, text: &str) -> bool {
        self.regex(text).is_some_and(|regex| regex.is_match(text))
    }

    /// What group 1 holds of a text that fits.
    pub(crate) fn capture<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        Some(self.regex(text)?.captures(text)?.get(1)?.as_str())
    }

    fn regex(&mut self, text: &str) -> Option<&Regex> {
        let PatternRef { expression, prefix, suffix, needle } = self.pattern;
        let may_fit = text.starts_with(prefix) && text.ends_with(suffix) && text.contains(needle);
        if !may_fit {
            return None;
        }
        self.compiled.get_or_insert_with(|| compile(expression).ok()).as_ref()
    }
}

fn compile(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression)
        .size_limit(limits::PATTERN_BYTES)
        .build()
        .map_err(|error| error.to_string())
}

#[derive(Default)]
struct Literals {
    prefix: String,
    suffix: String,
    longest: String,
}

impl Literals {
    /// The longest literal that every match holds.
    fn collect(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Literal(literal) => {
                if let Ok(text) = std::str::from_utf8(&literal.0)
                    && text.len() > self.longest.len()
                {
                    self.longest = text.to_owned();
                }
            }
            HirKind::Capture(capture) => self.collect(&capture.sub),
            HirKind::Repetition(repetition) if repetition.min > 0 => self.collect(&repetition.sub),
            HirKind::Concat(parts) => parts.iter().for_each(|part| self.collect(part)),
            _ => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Start,
    End,
}

/// What every match has at that edge, and whether that is all that it has.
fn edge(hir: &Hir, at: Edge) -> (String, bool) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => (String::new(), true),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => (text.to_owned(), true),
            Err(_) => (String::new(), false),
        },
        HirKind::Capture(capture) => edge(&capture.sub, at),
        HirKind::Repetition(repetition) if repetition.min > 0 => (edge(&repetition.sub, at).0, false),
        HirKind::Concat(parts) => {
            let mut all = String::new();
            let mut next = |part: &Hir| {
                let (text, whole) = edge(part, at);
                all = if at == Edge::Start { format!("{all}{text}") } else { format!("{text}{all}") };
                whole
            };
            let whole = match at {
                Edge::Start => parts.iter().all(&mut next),
                Edge::End => parts.iter().rev().all(&mut next),
            };
            (all, whole)
        }
        _ => (String::new(), false),
    }
}
