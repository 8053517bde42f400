//! Regular expressions and globs, slow and obvious: a tree, a writer that spells it in many ways, and a matcher that
//! tries everything. Nothing of the code under test is used.

use proptest::prelude::*;

/// An expression.
#[derive(Debug, Clone)]
pub(crate) enum Re {
    Char(char),
    Dot,
    /// `\d`, `\w`, `\s` and their opposites, in ASCII.
    Perl(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    Look(Look),
    Group(Box<Re>),
    Flagged(Flags, Box<Re>),
    All(Vec<Re>),
    OneOf(Vec<Re>),
    Repeat {
        part: Box<Re>,
        least: u32,
        most: Option<u32>,
        lazy: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Look {
    TextStart,
    TextEnd,
    LineStart,
    LineEnd,
    Word,
    NotWord,
}

/// `(?i)`, `(?m)`, `(?s)`, `(?x)`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flags {
    folded: bool,
    lines: bool,
    dot_all: bool,
    spaced: bool,
}

/// Whether the expression fits the text as a whole.
pub(crate) fn fits(re: &Re, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    run(re, &text, 0, Flags::default(), &mut |end| end == text.len())
}

/// Whether the expression fits from `at` on, and `then` says yes to where it ends.
fn run(re: &Re, text: &[char], at: usize, flags: Flags, then: &mut dyn FnMut(usize) -> bool) -> bool {
    let mut one = |wanted: &dyn Fn(char) -> bool| text.get(at).is_some_and(|c| wanted(*c)) && then(at + 1);
    match re {
        Re::Char(wanted) => one(&|c| same(c, *wanted, flags)),
        Re::Dot => one(&|c| flags.dot_all || c != '\n'),
        Re::Perl(class) => one(&|c| perl(*class, c)),
        Re::Class { negated, ranges } => one(&|c| {
            let held = |c: char| ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
            let other_case =
                if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            (held(c) || flags.folded && held(other_case)) != *negated
        }),
        Re::Look(look) => {
            let before = at.checked_sub(1).map(|at| text[at]);
            let after = text.get(at).copied();
            let word = |c: Option<char>| c.is_some_and(|c| perl('w', c));
            let holds = match look {
                Look::TextStart => before.is_none(),
                Look::TextEnd => after.is_none(),
                Look::LineStart => before.is_none() || flags.lines && before == Some('\n'),
                Look::LineEnd => after.is_none() || flags.lines && after == Some('\n'),
                Look::Word => word(before) != word(after),
                Look::NotWord => word(before) == word(after),
            };
            holds && then(at)
        }
        Re::Group(part) => run(part, text, at, flags, then),
        Re::Flagged(more, part) => run(part, text, at, flags.and(*more), then),
        Re::All(parts) => match parts.split_first() {
            None => then(at),
            Some((first, rest)) => {
                let rest = Re::All(rest.to_vec());
                run(first, text, at, flags, &mut |next| run(&rest, text, next, flags, then))
            }
        },
        Re::OneOf(parts) => parts.iter().any(|part| run(part, text, at, flags, then)),
        Re::Repeat { part, least, most, .. } => {
            if *least == 0 && then(at) {
                return true;
            }
            if *most == Some(0) {
                return false;
            }
            let (least, most) = (least.saturating_sub(1), most.map(|most| most - 1));
            let rest = Re::Repeat { part: part.clone(), least, most, lazy: false };
            // What fits without a character fits as often as it likes; only what is still owed is to be paid.
            run(part, text, at, flags, &mut |next| {
                if next == at && least == 0 { then(at) } else { run(&rest, text, next, flags, then) }
            })
        }
    }
}

fn same(c: char, wanted: char, flags: Flags) -> bool {
    c == wanted || flags.folded && c.eq_ignore_ascii_case(&wanted)
}

fn perl(class: char, c: char) -> bool {
    let held = match class.to_ascii_lowercase() {
        'd' => c.is_ascii_digit(),
        'w' => c.is_ascii_alphanumeric() || c == '_',
        _ => matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c'),
    };
    held != class.is_ascii_uppercase()
}

impl Flags {
    fn and(self, more: Flags) -> Flags {
        Flags {
            folded: self.folded || more.folded,
            lines: self.lines || more.lines,
            dot_all: self.dot_all || more.dot_all,
            spaced: self.spaced || more.spaced,
        }
    }

    fn letters(self) -> String {
        let flags = [(self.folded, 'i'), (self.lines, 'm'), (self.dot_all, 's'), (self.spaced, 'x')];
        flags.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect()
    }
}

/// A source of small choices: bytes that a test generates, then zeros.
pub(crate) struct Choices<'a>(pub(crate) std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, most: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % most
    }
}

/// The expression as text.
pub(crate) fn written(re: &Re, choices: &mut Choices<'_>) -> String {
    write(re, Flags::default(), choices)
}

fn write(re: &Re, flags: Flags, choices: &mut Choices<'_>) -> String {
    let text = match re {
        Re::Char(c) => character(*c, choices),
        Re::Dot => ".".to_owned(),
        Re::Perl(class) => format!("\\{class}"),
        Re::Class { negated, ranges } => {
            let end = |c: char| {
                if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:x}}}", u32::from(c)) }
            };
            let ranges = ranges.iter().map(|(first, last)| match first == last {
                true => end(*first),
                false => format!("{}-{}", end(*first), end(*last)),
            });
            format!("[{}{}]", if *negated { "^" } else { "" }, ranges.collect::<String>())
        }
        Re::Look(look) => match look {
            Look::TextStart => "\\A",
            Look::TextEnd => "\\z",
            Look::LineStart => "^",
            Look::LineEnd => "$",
            Look::Word => "\\b",
            Look::NotWord => "\\B",
        }
        .to_owned(),
        Re::Group(part) => {
            let (open, close) = [("(", ")"), ("(?:", ")"), ("((", "))")][choices.below(3)];
            format!("{open}{}{close}", write(part, flags, choices))
        }
        Re::Flagged(more, part) => {
            let inner = write(part, flags.and(*more), choices);
            match (more.letters().as_str(), choices.below(2)) {
                ("", _) => format!("(?:{inner})"),
                (letters, 0) => format!("(?{letters}:{inner})"),
                (letters, _) => format!("(?:(?{letters}){inner})"),
            }
        }
        Re::All(parts) => parts
            .iter()
            .map(|part| match part {
                Re::OneOf(_) => format!("(?:{})", write(part, flags, choices)),
                part => write(part, flags, choices),
            })
            .collect(),
        Re::OneOf(parts) => {
            parts.iter().map(|part| write(part, flags, choices)).collect::<Vec<_>>().join("|")
        }
        Re::Repeat { part, least, most, lazy } => {
            let part = match **part {
                Re::Char(_) | Re::Dot | Re::Perl(_) | Re::Class { .. } | Re::Group(_) | Re::Flagged(..) => {
                    write(part, flags, choices)
                }
                _ => format!("(?:{})", write(part, flags, choices)),
            };
            let counts = match (least, most) {
                (0, Some(1)) => "?".to_owned(),
                (0, None) => "*".to_owned(),
                (1, None) => "+".to_owned(),
                (least, None) => format!("{{{least},}}"),
                (least, Some(most)) if least == most => format!("{{{least}}}"),
                (least, Some(most)) => format!("{{{least},{most}}}"),
            };
            format!("{part}{counts}{}", if *lazy { "?" } else { "" })
        }
    };
    match choices.below(4) {
        0 if flags.spaced => format!("{text} # a|b)\n"),
        1 if flags.spaced => format!(" {text}\t"),
        _ => text,
    }
}

/// One character in one of its spellings.
fn character(c: char, choices: &mut Choices<'_>) -> String {
    let code = u32::from(c);
    match choices.below(6) {
        0 => format!("\\x{{{code:X}}}"),
        1 if code < 0x100 => format!("\\x{code:02x}"),
        2 if code < 0x1_0000 => format!("\\u{code:04X}"),
        3 => format!("\\U{code:08x}"),
        4 if c == '\n' => "\\n".to_owned(),
        _ if c.is_ascii_alphanumeric() || c == '<' || !c.is_ascii() => c.to_string(),
        _ => format!("\\{c}"),
    }
}

/// A text that the expression may fit: it does, where no look-around stands in the way.
pub(crate) fn sample(re: &Re, choices: &mut Choices<'_>) -> String {
    match re {
        Re::Char(c) => match choices.below(5) {
            0 => c.to_ascii_uppercase().to_string(),
            1 => c.to_ascii_lowercase().to_string(),
            _ => c.to_string(),
        },
        Re::Dot => ["a", "\n", "\u{e9}", "/"][choices.below(4)].to_owned(),
        Re::Perl(_) => ["a", "1", "_", " ", "\u{e9}", "-"][choices.below(6)].to_owned(),
        Re::Class { negated: true, .. } => ["a", "k", "\u{e9}", "\u{212a}", "!"][choices.below(5)].to_owned(),
        Re::Class { ranges, .. } => {
            let (first, last) = ranges[choices.below(ranges.len())];
            if choices.below(2) == 0 { first.to_string() } else { last.to_string() }
        }
        Re::Look(_) => String::new(),
        Re::Group(part) | Re::Flagged(_, part) => sample(part, choices),
        Re::All(parts) => parts.iter().map(|part| sample(part, choices)).collect(),
        Re::OneOf(parts) => sample(&parts[choices.below(parts.len())], choices),
        Re::Repeat { part, least, most, .. } => {
            let extra = choices.below(3).min(most.map_or(3, |most| (most - least) as usize));
            (0..*least as usize + extra).map(|_| sample(part, choices)).collect()
        }
    }
}

/// Characters that meet each other's cases, look-alikes and meanings.
const CHARACTERS: &[char] = &[
    'a', 'b', 'A', 'k', 'K', '\u{212a}', 's', '\u{17f}', '\u{e9}', '\u{c9}', '1', '.', '-', '/', ' ', '#',
    '\n', '<', '\u{ff}',
];

pub(crate) fn expression() -> impl Strategy<Value = Re> {
    let range = prop_oneof![
        prop::sample::select(CHARACTERS).prop_map(|c| (c, c)),
        Just(('a', 'k')),
        Just(('L', 'Z')),
        Just(('0', '8')),
        Just(('\u{1}', ' ')),
        Just(('\u{80}', '\u{10ffff}')),
        Just(('{', '\u{10ffff}')),
    ];
    let leaf = prop_oneof![
        6 => prop::sample::select(CHARACTERS).prop_map(Re::Char),
        1 => Just(Re::Dot),
        1 => prop::sample::select(&['d', 'w', 's', 'D', 'W', 'S'][..]).prop_map(Re::Perl),
        2 => (any::<bool>(), prop::collection::vec(range, 1..4))
            .prop_map(|(negated, ranges)| Re::Class { negated, ranges }),
        1 => prop::sample::select(
            &[Look::TextStart, Look::TextEnd, Look::LineStart, Look::LineEnd, Look::Word, Look::NotWord][..]
        )
        .prop_map(Re::Look),
    ];
    leaf.prop_recursive(4, 24, 5, |part| {
        prop_oneof![
            4 => prop::collection::vec(part.clone(), 0..5).prop_map(Re::All),
            2 => prop::collection::vec(part.clone(), 1..4).prop_map(Re::OneOf),
            1 => part.clone().prop_map(|part| Re::Group(part.into())),
            2 => (any::<[bool; 4]>(), part.clone()).prop_map(|([folded, lines, dot_all, spaced], part)| {
                Re::Flagged(Flags { folded, lines, dot_all, spaced }, part.into())
            }),
            3 => (part, 0..3_u32, prop::option::of(0..3_u32), any::<bool>()).prop_map(
                |(part, least, more, lazy)| Re::Repeat {
                    part: part.into(),
                    least,
                    most: more.map(|more| least + more),
                    lazy,
                }
            ),
        ]
    })
}

/// Whether a glob fits a text: `*` any run without `/`, `**` any run, `?` one character.
pub(crate) fn glob_fits(glob: &[char], text: &[char]) -> bool {
    match glob {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => (0..=text.len()).any(|taken| glob_fits(rest, &text[taken..])),
        ['*', rest @ ..] => (0..=text.len())
            .take_while(|taken| !text[..*taken].contains(&'/'))
            .any(|taken| glob_fits(rest, &text[taken..])),
        ['?', rest @ ..] => !text.is_empty() && glob_fits(rest, &text[1..]),
        [literal, rest @ ..] => text.first() == Some(literal) && glob_fits(rest, &text[1..]),
    }
}
