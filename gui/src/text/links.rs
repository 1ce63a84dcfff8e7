//! Links in text: finding them, and saying where they go before they open.
//!
//! Pure. The law: what the user is shown is what is opened, byte for byte, with the host in the
//! letters the network uses; nothing invisible stays invisible.

use std::ops::Range;

/// What may be opened. Everything else is text.
const SCHEMES: [&str; 4] = ["https://", "http://", "mailto:", "kith:"];

/// Longer links are text: nobody reads them before opening.
pub const LINK_BYTES_MAX: usize = 2048;

/// The ranges of `line` that are links, in order and apart.
pub fn find(line: &str) -> Vec<Range<usize>> {
    let mut links = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let rest = &line[at..];
        // All schemes hold a colon: without one there is nothing to look for.
        let Some(colon) = rest.find(':') else { break };
        let start = SCHEMES.iter().find_map(|scheme| {
            let name = &scheme[..scheme.find(':').unwrap_or_default()];
            let start = (at + colon)
                .checked_sub(name.len())
                .filter(|start| *start >= at && line.is_char_boundary(*start))?;
            let fits = line
                .get(start..start + scheme.len())
                .is_some_and(|text| text.eq_ignore_ascii_case(scheme));
            let apart = !line[..start].chars().next_back().is_some_and(char::is_alphanumeric);
            (fits && apart).then_some((start, scheme.len()))
        });
        let after_colon = at + colon + 1;
        let Some((start, scheme)) = start else {
            at = after_colon;
            continue;
        };
        let end = start + end_of_link(&line[start..]);
        if end - start > scheme && end - start <= LINK_BYTES_MAX {
            links.push(start..end);
        }
        at = end.max(after_colon);
    }
    links
}

/// How many bytes from the start of `text` belong to the link: up to a space, without the
/// punctuation of the sentence around it.
fn end_of_link(text: &str) -> usize {
    let stop = |letter: char| {
        letter.is_whitespace() || letter.is_control() || "<>\"`«»“”".contains(letter)
    };
    // One byte more than a link may have tells that it is too long; what follows costs its square.
    let text = &text[..text.floor_char_boundary(LINK_BYTES_MAX + 4)];
    let mut end = text.find(stop).unwrap_or(text.len());
    while let Some(last) = text[..end].chars().next_back() {
        let opening = match last {
            ')' => Some('('),
            ']' => Some('['),
            '}' => Some('{'),
            _ => None,
        };
        // A closing bracket belongs to the link only if it was opened there.
        let unbalanced = opening.is_some_and(|open| {
            text[..end].matches(open).count() < text[..end].matches(last).count()
        });
        if !(unbalanced || ".,;:!?'*_~…".contains(last)) {
            break;
        }
        end -= last.len_utf8();
    }
    end
}

/// Where a link goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What is opened, in full: shown as it is.
    pub whole: String,
    /// Whom it asks, in ASCII; the address for mail; empty for kith's own links.
    pub host: String,
    /// What to look out for, in sentences.
    pub notes: Vec<String>,
}

impl Target {
    /// Whether kith itself understands this link.
    pub fn is_ours(&self) -> bool {
        self.whole.starts_with("kith:")
    }
}

/// Explains a link as found by [`find`].
pub fn explain(link: &str) -> Target {
    let lower = link.to_ascii_lowercase();
    let Some(scheme) = SCHEMES.iter().find(|scheme| lower.starts_with(*scheme)) else {
        return Target { whole: visible(link), host: String::new(), notes: Vec::new() };
    };
    let rest = &link[scheme.len()..];
    match *scheme {
        "kith:" => Target {
            whole: format!("kith:{}", visible(rest)),
            host: String::new(),
            notes: Vec::new(),
        },
        "mailto:" => {
            let host = visible(rest.split('?').next().unwrap_or_default());
            Target { whole: format!("mailto:{}", visible(rest)), host, notes: Vec::new() }
        }
        _ => explain_web(scheme, rest),
    }
}

fn explain_web(scheme: &str, rest: &str) -> Target {
    let authority_end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    let (user, host_and_port) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let (host, port) = match host_and_port.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|digit| digit.is_ascii_digit()) => {
            (host, Some(port))
        }
        _ => (host_and_port, None),
    };
    // What IDNA rejects is shown escaped, not repaired: the browser decides.
    let ascii = idna::domain_to_ascii(host).unwrap_or_else(|_| escaped(host));
    let mut notes = Vec::new();
    if !host.is_ascii() || ascii.split('.').any(|label| label.starts_with("xn--")) {
        notes.push(format!(
            "The name is written with letters that can look like others: “{}”. The network knows it as {ascii}.",
            idna::domain_to_unicode(&ascii).0
        ));
    }
    if let Some(user) = user {
        notes.push(format!(
            "“{}” before the @ is not where it goes: it goes to {ascii}.",
            visible(user)
        ));
    }
    if scheme == "http://" {
        notes.push("It is not encrypted: others on the way can read and change it.".to_owned());
    }
    let mut whole = scheme.to_owned();
    if let Some(user) = user {
        whole.push_str(&escaped(user));
        whole.push('@');
    }
    whole.push_str(&ascii);
    if let Some(port) = port {
        whole.push(':');
        whole.push_str(port);
    }
    whole.push_str(&visible(path));
    Target { whole, host: ascii, notes }
}

/// Letters stay readable; what cannot be seen or turns the direction of text is percent-encoded.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_hidden(letter) { push_escaped(letter, &mut out) } else { out.push(letter) }
    }
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_graphic() { out.push(letter) } else { push_escaped(letter, &mut out) }
    }
    out
}

fn push_escaped(letter: char, out: &mut String) {
    let mut bytes = [0; 4];
    for byte in letter.encode_utf8(&mut bytes).bytes() {
        out.push_str(&format!("%{byte:02X}"));
    }
}

/// Controls, spaces, and the format characters that draw nothing.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || letter.is_whitespace()
        || matches!(letter,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFC}'
            | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> Vec<&str> {
        find(line).into_iter().map(|range| &line[range]).collect()
    }

    #[test]
    fn links_are_found_without_the_sentence_around_them() {
        assert_eq!(found("See https://a.example/b?c=d#e."), ["https://a.example/b?c=d#e"]);
        assert_eq!(found("(https://a.example/x_(y))"), ["https://a.example/x_(y)"]);
        assert_eq!(
            found("HTTP://A.example, mailto:ana@b.example!"),
            ["HTTP://A.example", "mailto:ana@b.example"]
        );
        assert_eq!(found("take kith:1abc\nor"), ["kith:1abc"]);
        assert_eq!(found("اقرأ https://مثال.example/أ الآن"), ["https://مثال.example/أ"]);
        assert!(found("Türkçe: naïve, ü: ة: 18:30").is_empty());
        for none in [
            "xhttps://a",
            "https://",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "12:30",
            "kith:",
        ] {
            assert!(found(none).is_empty(), "{none:?} is not a link");
        }
    }

    #[test]
    fn hostile_text_costs_little() {
        for unit in ["https://a", "https://)", ":", "kith:", "mailto:(((((((("] {
            let text = unit.repeat(64 * 1024 / unit.len());
            let begun = std::time::Instant::now();
            assert!(find(&text).iter().all(|link| link.len() <= LINK_BYTES_MAX));
            assert!(begun.elapsed().as_secs() < 5, "{unit:?} took {:?}", begun.elapsed());
        }
    }

    #[test]
    fn lookalike_hosts_are_shown_as_the_network_knows_them() {
        let target = explain("https://аррӏе.com/login");
        assert_eq!(target.host, "xn--80ak6aa92e.com");
        assert_eq!(target.whole, "https://xn--80ak6aa92e.com/login");
        assert!(target.notes[0].contains("аррӏе.com"), "{:?}", target.notes);
        // Written in punycode by the sender, it is told all the same.
        assert_eq!(explain("https://xn--80ak6aa92e.com").notes.len(), 1);
        let plain = explain("https://example.org/a_b?c=1");
        assert_eq!((plain.whole.as_str(), plain.notes.len()), ("https://example.org/a_b?c=1", 0));
    }

    #[test]
    fn the_part_before_the_at_sign_deceives_nobody() {
        let target = explain("https://bank.example@evil.example:8080/x");
        assert_eq!(target.host, "evil.example");
        assert!(target.notes[0].contains("goes to evil.example"));
        assert_eq!(target.whole, "https://bank.example@evil.example:8080/x");
        // A backslash ends the host for browsers.
        assert_eq!(explain("https://evil.example\\@bank.example").host, "evil.example");
    }

    #[test]
    fn nothing_invisible_stays_invisible() {
        let target = explain("https://a.example/\u{202E}gpj.exe\u{200B}");
        assert_eq!(target.whole, "https://a.example/%E2%80%AEgpj.exe%E2%80%8B");
        assert!(explain("http://a.example").notes[0].contains("not encrypted"));
    }
}
