//! What the two processes say to each other once a model: one JSON document after another, each after its length.
use nnrp_core::error::excerpt;
use nnrp_core::{Control, ModelSpec, NnrpError, Parameter, Parameters, Reason, Verb};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};

/// Longest document that is read.
const LONGEST: usize = 64 << 20;
/// Read at once.
const CHUNK: usize = 64 << 10;

/// From the engine.
#[derive(Serialize, Deserialize)]
pub(super) enum Order {
    /// Load this, whose outputs of a run have no more bytes; said first.
    Load(Box<ModelSpec>, usize),
    /// Nobody waits for that run any more.
    Stop { seat: usize, run: u32 },
    /// Something that a session may offer.
    Ask { number: u64, want: Want },
    /// Close the session and end.
    Close,
}

/// A verb that a session may offer.
#[derive(Serialize, Deserialize)]
pub(super) enum Want {
    Stats,
    WarmUp,
    SetOption { name: String, value: Value },
}

impl From<Verb<'_>> for Want {
    fn from(verb: Verb<'_>) -> Want {
        match verb {
            Verb::Stats => Want::Stats,
            Verb::WarmUp => Want::WarmUp,
            Verb::SetOption(name, value) => Want::SetOption { name: name.to_owned(), value: value.clone() },
        }
    }
}

impl Want {
    /// The verb.
    pub(super) fn verb(&self) -> Verb<'_> {
        match self {
            Want::Stats => Verb::Stats,
            Want::WarmUp => Verb::WarmUp,
            Want::SetOption { name, value } => Verb::SetOption(name, value),
        }
    }
}

/// What goes along with a run beside its tensors, where there is anything.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Aside {
    pub(super) id: Option<String>,
    parameters: Vec<(String, Said)>,
}

/// A parameter's value; a number with a fraction by its bits, for JSON has not all of them.
#[derive(Serialize, Deserialize)]
enum Said {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(u64),
    String(String),
}

impl Aside {
    /// What there is to say; mostly nothing.
    pub(super) fn of(control: &Control<'_>) -> Option<Aside> {
        if control.id.is_none() && control.parameters.is_empty() {
            return None;
        }
        let said = |parameter: &Parameter| match parameter {
            Parameter::Bool(value) => Said::Bool(*value),
            Parameter::Int(value) => Said::Int(*value),
            Parameter::Uint(value) => Said::Uint(*value),
            Parameter::Double(value) => Said::Double(value.to_bits()),
            Parameter::String(value) => Said::String(value.clone()),
        };
        let parameters = control.parameters.iter().map(|(name, value)| (name.clone(), said(value))).collect();
        Some(Aside { id: control.id.map(str::to_owned), parameters })
    }

    /// The parameters.
    pub(super) fn parameters(&self) -> Parameters {
        let read = |said: &Said| match said {
            Said::Bool(value) => Parameter::Bool(*value),
            Said::Int(value) => Parameter::Int(*value),
            Said::Uint(value) => Parameter::Uint(*value),
            Said::Double(bits) => Parameter::Double(f64::from_bits(*bits)),
            Said::String(value) => Parameter::String(value.clone()),
        };
        self.parameters.iter().map(|(name, said)| (name.clone(), read(said))).collect()
    }
}

/// From the process.
#[derive(Serialize, Deserialize)]
pub(super) enum Word {
    /// The model is loaded.
    Loaded(Box<Told>),
    /// It is not: an error as one JSON document.
    Refused(Value),
    /// What came of a verb.
    Answer { number: u64, answer: Result<Value, Value> },
}

/// What the process tells of its session.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    /// As [`nnrp_core::SessionInfo::from_json`] reads it.
    pub(super) session: Value,
    pub(super) own_threads: bool,
    pub(super) workers: Option<usize>,
    pub(super) seats: usize,
}

/// Writes one document.
pub(super) fn write(stream: &mut impl Write, document: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, document)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&bytes)
}

/// Documents as they come.
#[derive(Default)]
pub(super) struct Incoming(Vec<u8>);

impl Incoming {
    /// Takes what there is to read; false at the end.
    pub(super) fn read(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        match stream.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.0.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next document that is whole.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some((length, rest)) = self.0.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > LONGEST {
            return Err(io::Error::other("a document that is too long"));
        }
        let Some(document) = rest.get(..length) else { return Ok(None) };
        let read = serde_json::from_slice(document)?;
        self.0.drain(..4 + length);
        Ok(Some(read))
    }
}

/// The error that the other process told.
pub(super) fn error_of(runtime: &str, told: &Value) -> NnrpError {
    let text = told.to_string();
    let unread = || NnrpError::new(Reason::RunFailed, format!("runtime {runtime}: an error that cannot be read: {}", excerpt(&text))).with("runtime", runtime);
    NnrpError::from_json(&text).unwrap_or_else(unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_crosses_as_it_is() {
        let parameters = vec![
            ("b".to_owned(), Parameter::Bool(true)),
            ("i".to_owned(), Parameter::Int(-5)),
            ("u".to_owned(), Parameter::Uint(u64::MAX)),
            ("d".to_owned(), Parameter::Double(f64::NEG_INFINITY)),
            ("s".to_owned(), Parameter::String("beads".to_owned())),
        ];
        let aside = Aside::of(&Control { id: Some("7"), parameters: &parameters, ..Control::default() }).unwrap();
        let read: Aside = serde_json::from_str(&serde_json::to_string(&aside).unwrap()).unwrap();
        assert_eq!((read.id.as_deref(), read.parameters()), (Some("7"), parameters));
        assert!(Aside::of(&Control::default()).is_none());
    }

    #[test]
    fn documents_are_whole_however_they_come_and_nonsense_is_an_error() {
        let mut bytes = Vec::new();
        for number in 0..3_u64 {
            write(&mut bytes, &Word::Answer { number, answer: Ok(Value::Null) }).unwrap();
        }
        let (mut incoming, mut seen) = (Incoming::default(), 0);
        for byte in &bytes {
            assert!(incoming.read(&mut std::slice::from_ref(byte)).unwrap());
            while let Some(Word::Answer { number, .. }) = incoming.next().unwrap() {
                assert_eq!(number, seen);
                seen += 1;
            }
        }
        assert_eq!(seen, 3);
        assert!(!incoming.read(&mut &[][..]).unwrap());
        for wrong in [&b"\xff\xff\xff\xff"[..], b"\x02\0\0\0[]", b"\x01\0\0\0{"] {
            assert!(Incoming(wrong.to_vec()).next::<Word>().is_err(), "{wrong:?}");
        }
        assert!(error_of("tiny", &Value::Null).is(Reason::RunFailed));
    }
}
