//! A walk over JSON text whose errors say where in the message they are.
use jiter::{Jiter, JiterError, JiterErrorType, JsonErrorType, Peek};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Parameter, Reason, Result};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

/// Deepest nesting of a value that is only passed over; what is read has the depth of its own form.
pub(crate) const DEPTH_LIMIT: usize = 100;

/// Parameters whose names are parts of the text.
pub(crate) type Named<'j> = SmallVec<[(Cow<'j, str>, Parameter); 2]>;

/// Where in the message the cursor is: `inputs[3].shape`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Path {
    /// `inputs` or `outputs`; empty at the top.
    pub(crate) list: &'static str,
    /// Which of them.
    pub(crate) index: usize,
    /// The key.
    pub(crate) field: &'static str,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.list, self.field) {
            ("", "") => f.write_str("body"),
            ("", field) => f.write_str(field),
            (list, "") => write!(f, "{list}[{}]", self.index),
            (list, field) => write!(f, "{list}[{}].{field}", self.index),
        }
    }
}

/// A place in JSON text. Bodies of objects and arrays are closures that must consume one value.
pub(crate) struct Cursor<'j> {
    text: &'j [u8],
    base: usize,
    json: Jiter<'j>,
    /// For the errors.
    pub(crate) path: Path,
}

impl<'j> Cursor<'j> {
    /// The start of a text.
    pub(crate) fn new(text: &'j [u8]) -> Self {
        Cursor { text, base: 0, json: Jiter::new(text), path: Path::default() }
    }

    /// The whole text.
    pub(crate) fn text(&self) -> &'j [u8] {
        self.text
    }

    /// Bytes before the cursor.
    pub(crate) fn at(&self) -> usize {
        self.base + self.json.current_index()
    }

    /// Goes elsewhere in the text; the enclosing objects and arrays go on from there.
    pub(crate) fn seek(&mut self, at: usize) {
        self.base = at.min(self.text.len());
        self.json = Jiter::new(&self.text[self.base..]);
    }

    /// Reads an object: `each` gets the index of a known key. Unknown keys are skipped, nulls are as if absent, a known key twice is an error.
    pub(crate) fn object(&mut self, known: &[&'static str], mut each: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        let find = |key: &str| known.iter().position(|name| *name == key);
        let outer = self.path.field;
        let mut seen = 0u32;
        let mut key = self.json.next_object().map(|key| key.map(find));
        while let Some(field) = key.map_err(|error| self.malformed(&error))? {
            let peek = self.peek()?;
            match field {
                Some(index) => {
                    self.path.field = known[index];
                    if seen & (1 << index) != 0 {
                        return Err(self.error("the key is given twice"));
                    }
                    seen |= 1 << index;
                    if peek == Peek::Null { self.skip()? } else { each(self, index)? }
                }
                None => self.skip()?,
            }
            self.path.field = outer;
            key = self.json.next_key().map(|key| key.map(find));
        }
        Ok(())
    }

    /// Reads an array of at most `limit` items; `each` gets the index.
    pub(crate) fn array(&mut self, limit: usize, mut each: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        let mut next = self.json.next_array().map_err(|error| self.malformed(&error))?;
        let mut index = 0;
        while next.is_some() {
            if index == limit {
                return Err(self.error(&format!("expected at most {limit}, got more")).with("expected", limit));
            }
            each(self, index)?;
            index += 1;
            next = self.json.array_step().map_err(|error| self.malformed(&error))?;
        }
        Ok(())
    }

    /// Reads a string; borrowed from the text unless it has escapes.
    pub(crate) fn string(&mut self) -> Result<Cow<'j, str>> {
        let text = self.text;
        match self.json.next_str() {
            Ok(found) => Ok(borrowed(text, found)),
            Err(error) => Err(self.malformed(&error)),
        }
    }

    /// Reads a whole number; `None` when it is one that no `i64` holds.
    pub(crate) fn integer(&mut self) -> Result<Option<i64>> {
        // Not `next_int`, which reads 18 digits at most.
        let text = match self.json.next_number_bytes() {
            Ok(text) => text,
            Err(JiterError { error_type: JiterErrorType::JsonError(JsonErrorType::NumberOutOfRange), .. }) => return Ok(None),
            Err(error) => return Err(self.malformed(&error)),
        };
        match number(text) {
            Parameter::Int(value) => Ok(Some(value)),
            _ if text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') => Ok(None),
            _ => Err(self.error("expected a whole number")),
        }
    }

    /// Reads parameters: at most `limit`, each name once, values string, number or boolean.
    pub(crate) fn parameters(&mut self, limit: usize) -> Result<Named<'j>> {
        let text = self.text;
        let mut parameters = Named::new();
        let mut key = self.json.next_object().map(|key| key.map(|key| borrowed(text, key)));
        while let Some(name) = key.map_err(|error| self.malformed(&error))? {
            if parameters.len() == limit {
                return Err(self.error(&format!("expected at most {limit} parameters, got more")).with("expected", limit));
            }
            let value = self.parameter(&name)?;
            parameters.push((name, value));
            key = self.json.next_key().map(|key| key.map(|key| borrowed(text, key)));
        }
        if parameters.len() > 1 {
            let mut names: Vec<&str> = parameters.iter().map(|(name, _)| &**name).collect();
            names.sort_unstable();
            if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(self.error(&format!("parameter '{}' is given twice", excerpt(pair[0]))));
            }
        }
        Ok(parameters)
    }

    fn parameter(&mut self, name: &str) -> Result<Parameter> {
        let value = match self.peek()? {
            Peek::String => Ok(Parameter::String(self.string()?.into_owned())),
            peek @ (Peek::True | Peek::False) => self.json.known_bool(peek).map(Parameter::Bool),
            peek if peek.is_num() => self.json.known_number_bytes(peek).map(number),
            _ => return Err(self.invalid_parameter(name)),
        };
        match value.map_err(|error| self.malformed(&error))? {
            Parameter::Double(value) if !value.is_finite() => Err(self.invalid_parameter(name)),
            value => Ok(value),
        }
    }

    #[cold]
    fn invalid_parameter(&self, name: &str) -> NnrpError {
        let (path, name) = (self.path, excerpt(name));
        let message = format!("{path}: parameter '{name}': expected a string, a finite number or a boolean");
        NnrpError::new(Reason::InvalidParameter, message).with("parameter", name)
    }

    /// Passes over one value, checking that it is JSON.
    pub(crate) fn skip(&mut self) -> Result<()> {
        self.skip_within(DEPTH_LIMIT)
    }

    fn skip_within(&mut self, depth: usize) -> Result<()> {
        let peek = self.peek()?;
        if depth == 0 && matches!(peek, Peek::Array | Peek::Object) {
            return Err(self.error(&format!("nested deeper than {DEPTH_LIMIT}")));
        }
        match peek {
            Peek::Array => self.array(usize::MAX, |cursor, _| cursor.skip_within(depth - 1)),
            Peek::Object => {
                let mut more = self.json.known_object().map(|key| key.is_some());
                while more.map_err(|error| self.malformed(&error))? {
                    self.skip_within(depth - 1)?;
                    more = self.json.next_key().map(|key| key.is_some());
                }
                Ok(())
            }
            // Not `known_skip`, which does not look at the encoding.
            Peek::String => self.json.known_str().map(drop).map_err(|error| self.malformed(&error)),
            peek => self.json.known_skip(peek).map_err(|error| self.malformed(&error)),
        }
    }

    /// What the next value is.
    pub(crate) fn peek(&mut self) -> Result<Peek> {
        self.json.peek().map_err(|error| self.malformed(&error))
    }

    /// Checks that nothing follows.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.json.finish().map_err(|error| self.malformed(&error))
    }

    /// `MALFORMED` at this path.
    #[cold]
    pub(crate) fn error(&self, message: &str) -> NnrpError {
        let path = self.path.to_string();
        NnrpError::new(Reason::Malformed, format!("{path}: {message}")).with("path", path)
    }

    #[cold]
    fn malformed(&self, error: &JiterError) -> NnrpError {
        let at = self.base + error.index;
        self.error(&format!("not the JSON that belongs here, at byte {at}: {}", error.error_type)).with("byte", at)
    }
}

/// The number's own type: whole numbers stay whole.
fn number(text: &[u8]) -> Parameter {
    let text = std::str::from_utf8(text).unwrap_or_default();
    let whole = text.parse().map(Parameter::Int).or_else(|_| text.parse().map(Parameter::Uint));
    whole.unwrap_or_else(|_| Parameter::Double(text.parse().unwrap_or_default()))
}

/// The same string as a part of the text, where jiter did not have to unescape it: names then cost no allocation.
fn borrowed<'j>(text: &'j [u8], found: &str) -> Cow<'j, str> {
    let start = (found.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
    let inside = start.checked_add(found.len()).and_then(|end| text.get(start..end)).and_then(|bytes| std::str::from_utf8(bytes).ok());
    inside.map_or_else(|| Cow::Owned(found.to_owned()), Cow::Borrowed)
}
