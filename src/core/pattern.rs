//! Regular expressions and globs in rules: what a pattern says, and what every text that it fits must hold.
//!
//! The language is that of regex-lite: `\d`, `\w` and `(?i)` are ASCII only, so no look-alike from another script fits
//! a class by surprise. A login is a new process, so nothing stays compiled: an expression compiles in some 3 us
//! (regex: 80 to 780 us), and literals that every match holds keep most expressions from being compiled at all.

use regex_lite::{Regex, RegexBuilder};
use regex_syntax::ast::{self, Ast, Flag, RepetitionKind, RepetitionRange};
use rkyv::{Archive, Deserialize, Serialize};

use crate::effort::Effort;
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
    /// Bytes that it takes compiled, rounded up to a power of two.
    weight: u32,
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
    weight: u32,
}

impl Pattern {
    /// A regular expression, anchored at both ends. The error says what is wrong with it.
    pub(crate) fn regex(text: &str) -> Result<Pattern, String> {
        // By itself first: `a)|(?:b` would close the group that the anchors stand around.
        compile(text)?;
        let expression = format!(r"\A(?:{text})\z");
        let compiled = compile(&expression)?;
        let Literals { prefix, suffix, longest, .. } = Literals::of(text);
        Ok(Pattern {
            weight: weight(&expression),
            expression,
            prefix,
            suffix,
            needle: longest,
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
        let Pattern { expression, prefix, suffix, needle, weight, .. } = self;
        PatternRef { expression, prefix, suffix, needle, weight: *weight }
    }
}

impl ArchivedPattern {
    pub(crate) fn borrowed(&self) -> PatternRef<'_> {
        PatternRef {
            expression: self.expression.as_str(),
            prefix: self.prefix.as_str(),
            suffix: self.suffix.as_str(),
            needle: self.needle.as_str(),
            weight: self.weight.to_native(),
        }
    }
}

/// A pattern that is compiled when the first text comes that it may fit.
pub(crate) struct Matcher<'a> {
    pattern: PatternRef<'a>,
    effort: &'a Effort,
    /// The inner None: it does not compile (any more), and fits nothing.
    compiled: Option<Option<Regex>>,
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(pattern: PatternRef<'a>, effort: &'a Effort) -> Matcher<'a> {
        Matcher { pattern, effort, compiled: None }
    }

    pub(crate) fn fits(&mut self, text: &str) -> bool {
        self.regex(text).is_some_and(|regex| regex.is_match(text))
    }

    /// What group 1 holds of a text that fits.
    pub(crate) fn capture<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        Some(self.regex(text)?.captures(text)?.get(1)?.as_str())
    }

    fn regex(&mut self, text: &str) -> Option<&Regex> {
        let PatternRef { expression, prefix, suffix, needle, weight } = self.pattern;
        let may_fit = text.starts_with(prefix) && text.ends_with(suffix) && text.contains(needle);
        if !may_fit || !self.effort.take(weight, text.len()) {
            return None;
        }
        self.compiled.get_or_insert_with(|| compile(expression).ok()).as_ref()
    }
}

/// The smallest power of two that the expression compiles in.
fn weight(expression: &str) -> u32 {
    let most = u32::try_from(limits::PATTERN_BYTES).unwrap_or(u32::MAX);
    let fits = |size: u32| compile_within(expression, usize::try_from(size).unwrap_or(0)).is_ok();
    (8..u32::BITS).map(|bits| 1_u32 << bits).find(|size| *size >= most || fits(*size)).unwrap_or(most)
}

fn compile(expression: &str) -> Result<Regex, String> {
    compile_within(expression, limits::PATTERN_BYTES)
}

fn compile_within(expression: &str, bytes: usize) -> Result<Regex, String> {
    RegexBuilder::new(expression).size_limit(bytes).build().map_err(|error| error.to_string())
}

/// What is known of every text that an expression fits, or a part of it.
///
/// This is read from the syntax tree of the other parser, where a character is a character and nothing else: a class
/// is never taken for one, since the two disagree about what `\w` and `(?i)` mean outside of ASCII, and what is one
/// character of a class there may be two here.
#[derive(Debug, Default)]
struct Literals {
    /// It starts with this.
    prefix: String,
    /// It ends with this.
    suffix: String,
    /// It holds this somewhere.
    longest: String,
    /// It is this: prefix and suffix are both all of it.
    whole: bool,
}

impl Literals {
    fn of(text: &str) -> Literals {
        let Ok(tree) = ast::parse::Parser::new().parse(text) else {
            // What only the other parser refuses has no literals, and is tried against every text.
            return Literals::default();
        };
        Literals::read(&tree, &mut false)
    }

    /// `folded`: whether `(?i)` is in force; what sets it counts until the end of the group around it.
    fn read(tree: &Ast, folded: &mut bool) -> Literals {
        match tree {
            Ast::Literal(literal) if !(*folded && literal.c.is_ascii_alphabetic()) => {
                Literals::exactly(literal.c.to_string())
            }
            // No character at all.
            Ast::Empty(_) | Ast::Assertion(_) => Literals::exactly(String::new()),
            Ast::Flags(set) => {
                *folded = set.flags.flag_state(Flag::CaseInsensitive).unwrap_or(*folded);
                Literals::exactly(String::new())
            }
            Ast::Group(group) => {
                let set = group.flags().and_then(|flags| flags.flag_state(Flag::CaseInsensitive));
                Literals::read(&group.ast, &mut set.unwrap_or(*folded))
            }
            Ast::Concat(concat) => {
                let mut all = Literals::exactly(String::new());
                concat.asts.iter().for_each(|part| all.push(Literals::read(part, folded)));
                all.end_run("");
                all
            }
            Ast::Repetition(repetition) if at_least_once(&repetition.op.kind) => {
                Literals { whole: false, ..Literals::read(&repetition.ast, folded) }
            }
            // An alternation is all of its group, so flags that it sets end with it.
            _ => Literals::default(),
        }
    }

    fn exactly(text: String) -> Literals {
        Literals { prefix: text.clone(), suffix: text.clone(), longest: text, whole: true }
    }

    /// Takes in what comes next.
    fn push(&mut self, next: Literals) {
        if self.whole {
            self.prefix.push_str(&next.prefix);
        }
        if next.whole {
            self.suffix.push_str(&next.suffix);
        } else {
            self.end_run(&next.prefix);
            self.suffix = next.suffix;
            self.keep(next.longest);
        }
        self.whole = self.whole && next.whole;
    }

    /// The run of characters at the end goes no further than `rest`.
    fn end_run(&mut self, rest: &str) {
        self.keep(format!("{}{rest}", self.suffix));
    }

    fn keep(&mut self, run: String) {
        if run.len() > self.longest.len() {
            self.longest = run;
        }
    }
}

fn at_least_once(kind: &RepetitionKind) -> bool {
    match kind {
        RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore => false,
        RepetitionKind::OneOrMore => true,
        RepetitionKind::Range(
            RepetitionRange::Exactly(least)
            | RepetitionRange::AtLeast(least)
            | RepetitionRange::Bounded(least, _),
        ) => *least > 0,
    }
}
