//! What a plug-in says went wrong, as one of our errors: the map is total, and nothing in it is believed to be text, to end, or to make sense.
use crate::c::abi::{NnrpFault, OK, Status};
use crate::scrub::scrub;
use nnrp_core::{Code, NnrpError, Reason, Result};
use serde_json::{Map, Value};
use std::ffi::c_char;
use std::path::Path;

/// What was being done.
#[derive(Clone, Copy)]
pub(super) enum Verb {
    Open,
    Load,
    Run,
}

impl Verb {
    fn reason(self) -> Reason {
        match self {
            Verb::Open => Reason::RuntimeNotInstalled,
            Verb::Load => Reason::LoadFailed,
            Verb::Run => Reason::RunFailed,
        }
    }

    /// An error of the plug-in's that no status tells.
    #[cold]
    pub(super) fn error(self, runtime: &str, what: &str) -> NnrpError {
        NnrpError::new(self.reason(), format!("runtime {runtime}: {what}")).with("runtime", runtime)
    }
}

/// What a call's status and fault say.
///
/// # Errors
/// The reason that the plug-in names, if it belongs to the status; else the verb's own. Its status and text are in details.
#[inline]
pub(super) fn check(runtime: &str, verb: Verb, what: &str, status: Status, fault: &NnrpFault, model: Option<&Path>) -> Result<()> {
    if status == OK { Ok(()) } else { Err(told(runtime, verb, what, status, fault, model)) }
}

#[cold]
fn told(runtime: &str, verb: Verb, what: &str, status: Status, fault: &NnrpFault, model: Option<&Path>) -> NnrpError {
    let (reason, message) = (text(&fault.reason), scrub(&text(&fault.message), model));
    // A defect of theirs is none of ours; and what cannot be opened is one thing, whatever it says.
    let named = Reason::from_name(&reason).filter(|reason| reason.code() as Status == status && *reason != Reason::Bug);
    let reason = named.filter(|_| !matches!(verb, Verb::Open)).unwrap_or_else(|| verb.reason());
    let said = if message.is_empty() { format!("{what} failed and said nothing of it") } else { message.clone() };
    let mut error = NnrpError::new(reason, format!("runtime {runtime}: {said}"));
    if let Ok(details) = serde_json::from_str::<Map<String, Value>>(&text(&fault.details_json)) {
        error = details.into_iter().fold(error, |error, (key, value)| error.with(&scrub(&key, model), without_paths(value, model)));
    }
    let name = Code::from_number(status).map_or("UNKNOWN", Code::name);
    error.with("runtime", runtime).with("runtime_code", status).with("runtime_code_name", name).with("runtime_message", message)
}

/// The text in a buffer: to its first NUL, or its end; what is not UTF-8 becomes U+FFFD.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().take_while(|byte| **byte != 0).map(|byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn without_paths(value: Value, model: Option<&Path>) -> Value {
    match value {
        Value::String(text) => scrub(&text, model).into(),
        Value::Array(items) => items.into_iter().map(|item| without_paths(item, model)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, item)| (scrub(&key, model), without_paths(item, model))).collect::<Map<_, _>>().into(),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::c::abi::Versioned;

    fn fault(reason: &str, message: &[u8], details: &str) -> NnrpFault {
        let mut fault = NnrpFault::sized();
        let fill = |buffer: &mut [c_char], bytes: &[u8]| buffer.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = byte.cast_signed());
        fill(&mut fault.reason, reason.as_bytes());
        fill(&mut fault.message, message);
        fill(&mut fault.details_json, details.as_bytes());
        fault
    }

    fn error(verb: Verb, status: Status, fault: &NnrpFault) -> NnrpError {
        check("abacus", verb, "run", status, fault, None).unwrap_err()
    }

    #[test]
    fn a_reason_is_kept_where_it_belongs_to_the_status() {
        let kept = error(Verb::Load, 3, &fault("INVALID_MODEL", b"no beads", ""));
        assert_eq!((kept.reason(), kept.message()), ("INVALID_MODEL", "runtime abacus: no beads"));
        for (status, reason) in [(5, "INVALID_MODEL"), (13, "BUG"), (3, "OUT_OF_BEADS"), (3, ""), (99, "INVALID_MODEL"), (-1, ""), (i32::MIN, "BUG")] {
            let error = error(Verb::Load, status, &fault(reason, b"no beads", ""));
            assert_eq!((error.reason(), &error.details()["runtime_code"]), ("LOAD_FAILED", &status.into()), "{status} {reason}");
        }
    }

    #[test]
    fn every_status_makes_an_error_of_the_table_and_none_is_our_defect() {
        for status in -3..40 {
            for reason in Reason::ALL {
                let error = error(Verb::Run, if status == 0 { 77 } else { status }, &fault(reason.name(), b"", ""));
                assert!(Reason::from_name(error.reason()).is_some_and(|reason| reason.code() == error.code()));
                assert!(error.code() != Code::Internal && !error.message().is_empty());
            }
        }
    }

    #[test]
    fn texts_that_do_not_end_or_are_no_text_are_told_as_far_as_they_go() {
        assert!(error(Verb::Run, 2, &fault("", &[b'a'; 1024], "")).message().len() >= 1024);
        assert!(error(Verb::Run, 2, &fault("", b"\xff\xfe", "")).message().contains('\u{fffd}'));
        assert_eq!(error(Verb::Run, 2, &fault("", b"", "")).message(), "runtime abacus: run failed and said nothing of it");
    }

    #[test]
    fn details_are_an_object_or_are_left_out_and_tell_no_path() {
        let told = error(Verb::Run, 2, &fault("", b"at /usr/lib/x.so", r#"{"bead": 3, "at": ["/etc/passwd"], "runtime": "liar"}"#));
        assert_eq!((&told.details()["bead"], &told.details()["at"], &told.details()["runtime"]), (&3.into(), &vec!["…"].into(), &"abacus".into()));
        assert_eq!(told.message(), "runtime abacus: at …");
        assert_eq!(error(Verb::Run, 2, &fault("", b"x", "[1]")).details().len(), 4);
    }
}
