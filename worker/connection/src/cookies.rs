//! Cookies that are too many for a head. A browser sends them to every port of a host, and to every
//! name below a domain, whoever's page has set them; so they must cost nobody an answer. They are
//! kept back until the rest of a head has come, and go on behind it where they fit: what counts
//! against a head's bound is the head without them.
//!
//! Pure: bytes in, bytes out. A line ends where httparse ends it, with a line feed; nothing else of
//! a head is looked at or moved.

/// In lower case, as it is compared.
const COOKIE: &[u8] = b"cookie:";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Behind a head: in a body, or in a head whose beginning nobody saw.
    Behind {
        /// Whether anything has come there.
        followed: bool,
    },
    /// Before a request's first line.
    Front,
    /// In a line that goes on.
    Line,
    /// At a line's beginning, of which all that came could be a cookie's.
    Beginning,
    /// Behind the carriage return of what may be the empty line.
    Return,
    /// In a cookie's line.
    Cookie,
}

/// One connection's.
#[derive(Debug)]
pub struct Cookies {
    at: At,
    /// What counts of a head, and what all of it may come to.
    most: usize,
    /// Bytes of this head that went on.
    passed: usize,
    /// The beginning of a line that may be a cookie's.
    begun: Vec<u8>,
    /// Whole lines, and the last one's beginning. `None` where there are too many.
    held: Option<Vec<u8>>,
}

impl Cookies {
    pub fn new(most: usize) -> Self {
        Self { at: At::Front, most, passed: 0, begun: Vec::new(), held: Some(Vec::new()) }
    }

    /// How much more may come out than goes in.
    pub fn held(&self) -> usize {
        self.held.as_ref().map_or(0, Vec::len) + self.begun.len() + 1
    }

    /// What comes next belongs to no body. Where the last head was followed by something, a head
    /// may have begun already: then it is a line's end that cannot be told from a head's.
    pub fn between_bodies(&mut self, first: u8) {
        let begins = match self.at {
            At::Behind { followed } => !followed || !matches!(first, b'\r' | b'\n'),
            _ => false,
        };
        if begins {
            *self = Self::new(self.most);
        }
    }

    /// What goes on of these, in order.
    pub fn pass(&mut self, bytes: &[u8], mut on: impl FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some((&byte, behind)) = rest.split_first() {
            match (self.at, byte) {
                (At::Behind { .. }, _) => {
                    self.at = At::Behind { followed: true };
                    return on(rest);
                }
                (At::Front, b'\r' | b'\n') => {
                    on(&rest[..1]);
                    rest = behind;
                }
                (At::Front, _) => self.at = At::Line,
                (At::Line, _) => {
                    let (line, ended) = line(rest);
                    self.go_on(line, &mut on);
                    rest = &rest[line.len()..];
                    if ended {
                        self.at = At::Beginning;
                    }
                }
                // There is no room for the end of a head, so that nothing of it need be kept back.
                (At::Beginning, b'\r') if self.begun.is_empty() && self.passed + 2 > self.most => {
                    self.go_on(b"\r", &mut on);
                    self.at = At::Line;
                    rest = behind;
                }
                (At::Beginning, b'\r') if self.begun.is_empty() => {
                    self.at = At::Return;
                    rest = behind;
                }
                (At::Beginning, b'\n') if self.begun.is_empty() => {
                    self.end(b"\n", &mut on);
                    rest = behind;
                }
                (At::Beginning, _) if byte.to_ascii_lowercase() == COOKIE[self.begun.len()] => {
                    self.begun.push(byte);
                    rest = behind;
                    if self.begun.len() == COOKIE.len() {
                        let begun = std::mem::take(&mut self.begun);
                        self.hold(&begun);
                        self.at = At::Cookie;
                    }
                }
                (At::Beginning, _) => {
                    let begun = std::mem::take(&mut self.begun);
                    self.go_on(&begun, &mut on);
                    self.at = At::Line;
                }
                (At::Return, b'\n') => {
                    self.end(b"\r\n", &mut on);
                    rest = behind;
                }
                // No head has this, and whoever parses it says so.
                (At::Return, _) => {
                    self.go_on(b"\r", &mut on);
                    self.at = At::Line;
                }
                (At::Cookie, _) => {
                    let (line, ended) = line(rest);
                    self.hold(line);
                    rest = &rest[line.len()..];
                    if ended {
                        self.at = At::Beginning;
                    }
                }
            }
        }
    }

    /// What went on of a head that is not whole and was not parsed, with what was kept back of it:
    /// as somebody else must find it.
    pub fn give_back(&mut self, unread: &[u8]) -> Vec<u8> {
        let in_line = match self.at {
            At::Line => unread.iter().rev().take_while(|byte| **byte != b'\n').count(),
            _ => 0,
        };
        let (lines, begun) = unread.split_at(unread.len() - in_line);
        let held = match (self.held.take(), self.at) {
            // The rest of this line is still to be a cookie's.
            (None, At::Cookie) => COOKIE.to_vec(),
            (held, _) => held.unwrap_or_default(),
        };
        let ending: &[u8] = if self.at == At::Return { b"\r" } else { b"" };
        [lines, &held, &self.begun, begun, ending].concat()
    }

    fn go_on(&mut self, bytes: &[u8], on: &mut impl FnMut(&[u8])) {
        self.passed = self.passed.saturating_add(bytes.len());
        self.bound();
        on(bytes);
    }

    fn hold(&mut self, bytes: &[u8]) {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(bytes);
        }
        self.bound();
    }

    /// All of them are forgotten where they do not fit.
    fn bound(&mut self) {
        // With the empty line.
        let fit = |held: &Vec<u8>| self.passed + held.len() + 2 <= self.most;
        self.held = self.held.take().filter(fit);
    }

    /// The head is whole, with this line.
    fn end(&mut self, empty: &[u8], on: &mut impl FnMut(&[u8])) {
        if let Some(held) = self.held.take().filter(|held| !held.is_empty()) {
            on(&held);
        }
        on(empty);
        *self = Self { at: At::Behind { followed: false }, ..Self::new(self.most) };
    }
}

/// What of these is of the line that they begin in, and whether it ends in them.
fn line(bytes: &[u8]) -> (&[u8], bool) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..=end], true),
        None => (bytes, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 200;

    /// What comes out of these, in pieces of so many bytes.
    fn passed(cookies: &mut Cookies, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            cookies.pass(piece, |bytes| out.extend_from_slice(bytes));
        }
        out
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn cookies_go_behind_the_rest_of_a_head_and_bodies_are_left_alone() {
        let head = "GET / HTTP/1.1\r\nCookie: a=1\r\nhost: h\r\ncookies: x\r\nCOOKIE:b=2\r\n\r\n";
        let body = "cookie: not one\r\n\r\ncookie: nor this\r\n";
        let out = "GET / HTTP/1.1\r\nhost: h\r\ncookies: x\r\nCookie: a=1\r\nCOOKIE:b=2\r\n\r\n";
        for piece in 1..head.len() + body.len() {
            let mut cookies = Cookies::new(MOST);
            let found = passed(&mut cookies, format!("{head}{body}").as_bytes(), piece);
            assert_eq!(text(&found), format!("{out}{body}"), "{piece}");
        }
    }

    #[test]
    fn those_that_do_not_fit_are_forgotten_and_nothing_else_is() {
        let many = "x".repeat(MOST);
        let some = "x".repeat(100);
        for (lines, left) in [
            (format!("cookie: {many}\r\nhost: h\r\n"), "host: h\r\n".to_owned()),
            (format!("host: h\r\ncookie: {many}\r\n"), "host: h\r\n".to_owned()),
            (format!("host: h\r\ncookie: {some}\r\n"), format!("host: h\r\ncookie: {some}\r\n")),
            (format!("cookie: {some}\r\ncookie: {some}\r\nhost: h\r\n"), "host: h\r\n".to_owned()),
            (format!("cookie: {some}\r\nx: {some}\r\n"), format!("x: {some}\r\n")),
            (format!("x: {many}\r\nhost: h\r\n"), format!("x: {many}\r\nhost: h\r\n")),
        ] {
            let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
            for piece in [1, 7, 64, 1_000] {
                let found = passed(&mut Cookies::new(MOST), head(&lines).as_bytes(), piece);
                assert_eq!(text(&found), head(&left), "{piece}");
            }
        }
    }

    #[test]
    fn the_next_head_is_known_where_the_last_body_ends() {
        let many = format!("GET /2 HTTP/1.1\r\ncookie: {}\r\n\r\n", "x".repeat(MOST));
        let none = "GET /2 HTTP/1.1\r\n\r\n";
        for body in ["", "cookie: a body's\r\n", "a body"] {
            let mut cookies = Cookies::new(MOST);
            let first = format!("POST / HTTP/1.1\r\n\r\n{body}");
            assert_eq!(text(&passed(&mut cookies, first.as_bytes(), 99)), first);
            cookies.between_bodies(many.as_bytes()[0]);
            assert_eq!(text(&passed(&mut cookies, many.as_bytes(), 9)), none, "{body}");
        }
        // One that had begun in the same bytes as the body's end: its lines are lines all the same.
        for (begun, rest, out) in [
            (
                "GET /2 HT",
                "TP/1.1\r\ncookie: a\r\nx: y\r\n\r\n",
                "TP/1.1\r\nx: y\r\ncookie: a\r\n\r\n",
            ),
            ("GET /2 HTTP/1.1\r\nx: ", "cookie:\r\nx: y\r\n\r\ncookie: of a body", ""),
            ("GET /2 HTTP/1.1\r\nx: y\r", "\n\r\ncookie: of a body\r\nx: y", ""),
            ("GET /2 HTTP/1.1\r\nx: y\r\n", "\r\ncookie: of a body\r\nx: y", ""),
        ] {
            let mut cookies = Cookies::new(MOST);
            let first = format!("POST / HTTP/1.1\r\n\r\na body{begun}");
            passed(&mut cookies, first.as_bytes(), 99);
            cookies.between_bodies(rest.as_bytes()[0]);
            let found = text(&passed(&mut cookies, rest.as_bytes(), 99));
            assert_eq!(found, if out.is_empty() { rest } else { out }, "{begun:?}");
        }
    }

    proptest! {
        /// Whoever reads on after somebody else sees what one alone would have seen.
        #[test]
        fn a_head_can_change_hands_at_any_byte(
            lines in proptest::collection::vec("(cookie: |Cookie:|co|x: )[a-z]{0,30}", 0..6),
            cut in 0_usize..300,
        ) {
            let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let head = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            let cut = cut.min(head.len() - 1);
            let (first, second) = head.as_bytes().split_at(cut);
            let whole = passed(&mut Cookies::new(1_000), head.as_bytes(), 1_000);
            let mut one = Cookies::new(1_000);
            let unread = passed(&mut one, first, 11);
            let unread = one.give_back(&unread);
            let mut other = Cookies::new(1_000);
            let mut found = passed(&mut other, &unread, 13);
            found.extend(passed(&mut other, second, 17));
            let sorted = |bytes: &[u8]| {
                let mut lines: Vec<_> = text(bytes).lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            prop_assert_eq!(sorted(&found), sorted(&whole));
        }

        /// Nothing but whole lines of cookies is ever missing.
        #[test]
        fn no_bytes_break_it(bytes in "[cC]?[ookie:a\r\n ]{0,80}", piece in 1_usize..20) {
            let mut cookies = Cookies::new(40);
            let mut found = passed(&mut cookies, bytes.as_bytes(), piece);
            let at_once = passed(&mut Cookies::new(40), bytes.as_bytes(), 1_000);
            prop_assert_eq!(&found, &at_once);
            if !matches!(cookies.at, At::Behind { .. }) {
                found = cookies.give_back(&found);
            }
            prop_assert!(found.len() <= bytes.len() + COOKIE.len());
        }
    }
}
