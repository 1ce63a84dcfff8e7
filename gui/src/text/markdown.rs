//! Markdown-lite: bold, italic, strike, code, code blocks and quote lines, and links; nothing else.
//!
//! Pure: text in, paragraphs with styled ranges out. The law: what is not closed is not markup, and
//! the cost is linear in the length of the text, whatever a peer writes.

use std::ops::Range;

use super::links;

/// What a paragraph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Running text.
    Text,
    /// A line that began with `>`.
    Quote,
    /// A line between two fences of three backticks.
    Code,
}

/// How a range of a paragraph is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// `**so**`.
    pub bold: bool,
    /// `*so*` or `_so_`.
    pub italic: bool,
    /// `~~so~~`.
    pub strike: bool,
    /// `` `so` ``.
    pub code: bool,
}

/// One line of the source, without its markup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paragraph {
    /// What it is.
    pub kind: Kind,
    /// What is shown.
    pub text: String,
    /// Ranges of `text` that are set otherwise than plainly, in order.
    pub marks: Vec<(Range<usize>, Mark)>,
    /// Ranges of `text` that are links, in order, with their targets.
    pub links: Vec<(Range<usize>, String)>,
}

impl Paragraph {
    fn new(kind: Kind) -> Self {
        Self { kind, text: String::new(), marks: Vec::new(), links: Vec::new() }
    }

    /// Without markup and without links.
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::new(Kind::Text) }
    }
}

/// The paragraphs of a message.
pub fn parse(source: &str) -> Vec<Paragraph> {
    let lines: Vec<&str> = source.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    // Whether a fence at a line is ever closed: looked up from the end, once.
    let last_fence = lines.iter().rposition(|line| is_fence(line));
    let mut paragraphs = Vec::with_capacity(lines.len());
    let mut fenced = false;
    for (number, line) in lines.iter().enumerate() {
        if is_fence(line) && (fenced || last_fence > Some(number)) {
            fenced = !fenced;
        } else if fenced {
            paragraphs.push(Paragraph { text: (*line).to_owned(), ..Paragraph::new(Kind::Code) });
        } else if let Some(quoted) = line.strip_prefix('>') {
            paragraphs.push(inline(Kind::Quote, quoted.strip_prefix(' ').unwrap_or(quoted)));
        } else {
            paragraphs.push(inline(Kind::Text, line));
        }
    }
    paragraphs
}

/// One line without markup, for previews: `**so**` becomes `so`, lines are joined by spaces.
pub fn flatten(source: &str) -> String {
    let mut line = String::with_capacity(source.len());
    for paragraph in parse(source) {
        let text = paragraph.text.trim();
        if !text.is_empty() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(text);
        }
    }
    line
}

/// Three backticks, perhaps with the name of a language, and nothing else.
fn is_fence(line: &str) -> bool {
    line.strip_prefix("```")
        .is_some_and(|rest| rest.chars().all(|letter| letter.is_ascii_alphanumeric()))
}

/// The delimiters, longer ones first.
const DELIMITERS: [&str; 6] = ["***", "**", "~~", "`", "*", "_"];

fn inline(kind: Kind, line: &str) -> Paragraph {
    let mut paragraph = Paragraph::new(kind);
    let mut parser =
        Parser { line, links: links::find(line), none_after: [(0, usize::MAX); DELIMITERS.len()] };
    parser.run(0..line.len(), Mark::default(), &mut paragraph);
    paragraph
}

struct Parser<'a> {
    line: &'a str,
    links: Vec<Range<usize>>,
    /// Where a range ends in which no closing delimiter was found, and from where on there is none:
    /// asked once, not once per opening one.
    none_after: [(usize, usize); DELIMITERS.len()],
}

impl Parser<'_> {
    /// Sets `range` with `mark`. Recursion is as deep as there are kinds of marks: a delimiter of a
    /// mark that is already on is text.
    fn run(&mut self, range: Range<usize>, mark: Mark, out: &mut Paragraph) {
        let mut at = range.start;
        while at < range.end {
            if let Some(link) = self.link_at(at).filter(|link| link.end <= range.end) {
                let start = out.text.len();
                self.push(link.clone(), mark, out);
                out.links.push((start..out.text.len(), self.line[link.clone()].to_owned()));
                at = link.end;
            } else if let Some((inner, end, inside)) = self.opening(at, &range, mark) {
                if inside.code {
                    self.push(inner, inside, out);
                } else {
                    self.run(inner, inside, out);
                }
                at = end;
            } else {
                let step = self.line[at..].chars().next().map_or(1, char::len_utf8);
                self.push(at..at + step, mark, out);
                at += step;
            }
        }
    }

    fn push(&self, range: Range<usize>, mark: Mark, out: &mut Paragraph) {
        let start = out.text.len();
        out.text.push_str(&self.line[range]);
        let end = out.text.len();
        if mark == Mark::default() || start == end {
            return;
        }
        match out.marks.last_mut() {
            Some((last, same)) if *same == mark && last.end == start => last.end = end,
            _ => out.marks.push((start..end, mark)),
        }
    }

    fn link_at(&self, at: usize) -> Option<Range<usize>> {
        let next = self.links.partition_point(|link| link.start < at);
        self.links.get(next).filter(|link| link.start == at).cloned()
    }

    fn is_in_link(&self, at: usize) -> bool {
        let next = self.links.partition_point(|link| link.start < at);
        next > 0 && at < self.links[next - 1].end
    }

    /// If a delimiter opens here and closes within `range`: the inner range, where to go on, the mark.
    fn opening(
        &mut self,
        at: usize,
        range: &Range<usize>,
        mark: Mark,
    ) -> Option<(Range<usize>, usize, Mark)> {
        let rest = &self.line[at..range.end];
        let number = DELIMITERS.iter().position(|delimiter| rest.starts_with(delimiter))?;
        let delimiter = DELIMITERS[number];
        let inside = match delimiter {
            "***" if !mark.bold && !mark.italic => Mark { bold: true, italic: true, ..mark },
            "**" if !mark.bold => Mark { bold: true, ..mark },
            "~~" if !mark.strike => Mark { strike: true, ..mark },
            "`" => Mark { code: true, ..mark },
            "*" | "_" if !mark.italic => Mark { italic: true, ..mark },
            _ => return None,
        };
        let before = self.line[..at].chars().next_back();
        let start = at + delimiter.len();
        let opens = !before.is_some_and(char::is_alphanumeric)
            && self.line[start..range.end].chars().next().is_some_and(|next| !next.is_whitespace());
        let (none_in, none_from) = self.none_after[number];
        if !opens || (range.end == none_in && start >= none_from) {
            return None;
        }
        match self.closing(delimiter, start, range.end) {
            Some(end) => Some((start..end, end + delimiter.len(), inside)),
            None => {
                self.none_after[number] = (range.end, start);
                None
            }
        }
    }

    /// Where `delimiter` closes after `start`: after no space, before no letter, with something between.
    fn closing(&self, delimiter: &str, start: usize, end: usize) -> Option<usize> {
        let mut from = start;
        while let Some(found) = self.line[from..end].find(delimiter) {
            let at = from + found;
            let after = at + delimiter.len();
            let closes = at > start
                && !self.line[..at].chars().next_back().is_some_and(char::is_whitespace)
                && !self.line[after..].chars().next().is_some_and(char::is_alphanumeric)
                // `*a **b** c*`: two stars do not close one.
                && !(delimiter == "*" && (self.line[after..].starts_with('*') || self.line[..at].ends_with('*')))
                && !self.is_in_link(at);
            if closes {
                return Some(at);
            }
            from = after;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(source: &str) -> Vec<(String, Mark)> {
        let paragraphs = parse(source);
        assert_eq!(paragraphs.len(), 1, "{source:?} is one line");
        let line = &paragraphs[0];
        line.marks
            .iter()
            .map(|(range, mark)| (line.text[range.clone()].to_owned(), *mark))
            .collect()
    }

    const BOLD: Mark = Mark { bold: true, italic: false, strike: false, code: false };
    const ITALIC: Mark = Mark { bold: false, italic: true, strike: false, code: false };
    const STRIKE: Mark = Mark { bold: false, italic: false, strike: true, code: false };
    const CODE: Mark = Mark { bold: false, italic: false, strike: false, code: true };

    #[test]
    fn marks_are_found_and_removed() {
        assert_eq!(marked("a **b** c"), [("b".to_owned(), BOLD)]);
        assert_eq!(marked("*b* _c_"), [("b".to_owned(), ITALIC), ("c".to_owned(), ITALIC)]);
        assert_eq!(marked("~~gone~~."), [("gone".to_owned(), STRIKE)]);
        assert_eq!(marked("run `a *b* c`"), [("a *b* c".to_owned(), CODE)]);
        let both = Mark { italic: true, ..BOLD };
        assert_eq!(
            marked("**a *b* c**"),
            [("a ".to_owned(), BOLD), ("b".to_owned(), both), (" c".to_owned(), BOLD)]
        );
        assert_eq!(parse("a **b** c")[0].text, "a b c");
    }

    #[test]
    fn three_stars_are_both() {
        assert_eq!(marked("***b***"), [("b".to_owned(), Mark { italic: true, ..BOLD })]);
    }

    #[test]
    fn what_is_not_closed_is_text() {
        for source in
            ["2 * 3 * 4", "a*b*c", "snake_case_name", "**open", "* list", "~~", "`", "** a **"]
        {
            assert_eq!(parse(source)[0].text, source);
            assert!(marked(source).is_empty(), "{source:?} has no marks");
        }
    }

    #[test]
    fn lines_are_quotes_code_or_text() {
        let kinds: Vec<_> = parse("> said\nthen\n```rust\nlet *a* = 1;\n```\nend")
            .into_iter()
            .map(|paragraph| (paragraph.kind, paragraph.text))
            .collect();
        assert_eq!(
            kinds,
            [
                (Kind::Quote, "said".to_owned()),
                (Kind::Text, "then".to_owned()),
                (Kind::Code, "let *a* = 1;".to_owned()),
                (Kind::Text, "end".to_owned()),
            ]
        );
        assert_eq!(parse("```\nnever closed").len(), 2, "an open fence is text");
    }

    #[test]
    fn links_keep_their_underscores() {
        let line = &parse("see *https://a.example/x_y_z* now")[0];
        assert_eq!(line.text, "see https://a.example/x_y_z now");
        assert_eq!(line.links.len(), 1);
        assert_eq!(line.links[0].1, "https://a.example/x_y_z");
        assert_eq!(&line.text[line.links[0].0.clone()], "https://a.example/x_y_z");
    }

    #[test]
    fn previews_are_one_line() {
        assert_eq!(flatten("**Hi**\n\n> you\n`x`"), "Hi you x");
    }

    #[test]
    fn hostile_text_costs_linear_time() {
        // 64 KiB of openings that never close: quadratic search would take minutes.
        for unit in ["*a ", "**a _b ", "`a ", "~~a *b ", "https://a ", "> ", "```\n"] {
            let text = unit.repeat(64 * 1024 / unit.len());
            let begun = std::time::Instant::now();
            assert!(!parse(&text).is_empty());
            assert!(begun.elapsed().as_secs() < 5, "{unit:?} took {:?}", begun.elapsed());
        }
        let nested = format!("**x {} y**", "*a _b ~~c ".repeat(6000));
        let begun = std::time::Instant::now();
        assert_eq!(parse(&nested).len(), 1);
        assert!(begun.elapsed().as_secs() < 5, "nested took {:?}", begun.elapsed());
    }
}
