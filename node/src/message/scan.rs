//! One client message: which fields it has, and whether they are what PROTOCOL section 4 asks for.

use std::mem;

use smallvec::SmallVec;

use super::{
    ScanError, Scanned, Targets,
    json::{Cursor, Expected, Quoted},
    recipients::{Audience, Recipients},
};

/// Reads one client message (PROTOCOL section 4): all of it is valid UTF-8 and JSON (RFC 8259), with
/// no limit on nesting or on numbers, and its fields have the right types.
///
/// Keys are compared after their escapes are resolved. Where `to`, `type`, `ref` or `payload` is
/// repeated, the last one counts, and only that one is judged.
pub fn scan(bytes: &[u8]) -> Result<Scanned<'_>, ScanError> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| ScanError::NotUtf8)?;
    let mut cursor = Cursor::new(text);
    let mut found = Found::default();
    match read(&mut cursor, &mut found) {
        Ok(true) => found.judge(),
        Ok(false) => Err(ScanError::NotAnObject),
        Err(Expected(expected)) => Err(ScanError::NotJson { at: cursor.at(), expected }),
    }
}

/// Reads the whole text; says whether it is an object.
fn read<'a>(cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<bool, Expected> {
    let is_object = cursor.token() == b'{';
    if is_object {
        cursor.step();
        read_fields(cursor, found)?;
    } else {
        cursor.value()?;
    }
    cursor.end()?;
    Ok(is_object)
}

fn read_fields<'a>(cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<(), Expected> {
    if cursor.token() == b'}' {
        cursor.step();
        return Ok(());
    }
    loop {
        cursor.token();
        let start = cursor.at();
        let key = cursor.key()?;
        found.field(cursor, start, key)?;
        match cursor.token() {
            b',' => cursor.step(),
            b'}' => break,
            _ => return Err(Expected("',' or '}'")),
        }
    }
    cursor.step();
    found.close_run(cursor);
    Ok(())
}

/// The fields seen so far.
#[derive(Default)]
struct Found<'a> {
    to: &'a str,
    /// Whether there was a `to`, and the last one was an array of strings.
    to_is_strings: bool,
    recipients: Recipients<'a>,
    kind: Option<&'a str>,
    reference: Option<&'a str>,
    payload: Option<&'a str>,
    extras: SmallVec<[&'a str; 2]>,
    /// Where the extra fields right before this place begin and end.
    run: Option<(usize, usize)>,
}

impl<'a> Found<'a> {
    /// Reads the value of the field whose key began at `start`.
    #[inline]
    fn field(
        &mut self,
        cursor: &mut Cursor<'a>,
        start: usize,
        key: Quoted<'a>,
    ) -> Result<(), Expected> {
        let name = Name::of(&key.text());
        if let Name::Extra = name {
            cursor.value()?;
            let run_start = self.run.map_or(start, |(run_start, _)| run_start);
            self.run = Some((run_start, cursor.at()));
            return Ok(());
        }
        self.close_run(cursor);
        match name {
            Name::To => self.read_to(cursor)?,
            Name::Type => self.kind = Some(cursor.value()?),
            Name::Ref => self.reference = Some(cursor.value()?),
            Name::Payload => self.payload = Some(cursor.value()?),
            Name::Assigned | Name::Extra => {
                cursor.value()?;
            }
        }
        Ok(())
    }

    /// Reads recipients while they are what they should be, and any other value as such: whether
    /// it is an error to answer with is known when no later `to` has replaced it.
    #[inline]
    fn read_to(&mut self, cursor: &mut Cursor<'a>) -> Result<(), Expected> {
        cursor.token();
        let start = cursor.at();
        self.to_is_strings = self.recipients.read(cursor);
        if !self.to_is_strings {
            cursor.rewind(start);
            cursor.value()?;
        }
        self.to = cursor.slice(start, cursor.at());
        Ok(())
    }

    #[inline]
    fn close_run(&mut self, cursor: &Cursor<'a>) {
        if let Some((start, end)) = self.run.take() {
            self.extras.push(cursor.slice(start, end));
        }
    }

    // By reference, since `self` is too large to be moved on the hot path.
    fn judge(&mut self) -> Result<Scanned<'a>, ScanError> {
        let is_string = |raw: Option<&str>| raw.is_none_or(|raw| raw.starts_with('"'));
        if !self.to_is_strings {
            return Err(ScanError::InvalidTo);
        }
        let audience = self.recipients.judge()?;
        if !is_string(self.kind) {
            return Err(ScanError::InvalidType);
        }
        if !is_string(self.reference) {
            return Err(ScanError::InvalidRef);
        }
        if self.payload.is_none() && !matches!(audience, Audience::Relay) {
            return Err(ScanError::MissingPayload);
        }
        Ok(Scanned {
            targets: match audience {
                Audience::Relay => Targets::Relay,
                Audience::All => Targets::All,
                Audience::Named => Targets::Agents(mem::take(&mut self.recipients.ids)),
            },
            to: self.to,
            kind: self.kind,
            reference: self.reference,
            payload: self.payload,
            extras: mem::take(&mut self.extras),
        })
    }
}

/// What a top-level field is to the relay.
#[derive(Clone, Copy)]
enum Name {
    To,
    Type,
    Ref,
    Payload,
    /// The relay assigns it; a client's is discarded.
    Assigned,
    Extra,
}

impl Name {
    #[inline]
    fn of(key: &str) -> Self {
        match key.as_bytes() {
            b"to" => Self::To,
            b"type" => Self::Type,
            b"ref" => Self::Ref,
            b"payload" => Self::Payload,
            b"id" | b"from" | b"ts" => Self::Assigned,
            _ => Self::Extra,
        }
    }
}
