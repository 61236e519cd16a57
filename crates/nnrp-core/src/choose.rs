//! Which runtime loads a model (spec §8.10): the first of those wanted that can, and what the others said.
use crate::adapt::adapt;
use crate::error::{NnrpError, Reason, Result, excerpt};
use crate::model::{Isolation, ModelSpec};
use crate::runtime::{Runtime, Runtimes, Session};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// A runtime that was asked to load a model, and why it did not.
#[derive(Clone, Debug)]
pub struct NotTaken {
    /// The runtime's name.
    pub runtime: String,
    /// What it said.
    pub error: NnrpError,
}

impl NotTaken {
    /// `{"runtime", "reason", "message"}`.
    pub fn to_json(&self) -> Value {
        json!({"runtime": self.runtime, "reason": self.error.reason(), "message": self.error.message()})
    }

    /// Whether it only says that the runtime is not there or does not read such files.
    fn passes(&self) -> bool {
        self.error.is(Reason::RuntimeNotInstalled) || (self.error.is(Reason::NotOffered) && self.error.details().contains_key("reads"))
    }
}

/// Most characters of each runtime's message in the one of them all; the whole ones are in its details.
const SAID: usize = 240;

/// A loaded session, and the runtimes that were asked before.
pub(crate) struct Chosen {
    pub(crate) session: Box<dyn Session>,
    pub(crate) not_taken: Vec<NotTaken>,
}

/// Puts runtimes in the order in which they are asked to load a file: its format's own before the others, which keep theirs (spec §8.10).
pub fn in_turn<T>(runtimes: &mut [T], own: Option<&str>, name: impl Fn(&T) -> &str) {
    runtimes.sort_by_key(|runtime| own != Some(name(runtime)));
}

impl Runtimes {
    /// Loads the model with the first runtime that can: of those wanted, or else of all, that of the file's format first and then in the order they
    /// were added.
    ///
    /// # Errors
    /// The runtime's own where one was asked. Where none was named, the first that says more than that a runtime is not installed or does not
    /// read the file; `NO_RUNTIME` when there is none such, and when each of several that were named refused.
    pub(crate) fn choose(&self, spec: &ModelSpec) -> Result<Chosen> {
        if spec.isolation == Isolation::None {
            self.verify(spec)?;
        }
        let wanted = &spec.runtime.0;
        let candidates: Vec<(&str, Option<&Arc<dyn Runtime>>)> = if wanted.is_empty() {
            let mut all: Vec<_> = self.iter().map(|runtime| (runtime.name(), Some(runtime))).collect();
            in_turn(&mut all, self.own(&spec.path), |(name, _)| name);
            all
        } else {
            wanted.iter().map(|name| (&**name, self.get(name))).collect()
        };
        let mut not_taken = Vec::new();
        for (name, runtime) in candidates {
            match runtime.ok_or_else(|| self.unknown(name)).and_then(|runtime| self.load_and_look(&**runtime, spec)) {
                Ok(session) => return Ok(Chosen { session, not_taken }),
                Err(error) => not_taken.push(NotTaken { runtime: excerpt(name), error }),
            }
        }
        Err(refusal(not_taken, !wanted.is_empty()))
    }

    /// Loads a model by the one runtime that its description names, as that tells it: for a host, whose engine sees to the rest.
    ///
    /// # Errors
    /// `INVALID_MODEL` where the file is not what was described; `RUNTIME_NOT_INSTALLED`, and what the runtime says.
    pub fn load(&self, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        self.verify(spec)?;
        let name = spec.runtime.0.first().map_or("", String::as_str);
        self.get(name).ok_or_else(|| self.unknown(name))?.load(spec)
    }

    fn load_and_look(&self, runtime: &dyn Runtime, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        let spec = &*with_own_device(runtime.name(), spec);
        let session = self.load_by(runtime, spec)?;
        match &spec.format {
            Some(expected) if *expected != session.info().format => {
                let (expected, got) = (excerpt(expected), session.info().format.clone());
                let message = format!("model file: expected format '{expected}', got {got}");
                Err(NnrpError::new(Reason::InvalidModel, message).with("expected", expected).with("got", got))
            }
            _ => {
                let named = self.with_names(&spec.path, session.info());
                adapt(session, spec, named)
            }
        }
    }

    #[cold]
    fn unknown(&self, name: &str) -> NnrpError {
        let known: Vec<&str> = self.iter().map(|runtime| runtime.name()).collect();
        let got = excerpt(name);
        NnrpError::new(Reason::RuntimeNotInstalled, format!("runtime '{got}' is not installed: expected one of {known:?}")).with("runtime", got)
    }
}

/// The description with the device by the runtime's own name for it, where it says `RUNTIME:DEVICE` (spec §8.6).
fn with_own_device<'s>(runtime: &str, spec: &'s ModelSpec) -> Cow<'s, ModelSpec> {
    let device = spec.device.split_at_checked(runtime.len()).filter(|(prefix, _)| prefix.eq_ignore_ascii_case(runtime));
    let device = device.and_then(|(_, device)| device.strip_prefix(':'));
    // A number is one of several devices of that name.
    let device = device.filter(|device| device.bytes().any(|byte| !byte.is_ascii_digit()));
    device.map_or(Cow::Borrowed(spec), |device| Cow::Owned(ModelSpec { device: device.to_owned(), ..spec.clone() }))
}

#[cold]
fn refusal(not_taken: Vec<NotTaken>, named: bool) -> NnrpError {
    let tried: Vec<Value> = not_taken.iter().map(NotTaken::to_json).collect();
    let telling = not_taken.iter().find(|one| !named && !one.passes());
    match (not_taken.as_slice(), telling) {
        ([only], _) => only.error.clone(),
        (_, Some(one)) => one.error.clone().with("tried", tried),
        (all, None) => {
            let said: Vec<String> = all.iter().map(|one| format!("{}: {}", one.runtime, one.error.message().chars().take(SAID).collect::<String>())).collect();
            let message =
                if said.is_empty() { "no runtime is there to load the model".to_owned() } else { format!("no runtime loads the model; {}", said.join("; ")) };
            NnrpError::new(Reason::NoRuntime, message).with("tried", tried)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Preference;
    use crate::runtime::{Concurrency, Control, Outputs, RuntimeInfo, SessionInfo, Threads};
    use crate::tensor::Tensor;

    /// Loads what its name allows: `good-onnx` reads ONNX, `bad-REASON` fails so.
    struct Named(&'static str);

    struct Nothing(SessionInfo);

    impl Session for Nothing {
        fn info(&self) -> &SessionInfo {
            &self.0
        }

        fn run(&self, _: &[Option<Tensor<'_>>], _: &[usize], _: Control<'_>) -> Result<Outputs> {
            Ok(Outputs::new())
        }
    }

    impl Runtime for Named {
        fn name(&self) -> &'static str {
            self.0
        }

        fn info(&self) -> RuntimeInfo {
            RuntimeInfo::from_json(self.0, "{}")
        }

        fn load(&self, _: &ModelSpec) -> Result<Box<dyn Session>> {
            match self.0.split_once('-') {
                Some(("good", format)) => {
                    let told = json!({
                        "version": "1", "format": format, "device": "cpu", "exclusive": false, "cancellable": false, "settings": {},
                        "inputs": [], "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}],
                    });
                    Ok(Box::new(Nothing(SessionInfo::from_json(self.0, Threads::Any, &told.to_string())?)))
                }
                Some((_, "OTHER_FORMAT")) => Err(NnrpError::new(Reason::NotOffered, "reads others").with("reads", vec!["other"])),
                Some((_, reason)) => Err(NnrpError::new(Reason::from_name(reason).unwrap(), format!("{} said no", self.0))),
                None => unreachable!(),
            }
        }
    }

    fn choose(there: &[&'static str], wanted: &str, format: Option<&str>) -> Result<(String, Vec<String>)> {
        choose_of(&of(there), wanted, format)
    }

    fn of(there: &[&'static str]) -> Runtimes {
        let mut runtimes = Runtimes::default();
        there.iter().for_each(|name| runtimes.add(Arc::new(Named(name))));
        runtimes
    }

    fn choose_of(runtimes: &Runtimes, wanted: &str, format: Option<&str>) -> Result<(String, Vec<String>)> {
        let runtime = if wanted.is_empty() { Preference::default() } else { wanted.into() };
        let spec = ModelSpec { runtime, format: format.map(str::to_owned), ..ModelSpec::new("model", "model") };
        let Chosen { session, not_taken } = runtimes.choose(&spec)?;
        assert_eq!(session.info().concurrency, Concurrency::Shared);
        Ok((session.info().runtime.to_owned(), not_taken.iter().map(|one| one.error.reason().to_owned()).collect()))
    }

    fn refused(there: &[&'static str], wanted: &str) -> (String, usize) {
        let error = choose(there, wanted, None).unwrap_err();
        (error.reason().to_owned(), error.details().get("tried").and_then(Value::as_array).map_or(0, Vec::len))
    }

    #[test]
    fn the_first_that_can_is_taken_in_the_order_wanted_or_else_of_the_engine() {
        let there = ["bad-INVALID_MODEL", "good-onnx", "good-tflite"];
        assert_eq!(choose(&there, "", None).unwrap(), ("good-onnx".into(), vec!["INVALID_MODEL".into()]));
        assert_eq!(choose(&there, "good-tflite,good-onnx", None).unwrap(), ("good-tflite".into(), vec![]));
        assert_eq!(choose(&there, "none,good-tflite", None).unwrap(), ("good-tflite".into(), vec!["RUNTIME_NOT_INSTALLED".into()]));
    }

    #[test]
    fn without_a_wish_the_formats_own_runtime_is_asked_before_the_others() {
        let own = |there: &[&'static str], wanted: &str| {
            let mut runtimes = of(there);
            runtimes.begin_with(|_| Some("good-tflite"));
            choose_of(&runtimes, wanted, None).unwrap()
        };
        assert_eq!(own(&["bad-INVALID_MODEL", "good-onnx", "good-tflite"], ""), ("good-tflite".into(), vec![]));
        assert_eq!(own(&["bad-INVALID_MODEL", "good-onnx"], ""), ("good-onnx".into(), vec!["INVALID_MODEL".into()]));
        assert_eq!(own(&["good-onnx", "good-tflite"], "good-onnx"), ("good-onnx".into(), vec![]));
    }

    #[test]
    fn a_format_that_is_wanted_is_what_the_session_has() {
        let there = ["good-onnx", "good-tflite"];
        assert_eq!(choose(&there, "", Some("tflite")).unwrap(), ("good-tflite".into(), vec!["INVALID_MODEL".into()]));
        assert!(choose(&there, "good-onnx", Some("tflite")).unwrap_err().is(Reason::InvalidModel));
    }

    #[test]
    fn a_device_may_have_its_runtimes_name_before_it() {
        for (asked, device) in [
            ("tiny:cpu", "cpu"),
            ("TINY:GPU.1", "GPU.1"),
            ("tiny:auto", "auto"),
            ("tiny:AUTO:GPU,CPU", "AUTO:GPU,CPU"),
            ("tiny:0", "tiny:0"),
            ("tiny:", "tiny:"),
            ("tiny", "tiny"),
            ("tinycpu", "tinycpu"),
            ("other:cpu", "other:cpu"),
            ("auto", "auto"),
            ("tin\u{e9}:cpu", "tin\u{e9}:cpu"),
        ] {
            let spec = ModelSpec { device: asked.into(), ..ModelSpec::new("model", "model") };
            assert_eq!(with_own_device("tiny", &spec).device, device, "{asked}");
        }
    }

    #[test]
    fn one_runtimes_error_is_its_own_and_severals_is_one_that_tells_each() {
        assert_eq!(refused(&["bad-LOAD_FAILED"], "bad-LOAD_FAILED"), ("LOAD_FAILED".into(), 0));
        assert_eq!(refused(&["bad-LOAD_FAILED"], ""), ("LOAD_FAILED".into(), 0));
        assert_eq!(refused(&["bad-LOAD_FAILED"], "bad-LOAD_FAILED,none"), ("NO_RUNTIME".into(), 2));
        assert_eq!(refused(&[], ""), ("NO_RUNTIME".into(), 0));
    }

    #[test]
    fn where_none_was_named_the_first_that_reads_the_file_speaks_for_all() {
        assert_eq!(refused(&["bad-OTHER_FORMAT", "bad-RUNTIME_NOT_INSTALLED", "bad-INVALID_MODEL", "bad-LOAD_FAILED"], ""), ("INVALID_MODEL".into(), 4));
        assert_eq!(refused(&["bad-OTHER_FORMAT", "bad-RUNTIME_NOT_INSTALLED"], ""), ("NO_RUNTIME".into(), 2));
        assert_eq!(refused(&["bad-OTHER_FORMAT", "bad-NOT_OFFERED"], ""), ("NOT_OFFERED".into(), 2));
    }
}
