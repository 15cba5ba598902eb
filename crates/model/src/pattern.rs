//! Users' regular expressions: the one place that reads, bounds and runs them.
//!
//! Paths, values of headers and query parameters, and rewrites all come here, so that what translation refuses by name is
//! exactly what the data plane cannot run. A pattern runs in time linear in the text, whatever the pattern (no look-around, no
//! back-references), and its automaton is bounded in size.
//!
//! Text is bytes: `.` is any byte but a newline, and `\w`, `\d`, `\b` and case are those of ASCII, as nginx has them. A letter
//! outside ASCII stands for its UTF-8 bytes, and can't stand in a class (`[é]`).
//!
//! Left to others: which form of a path a pattern is held against, and percent-encoding of what a rewrite yields.

use std::{error, fmt};

use regex_automata::{
    Anchored, Input, MatchKind, PatternSet,
    meta::{self, Regex},
};
use regex_syntax::{
    ParserBuilder, ast,
    hir::{self, Hir, Look},
};

/// The longest pattern that is read, in bytes. An Ingress path of ingress-nginx's world seldom has 200.
pub const MAX_PATTERN_LENGTH: usize = 4096;

/// How deep groups may nest. The parser's memory and stack grow with it, and no path needs ten.
pub const MAX_PATTERN_DEPTH: u32 = 50;

/// The largest automaton of one pattern, in bytes. `(/[^/]{1,100}){1,20}` takes some 50 KiB; what takes more than this is a
/// counted repetition of counted repetitions.
pub const MAX_AUTOMATON_SIZE: usize = 1 << 20;

/// The largest automaton of many patterns together. Beyond it they are split into several.
pub const MAX_COMBINED_SIZE: usize = 4 << 20;

/// The most patterns in one automaton. The states of its search grow with the number of patterns: with too many they don't fit the cache,
/// and the search falls back on simulating all patterns side by side, a hundred times slower. Sixteen scans for 1 000 patterns cost far less.
const MAX_COMBINED_PATTERNS: usize = 64;

/// Memory that one thread may hold to cache states of one pattern. When it is full the search goes on, only slower.
const CACHE_SIZE: usize = 256 << 10;

/// Why a pattern is refused. One line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    TooLong { length: usize },
    LookAround { at: usize },
    BackReference { at: usize },
    Syntax { at: usize, message: String },
    TooLarge,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => {
                write!(f, "the regular expression is {length} bytes long; at most {MAX_PATTERN_LENGTH} are allowed")
            }
            Self::LookAround { at } => write!(
                f,
                "the regular expression uses look-around ((?=, (?!, (?<=, (?<!) at character {at}, which is not supported: it can't be \
                 matched in linear time"
            ),
            Self::BackReference { at } => write!(
                f,
                "the regular expression refers back to a group (\\1) at character {at}, which is not supported: it can't be matched in \
                 linear time"
            ),
            Self::Syntax { at, message } => write!(f, "not a regular expression: {message}, at character {at}"),
            Self::TooLarge => {
                write!(f, "the regular expression is too large once its repetitions are counted out; use smaller counts")
            }
        }
    }
}

impl error::Error for PatternError {}

impl PatternError {
    fn read(error: &regex_syntax::Error) -> Self {
        match error {
            regex_syntax::Error::Parse(error) => {
                let at = error.span().start.column;
                match error.kind() {
                    ast::ErrorKind::UnsupportedLookAround => Self::LookAround { at },
                    ast::ErrorKind::UnsupportedBackreference => Self::BackReference { at },
                    kind => Self::Syntax { at, message: kind.to_string() },
                }
            }
            regex_syntax::Error::Translate(error) => {
                let message = match error.kind() {
                    hir::ErrorKind::UnicodeNotAllowed | hir::ErrorKind::UnicodePropertyNotFound => {
                        "letters outside ASCII can't stand in a class or be compared without regard to case".to_owned()
                    }
                    kind => kind.to_string(),
                };
                Self::Syntax { at: error.span().start.column, message }
            }
            other => Self::Syntax { at: 1, message: other.to_string().lines().last().unwrap_or_default().to_owned() },
        }
    }
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    regex: Regex,
}

impl Pattern {
    /// Whether the text matches. Takes time linear in the text.
    pub fn is_match(&self, text: impl AsRef<[u8]>) -> bool {
        self.regex.is_match(text.as_ref())
    }

    /// How many groups it captures.
    pub fn groups(&self) -> usize {
        // The whole match is one, too.
        self.regex.captures_len().saturating_sub(1)
    }

    /// `replacement` with `$1` to `$9` replaced by what the groups matched (nothing, for one that took no part or does not exist);
    /// any other `$` stands for itself. None if the text does not match.
    pub fn rewrite(&self, text: impl AsRef<[u8]>, replacement: &str) -> Option<Vec<u8>> {
        let text = text.as_ref();
        let mut groups = self.regex.create_captures();
        self.regex.captures(text, &mut groups);
        if !groups.is_match() {
            return None;
        }
        let mut result = Vec::with_capacity(replacement.len() + text.len());
        let mut bytes = replacement.bytes().peekable();
        while let Some(byte) = bytes.next() {
            match bytes.peek() {
                Some(digit @ b'1'..=b'9') if byte == b'$' => {
                    let span = groups.get_group(usize::from(digit - b'0'));
                    result.extend_from_slice(span.and_then(|span| text.get(span.range())).unwrap_or_default());
                    bytes.next();
                }
                _ => result.push(byte),
            }
        }
        Some(result)
    }
}

/// A pattern for a path: held against it from its start, and not to its end unless the pattern says so.
pub fn compile_path(pattern: &str, ignore_case: bool) -> Result<Pattern, PatternError> {
    compile(&from_start(parse(pattern, ignore_case)?))
}

/// The pattern that is held from the start of a path where nginx holds `^` and this text: `^` binds the first part of a bare `|` alone, and
/// the others may begin anywhere. None: there is no bare `|`, and the text is that pattern itself.
pub fn after_nginx_anchor(pattern: &str) -> Option<String> {
    let parsed = ast::parse::ParserBuilder::new().nest_limit(MAX_PATTERN_DEPTH).build().parse(pattern).ok()?;
    let ast::Ast::Alternation(parts) = &parsed else { return None };
    let (first, rest) = parts.asts.split_first()?;
    let first = pattern.get(..first.span().end.offset)?;
    let rest = pattern.get(rest.first()?.span().start.offset..)?;
    Some(format!("{first}|(?s:.*)(?:{rest})"))
}

/// What a path must begin with for a pattern to hold it, as far as that can be told from the text alone: all before the first character that
/// has a meaning in patterns. Also good for texts that are no pattern.
pub fn literal_start(pattern: &str) -> &str {
    let (mut depth, mut escaped, mut in_class) = (0_usize, false, false);
    let bare_bar = pattern.bytes().any(|byte| {
        match byte {
            _ if escaped => {
                escaped = false;
                return false;
            }
            b'\\' => escaped = true,
            b']' => in_class = false,
            _ if in_class => {}
            b'[' => in_class = true,
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'|' => return depth == 0,
            _ => {}
        }
        false
    });
    if bare_bar {
        return "/";
    }
    let end = pattern.find(['^', '$', '[', ']', '(', ')', '{', '}', '*', '+', '?', '.', '|', '\\']).unwrap_or(pattern.len());
    let (literal, rest) = pattern.split_at(end);
    // A count concerns the last character before it, which may then be absent.
    let optional = rest.starts_with(['*', '?', '{']);
    let literal = if optional {
        literal.char_indices().next_back().and_then(|(last, _)| literal.get(..last)).unwrap_or_default()
    } else {
        literal
    };
    if literal.is_empty() { "/" } else { literal }
}

/// A pattern for the value of a header or query parameter: the whole value has to match.
pub fn compile_value(pattern: &str) -> Result<Pattern, PatternError> {
    let whole = Hir::concat(vec![Hir::look(Look::Start), parse(pattern, false)?, Hir::look(Look::End)]);
    compile(&whole)
}

/// A pattern that a path is rewritten by: looked for anywhere in it. See [`Pattern::rewrite`].
pub fn compile_rewrite(pattern: &str, ignore_case: bool) -> Result<Pattern, PatternError> {
    compile(&parse(pattern, ignore_case)?)
}

/// Many path patterns, in the order in which they are to be tried, that cost few scans of the path together.
#[derive(Debug, Default)]
pub struct PathPatterns {
    groups: Vec<Group>,
}

/// Patterns that fit into one automaton.
#[derive(Debug)]
struct Group {
    /// The place in the caller's list of each pattern of the automaton.
    places: Vec<usize>,
    regex: Regex,
}

impl PathPatterns {
    /// Each pattern comes with whether case is to be ignored. Those that [`compile_path`] refuses never match: it is for translation to
    /// refuse them by name.
    pub fn new<'p>(patterns: impl IntoIterator<Item = (&'p str, bool)>) -> Self {
        let parsed: Vec<(usize, Hir)> = patterns
            .into_iter()
            .enumerate()
            .filter_map(|(place, (pattern, ignore_case))| Some((place, from_start(parse(pattern, ignore_case).ok()?))))
            .collect();
        let mut groups = Vec::new();
        for patterns in parsed.chunks(MAX_COMBINED_PATTERNS) {
            combine(patterns, &mut groups);
        }
        Self { groups }
    }

    /// The places of the patterns that match this path, ascending. Nothing is scanned before the first is asked for.
    pub fn matches<'s, 't>(&'s self, path: &'t [u8]) -> impl Iterator<Item = usize> + use<'s, 't> {
        self.groups.iter().flat_map(move |group| {
            let input = Input::new(path).anchored(Anchored::Yes);
            let mut found = PatternSet::new(group.places.len());
            group.regex.which_overlapping_matches(&input, &mut found);
            let ids: Vec<usize> = found.iter().map(|id| id.as_usize()).collect();
            ids.into_iter().filter_map(|id| group.places.get(id).copied())
        })
    }
}

/// Puts the patterns into as few automata as the size limit allows, keeping their order.
fn combine(patterns: &[(usize, Hir)], groups: &mut Vec<Group>) {
    if patterns.is_empty() {
        return;
    }
    let single = patterns.len() == 1;
    let limit = if single { MAX_AUTOMATON_SIZE } else { MAX_COMBINED_SIZE };
    let hirs: Vec<&Hir> = patterns.iter().map(|(_, hir)| hir).collect();
    match builder(limit, MatchKind::All).build_many_from_hir(&hirs) {
        Ok(regex) => groups.push(Group { places: patterns.iter().map(|(place, _)| *place).collect(), regex }),
        Err(_) if single => {}
        Err(_) => {
            let (first, second) = patterns.split_at(patterns.len() / 2);
            combine(first, groups);
            combine(second, groups);
        }
    }
}

fn parse(pattern: &str, ignore_case: bool) -> Result<Hir, PatternError> {
    if pattern.len() > MAX_PATTERN_LENGTH {
        return Err(PatternError::TooLong { length: pattern.len() });
    }
    ParserBuilder::new()
        .case_insensitive(ignore_case)
        .unicode(false)
        .utf8(false)
        .nest_limit(MAX_PATTERN_DEPTH)
        .build()
        .parse(pattern)
        .map_err(|error| PatternError::read(&error))
}

/// Joined as syntax trees, not as text: `a|b` stays one unit, and a pattern can't close a group that it did not open.
fn from_start(hir: Hir) -> Hir {
    Hir::concat(vec![Hir::look(Look::Start), hir])
}

fn compile(hir: &Hir) -> Result<Pattern, PatternError> {
    let regex = builder(MAX_AUTOMATON_SIZE, MatchKind::LeftmostFirst).build_from_hir(hir).map_err(|_| PatternError::TooLarge)?;
    Ok(Pattern { regex })
}

fn builder(size: usize, kind: MatchKind) -> meta::Builder {
    let config = Regex::config()
        .match_kind(kind)
        .utf8_empty(false)
        .nfa_size_limit(Some(size))
        .hybrid_cache_capacity(CACHE_SIZE)
        // A full DFA buys little on texts as short as paths, and costs most of the time to compile.
        .dfa(false);
    let mut builder = Regex::builder();
    builder.configure(config);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_held_against_the_pattern_from_their_start_and_not_to_their_end() {
        let pattern = compile_path("/foo|/bar", false).unwrap();
        for (path, held) in
            [("/foo", true), ("/foobar", true), ("/bar/x", true), ("/x/foo", false), ("/x/bar", false), ("/FOO", false)]
        {
            assert_eq!(pattern.is_match(path), held, "{path}");
        }
        assert!(compile_path("/foo", true).unwrap().is_match("/FOO"));
        assert!(!compile_path("/foo$", false).unwrap().is_match("/foo/"));
        assert!(compile_path("^/foo", false).unwrap().is_match("/foo"), "an anchor of the user's own does no harm");
    }

    #[test]
    fn the_anchor_of_nginx_binds_the_first_part_of_a_bare_bar() {
        for (text, paths) in
            [("/static|\\.js$", &["/static/x", "/app/x.js", "/x\n.js"][..]), ("/one|/two|/three", &["/one", "/z/two", "/z/three"])]
        {
            let pattern = compile_path(&after_nginx_anchor(text).unwrap(), true).unwrap();
            for path in paths {
                assert!(pattern.is_match(path), "{text} {path}");
            }
            for path in ["/x/static", "/z/one", "/"] {
                assert!(!pattern.is_match(path), "{text} {path}");
            }
        }
        for text in ["/(a|b)", "/a", "/[|]", "/a(", r"/a\|b"] {
            assert_eq!(after_nginx_anchor(text), None, "{text}");
        }
    }

    #[test]
    fn a_literal_start_is_never_longer_than_what_the_pattern_holds() {
        for (text, start) in [
            ("/admin(?!/public).*", "/admin"),
            ("/(?!public).*", "/"),
            ("/admins?(?=x)", "/admin"),
            ("/a*(", "/"),
            ("/a{0,1}(?!b)", "/"),
            ("/a|/b(?!c)", "/"),
            ("/a[(]|/b(?!c)", "/"),
            ("/a[|](?!c)", "/a"),
            ("/a(b|c)(?!d)", "/a"),
            (r"/a\.b(?!d)", "/a"),
            ("/plain", "/plain"),
            ("/é?(", "/"),
            ("", "/"),
        ] {
            assert_eq!(literal_start(text), start, "{text}");
        }
    }

    #[test]
    fn values_match_as_a_whole() {
        let pattern = compile_value("a|ab").unwrap();
        for (value, held) in [("a", true), ("ab", true), ("abc", false), ("ba", false), ("", false)] {
            assert_eq!(pattern.is_match(value), held, "{value}");
        }
        assert!(compile_value("").unwrap().is_match(""));
        assert!(compile_value(".").unwrap().is_match([0xff]), "a value need not be UTF-8");
    }

    #[test]
    fn a_rewrite_puts_groups_into_its_replacement() {
        let pattern = compile_rewrite("/something(/|$)(.*)", true).unwrap();
        for (path, replacement, result) in [
            ("/something/new", "/$2", Some("/new")),
            ("/SOMETHING", "/$2", Some("/")),
            ("/other", "/$2", None),
            ("/something/a", "/$9$2$", Some("/a$")),
            ("/something/a", "/$$2$x", Some("/$a$x")),
        ] {
            let rewritten = pattern.rewrite(path, replacement).map(|path| String::from_utf8(path).unwrap());
            assert_eq!(rewritten.as_deref(), result, "{path} {replacement}");
        }
        assert_eq!(compile_rewrite("/(.*)", false).unwrap().rewrite(b"/\xff\xfe", "/$1").unwrap(), b"/\xff\xfe");
    }

    #[test]
    fn what_is_refused_is_refused_with_a_sentence_on_one_line() {
        for (pattern, part) in [
            ("/(?!admin)", "look-around"),
            ("/(?<=x)y", "look-around"),
            (r"/(.)\1", "refers back"),
            ("/(", "unclosed group"),
            ("/a)|(b", "unopened group"),
            ("/[z-a]", "at character 3"),
            ("/[é]", "ASCII"),
            (r"/\p{Greek}", "ASCII"),
            ("/((a{1000}){1000}){1000}", "too large"),
            (&"a".repeat(MAX_PATTERN_LENGTH + 1), "4097 bytes"),
            (&format!("{}{}", "(".repeat(60), ")".repeat(60)), "not a regular expression"),
        ] {
            let message = compile_path(pattern, true).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(part), "{pattern}: {message}");
            assert!(!message.contains('\n'), "{pattern}: {message}");
        }
    }

    #[test]
    fn a_comment_in_a_pattern_swallows_nothing_that_is_not_its_own() {
        let pattern = compile_value("(?x) a b # and so on").unwrap();
        assert!(pattern.is_match("ab"));
        assert!(!pattern.is_match("abc"));
    }

    #[test]
    fn letters_outside_ascii_stand_for_their_bytes() {
        assert!(compile_path("/é+", false).unwrap().is_match("/ééé"));
    }

    #[test]
    fn many_patterns_answer_in_their_order_and_broken_ones_never() {
        let patterns = PathPatterns::new([("/a/b", false), ("/(", false), ("/A", true), ("/b", false), ("/", false)]);
        let places = |path: &str| patterns.matches(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(places("/a/b/c"), [0, 2, 4]);
        assert_eq!(places("/b"), [3, 4]);
        assert_eq!(places("x/b"), [0_usize; 0]);
    }

    #[test]
    fn patterns_too_large_for_one_automaton_are_split_and_keep_their_order() {
        let texts: Vec<String> = (0..12).map(|n| format!("/(([a-z]{{1,50}}[0-9]){{1,{}}}x)?", 60 + n)).collect();
        for text in &texts {
            assert!(compile_path(text, false).is_ok(), "{text}");
        }
        let patterns = PathPatterns::new(texts.iter().map(|text| (text.as_str(), false)));
        assert!(patterns.groups.len() > 1, "one automaton held them all: the test tests nothing");
        assert_eq!(patterns.matches(b"/").collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    }
}
