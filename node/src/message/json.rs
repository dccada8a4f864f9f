//! The grammar of JSON (RFC 8259), checked in one pass without recursion and without a tree.

use std::borrow::Cow;

use super::strings::{find_special, unescape_inner};

/// What the grammar allows where the cursor stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected(pub(super) &'static str);

/// A valid JSON string as written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quoted<'a> {
    /// What stands between the quotes.
    inner: &'a str,
    /// Whether it has escapes, and so says something else than `inner`.
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// What the string says.
    #[inline]
    pub(super) fn text(self) -> Cow<'a, str> {
        if self.escaped { unescape_inner(self.inner) } else { Cow::Borrowed(self.inner) }
    }
}

/// A place in a text that is JSON up to there; on an error, the place of the first bad byte.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning of `text`.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// How many bytes lie behind the cursor.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes back to an earlier place.
    pub(super) fn rewind(&mut self, to: usize) {
        self.at = to;
    }

    /// The text from an earlier place up to another.
    #[inline]
    pub(super) fn slice(&self, from: usize, to: usize) -> &'a str {
        // Both ends stand at ASCII characters of the grammar, so this is never empty by mistake.
        self.text.get(from..to).unwrap_or_default()
    }

    /// Skips whitespace and looks at what follows: the first byte of a token, or 0 at the end.
    #[inline]
    pub(super) fn token(&mut self) -> u8 {
        loop {
            match self.peek() {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return byte,
            }
        }
    }

    /// Steps over the byte that [`token`](Self::token) showed.
    #[inline]
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    /// Steps over the name of a field and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Quoted<'a>, Expected> {
        self.begin_key()?;
        let key = self.string()?;
        self.end_key()?;
        Ok(key)
    }

    /// Steps over the string that begins here.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Quoted<'a>, Expected> {
        let start = self.at + 1;
        let escaped = !self.skip_plain_string();
        if escaped {
            self.skip_escapes()?;
        }
        Ok(Quoted { inner: self.slice(start, self.at - 1), escaped })
    }

    /// Steps over one value of any kind and depth, with the whitespace before it.
    #[inline]
    pub(super) fn value(&mut self) -> Result<&'a str, Expected> {
        let first = self.token();
        let start = self.at;
        match first {
            b'"' => self.skip_string()?,
            b'{' | b'[' => self.skip_nested()?,
            _ => self.skip_scalar(first)?,
        }
        Ok(self.slice(start, self.at))
    }

    /// Makes sure that nothing but whitespace follows.
    pub(super) fn end(&mut self) -> Result<(), Expected> {
        self.token();
        if self.at == self.text.len() { Ok(()) } else { Err(Expected("the end of the text")) }
    }

    #[inline]
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    /// Steps over the array or object that begins here, keeping one bit for each level.
    fn skip_nested(&mut self) -> Result<(), Expected> {
        let mut open = Nesting::default();
        loop {
            let first = self.token();
            match first {
                b'"' => self.skip_string()?,
                b'{' => {
                    self.step();
                    if self.token() != b'}' {
                        open.push(Kind::Object);
                        self.skip_key()?;
                        continue;
                    }
                    self.step();
                }
                b'[' => {
                    self.step();
                    if self.token() != b']' {
                        open.push(Kind::Array);
                        continue;
                    }
                    self.step();
                }
                _ => self.skip_scalar(first)?,
            }
            if self.close(&mut open)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. Says whether that was all; if not, a value follows.
    #[inline]
    fn close(&mut self, open: &mut Nesting) -> Result<bool, Expected> {
        while let Some(innermost) = open.innermost() {
            match (self.token(), innermost) {
                (b',', Kind::Array) => {
                    self.step();
                    return Ok(false);
                }
                (b',', Kind::Object) => {
                    self.step();
                    self.skip_key()?;
                    return Ok(false);
                }
                (b']', Kind::Array) | (b'}', Kind::Object) => {
                    self.step();
                    open.pop();
                }
                (_, Kind::Array) => return Err(Expected("',' or ']'")),
                (_, Kind::Object) => return Err(Expected("',' or '}'")),
            }
        }
        Ok(true)
    }

    #[inline]
    fn skip_key(&mut self) -> Result<(), Expected> {
        self.begin_key()?;
        self.skip_string()?;
        self.end_key()
    }

    #[inline]
    fn begin_key(&mut self) -> Result<(), Expected> {
        if self.token() == b'"' { Ok(()) } else { Err(Expected("a field's name in quotes")) }
    }

    #[inline]
    fn end_key(&mut self) -> Result<(), Expected> {
        if self.token() != b':' {
            return Err(Expected("':'"));
        }
        self.step();
        Ok(())
    }

    /// Steps over the string whose quote is here.
    #[inline]
    fn skip_string(&mut self) -> Result<(), Expected> {
        if self.skip_plain_string() { Ok(()) } else { self.skip_escapes() }
    }

    /// [`skip_string`](Self::skip_string), if it has no escapes; if not, up to what is not plain.
    #[inline]
    fn skip_plain_string(&mut self) -> bool {
        self.at = find_special(self.text.as_bytes(), self.at + 1);
        let closes = self.peek() == b'"';
        self.at += usize::from(closes);
        closes
    }

    /// The rest of [`skip_string`](Self::skip_string) from the first byte that is not plain.
    fn skip_escapes(&mut self) -> Result<(), Expected> {
        loop {
            match self.peek() {
                b'"' => break,
                b'\\' => self.skip_escape()?,
                _ if self.at >= self.text.len() => return Err(Expected("a closing quote")),
                _ => return Err(Expected("an escape, e.g. \\n, for a control character")),
            }
            self.at = find_special(self.text.as_bytes(), self.at);
        }
        self.at += 1;
        Ok(())
    }

    fn skip_escape(&mut self) -> Result<(), Expected> {
        self.at += 1;
        match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                Ok(())
            }
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_ascii_hexdigit() {
                        return Err(Expected("four hexadecimal digits after \\u"));
                    }
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(Expected("one of \"\\/bfnrtu after a backslash")),
        }
    }

    /// Steps over a number, `true`, `false` or `null`.
    fn skip_scalar(&mut self, first: u8) -> Result<(), Expected> {
        match first {
            b'-' | b'0'..=b'9' => self.skip_number(),
            b't' => self.skip_literal("true"),
            b'f' => self.skip_literal("false"),
            b'n' => self.skip_literal("null"),
            _ => Err(Expected("a JSON value")),
        }
    }

    fn skip_literal(&mut self, literal: &'static str) -> Result<(), Expected> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(literal.as_bytes()) {
            return Err(Expected(literal));
        }
        self.at += literal.len();
        Ok(())
    }

    /// RFC 8259 section 6; of any length and size, since nobody here calculates with it.
    fn skip_number(&mut self) -> Result<(), Expected> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.skip_digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.skip_digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    fn skip_digits(&mut self) -> Result<(), Expected> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits == 0 { Err(Expected("a digit")) } else { Ok(()) }
    }
}

/// What a level of nesting is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Object,
}

/// The arrays and objects that are open, one bit each: 64 levels in place, deeper ones on the heap,
/// at most an eighth of the message's length.
#[derive(Default)]
struct Nesting {
    depth: usize,
    /// The innermost levels, the lowest bit innermost; a set bit is an object.
    kinds: u64,
    /// Full words of the levels further out.
    outer: Vec<u64>,
}

impl Nesting {
    #[inline]
    fn push(&mut self, kind: Kind) {
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.kinds);
        }
        self.kinds = self.kinds << 1 | u64::from(kind == Kind::Object);
        self.depth += 1;
    }

    #[inline]
    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.kinds >>= 1;
        if self.depth != 0 && self.depth.is_multiple_of(64) {
            self.kinds = self.outer.pop().unwrap_or_default();
        }
    }

    #[inline]
    fn innermost(&self) -> Option<Kind> {
        match (self.depth, self.kinds & 1) {
            (0, _) => None,
            (_, 0) => Some(Kind::Array),
            (_, _) => Some(Kind::Object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nesting_is_a_stack(pushes in prop::collection::vec((any::<bool>(), 0..3_usize), 0..400)) {
            let mut nesting = Nesting::default();
            let mut model = Vec::new();
            for (object, pops) in pushes {
                let kind = if object { Kind::Object } else { Kind::Array };
                nesting.push(kind);
                model.push(kind);
                for _ in 0..pops.saturating_sub(1).min(model.len()) {
                    nesting.pop();
                    model.pop();
                }
                prop_assert!(nesting.innermost() == model.last().copied());
                prop_assert_eq!(nesting.depth, model.len());
            }
            while let Some(kind) = model.pop() {
                prop_assert!(nesting.innermost() == Some(kind));
                nesting.pop();
            }
            prop_assert!(nesting.innermost().is_none());
        }
    }
}
