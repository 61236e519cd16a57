//! One table of errors for every form (spec §5); `spec/errors.toml` is the canonical copy and a test compares.
use crate::plain::{is_unseen, plain, plain_fields};
use serde_json::{Map, Value};
use std::fmt;

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, NnrpError>;

/// The kind of an error, numbered as gRPC numbers its statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "spec/errors.toml says what each means")]
pub enum Code {
    Cancelled = 1,
    RuntimeFailure = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Code {
    /// Every code, in the order of the table.
    pub const ALL: [Code; 13] = [
        Code::Cancelled,
        Code::RuntimeFailure,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::Unauthenticated,
    ];

    /// The name on the wire, `INVALID_ARGUMENT`.
    pub const fn name(self) -> &'static str {
        match self {
            Code::Cancelled => "CANCELLED",
            Code::RuntimeFailure => "RUNTIME_FAILURE",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Code::NotFound => "NOT_FOUND",
            Code::AlreadyExists => "ALREADY_EXISTS",
            Code::PermissionDenied => "PERMISSION_DENIED",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::Unimplemented => "UNIMPLEMENTED",
            Code::Internal => "INTERNAL",
            Code::Unavailable => "UNAVAILABLE",
            Code::Unauthenticated => "UNAUTHENTICATED",
        }
    }

    /// The HTTP status, unless the reason has its own.
    pub const fn http(self) -> u16 {
        match self {
            Code::Cancelled => 499,
            Code::RuntimeFailure | Code::Internal => 500,
            Code::InvalidArgument => 400,
            Code::DeadlineExceeded => 504,
            Code::NotFound => 404,
            Code::AlreadyExists => 409,
            Code::PermissionDenied => 403,
            Code::ResourceExhausted => 429,
            Code::FailedPrecondition => 412,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::Unauthenticated => 401,
        }
    }

    /// Whether the same request may succeed later, unchanged.
    pub const fn retryable(self) -> bool {
        matches!(self, Code::ResourceExhausted | Code::Unavailable)
    }

    /// The code of a name on the wire.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The code of a number.
    pub fn from_number(number: i32) -> Option<Code> {
        Code::ALL.into_iter().find(|code| *code as i32 == number)
    }
}

macro_rules! reasons {
    ($($variant:ident $name:literal $code:ident $(http $http:literal)?,)*) => {
        /// What exactly is wrong; each belongs to one [`Code`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "spec/errors.toml says what each means")]
        pub enum Reason { $($variant,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The name on the wire, `SHAPE_MISMATCH`.
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// The code it belongs to.
            pub const fn code(self) -> Code {
                match self { $(Reason::$variant => Code::$code,)* }
            }

            /// The HTTP status: the reason's own, or its code's.
            pub const fn http(self) -> u16 {
                match self { $($(Reason::$variant => $http,)?)* _ => self.code().http() }
            }

            /// The reason of a name on the wire.
            pub fn from_name(name: &str) -> Option<Reason> {
                match name { $($name => Some(Reason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    Malformed "MALFORMED" InvalidArgument,
    UnknownDatatype "UNKNOWN_DATATYPE" InvalidArgument,
    DatatypeMismatch "DATATYPE_MISMATCH" InvalidArgument,
    ShapeMismatch "SHAPE_MISMATCH" InvalidArgument,
    InvalidShape "INVALID_SHAPE" InvalidArgument,
    ByteSizeMismatch "BYTE_SIZE_MISMATCH" InvalidArgument,
    ValueOutOfRange "VALUE_OUT_OF_RANGE" InvalidArgument,
    MissingInput "MISSING_INPUT" InvalidArgument,
    UnknownInput "UNKNOWN_INPUT" InvalidArgument,
    DuplicateInput "DUPLICATE_INPUT" InvalidArgument,
    UnknownOutput "UNKNOWN_OUTPUT" InvalidArgument,
    DuplicateOutput "DUPLICATE_OUTPUT" InvalidArgument,
    InvalidParameter "INVALID_PARAMETER" InvalidArgument,
    UnknownOption "UNKNOWN_OPTION" InvalidArgument,
    InvalidOption "INVALID_OPTION" InvalidArgument,
    InvalidModel "INVALID_MODEL" InvalidArgument,
    BodyTooLarge "BODY_TOO_LARGE" InvalidArgument http 413,
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" InvalidArgument http 415,
    MethodNotAllowed "METHOD_NOT_ALLOWED" Unimplemented http 405,
    Deadline "DEADLINE" DeadlineExceeded,
    ClientCancelled "CLIENT_CANCELLED" Cancelled,
    ModelNotFound "MODEL_NOT_FOUND" NotFound,
    VersionNotFound "VERSION_NOT_FOUND" NotFound,
    FileNotFound "FILE_NOT_FOUND" NotFound,
    PathNotFound "PATH_NOT_FOUND" NotFound,
    ModelExists "MODEL_EXISTS" AlreadyExists,
    QueueFull "QUEUE_FULL" ResourceExhausted http 503,
    UnreadAnswers "UNREAD_ANSWERS" ResourceExhausted http 503,
    RuntimeNotInstalled "RUNTIME_NOT_INSTALLED" FailedPrecondition,
    DeviceNotFound "DEVICE_NOT_FOUND" FailedPrecondition,
    NoRuntime "NO_RUNTIME" FailedPrecondition,
    WrongState "WRONG_STATE" FailedPrecondition,
    NotOffered "NOT_OFFERED" Unimplemented,
    LoadFailed "LOAD_FAILED" RuntimeFailure,
    RunFailed "RUN_FAILED" RuntimeFailure,
    Draining "DRAINING" Unavailable,
    ConnectionFailed "CONNECTION_FAILED" Unavailable,
    RuntimeCrashed "RUNTIME_CRASHED" Unavailable,
    Bug "BUG" Internal,
}

/// An error with its reason, its sentence for people and its fields for machines.
///
/// One pointer wide, so that a `Result` stays small; errors are rare and may allocate.
#[derive(Clone)]
pub struct NnrpError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    reason: String,
    message: String,
    details: Map<String, Value>,
}

/// Longest excerpt of a caller's text that an error repeats.
const EXCERPT: usize = 96;

impl NnrpError {
    /// An error whose message says where, what was expected and what was got.
    #[cold]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        NnrpError(Box::new(Inner { code: reason.code(), reason: reason.name().to_owned(), message: message.into(), details: Map::new() }))
    }

    /// An error that another server sent; its reason may be one that this build does not know.
    #[cold]
    pub fn from_wire(code: Code, reason: impl Into<String>, message: impl Into<String>, details: Map<String, Value>) -> Self {
        NnrpError(Box::new(Inner { code, reason: reason.into(), message: message.into(), details }))
    }

    /// An error as one JSON document, `{"code", "reason", "message", "details"}`, its texts made plain; `None` when it is something else.
    pub fn from_json(text: &str) -> Option<Self> {
        let mut told: Map<String, Value> = serde_json::from_str(text).ok()?;
        let code = Code::from_name(told.get("code")?.as_str()?)?;
        let details = told.remove("details").and_then(|details| serde_json::from_value(details).ok()).map(plain_fields).unwrap_or_default();
        Some(NnrpError::from_wire(code, plain(told.get("reason")?.as_str()?), plain(told.get("message")?.as_str()?), details))
    }

    /// As one JSON document, which [`NnrpError::from_json`] reads.
    pub fn to_json(&self) -> Value {
        serde_json::json!({"code": self.code().name(), "reason": self.reason(), "message": self.message(), "details": self.details()})
    }

    /// Adds a field for machines.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.details.insert(key.to_owned(), value.into());
        self
    }

    /// The kind.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The reason's name on the wire.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Whether this error has that reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.0.reason == reason.name()
    }

    /// The sentence for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The fields for machines.
    pub fn details(&self) -> &Map<String, Value> {
        &self.0.details
    }

    /// The HTTP status.
    pub fn http(&self) -> u16 {
        Reason::from_name(&self.0.reason).filter(|reason| reason.code() == self.0.code).map_or(self.0.code.http(), Reason::http)
    }

    /// Whether the same request may succeed later, unchanged.
    pub fn retryable(&self) -> bool {
        self.0.code.retryable()
    }
}

impl fmt::Display for NnrpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for NnrpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.0.code.name(), self.0.reason, self.0.message)
    }
}

impl std::error::Error for NnrpError {}

/// The error of what called a runtime, or took what it gave, and panicked.
#[cold]
pub fn panicked() -> NnrpError {
    NnrpError::new(Reason::Bug, "the runtime's adapter panicked")
}

/// A caller's text, short enough and safe to repeat in an error.
pub fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(EXCERPT).map(|c| if is_unseen(c) { '\u{fffd}' } else { c }).collect();
    if short.chars().count() < text.chars().count() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> toml::Table {
        include_str!("../../../spec/errors.toml").parse().unwrap()
    }

    #[test]
    fn codes_agree_with_the_table() {
        let table = table();
        let codes = table["codes"].as_table().unwrap();
        let names: Vec<&str> = codes.keys().map(String::as_str).collect();
        let mut ours: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        ours.sort_unstable();
        let mut theirs = names;
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
        for code in Code::ALL {
            let row = &codes[code.name()];
            assert_eq!(row["code"].as_integer(), Some(code as i64), "{}", code.name());
            assert_eq!(row["http"].as_integer(), Some(i64::from(code.http())), "{}", code.name());
            assert_eq!(row["retryable"].as_bool(), Some(code.retryable()), "{}", code.name());
        }
    }

    #[test]
    fn reasons_agree_with_the_table() {
        let table = table();
        let reasons = table["reasons"].as_table().unwrap();
        let mut ours: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        ours.sort_unstable();
        let mut theirs: Vec<&str> = reasons.keys().map(String::as_str).collect();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
        for reason in Reason::ALL {
            let row = &reasons[reason.name()];
            assert_eq!(row["code"].as_str(), Some(reason.code().name()));
            let http = row.get("http").map_or(i64::from(reason.code().http()), |status| status.as_integer().unwrap());
            assert_eq!(http, i64::from(reason.http()), "{}", reason.name());
        }
    }

    #[test]
    fn an_error_is_read_from_json_or_not_at_all() {
        let told = NnrpError::from_json(r#"{"code": "NOT_FOUND", "reason": "NO_BEADS", "message": "none", "details": {"n": 1}}"#).unwrap();
        assert_eq!((told.code(), told.reason(), told.message(), told.details()["n"].as_i64()), (Code::NotFound, "NO_BEADS", "none", Some(1)));
        for wrong in ["", "[]", "{}", r#"{"code": "LOST", "reason": "", "message": ""}"#, r#"{"code": "NOT_FOUND", "reason": 5, "message": ""}"#] {
            assert!(NnrpError::from_json(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_has_no_control_characters() {
        let text = "a\n\u{202e}".repeat(10_000);
        let short = excerpt(&text);
        assert_eq!(short.chars().count(), EXCERPT + 1);
        assert!(!short.chars().any(is_unseen));
    }
}
