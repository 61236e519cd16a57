//! What a model's description says otherwise of its inputs and outputs (spec §6.6): read here, applied in [`crate::adapt`].
use crate::error::{NnrpError, Reason, Result, excerpt};
use crate::model::NAME_LIMIT;
use crate::symbols::is_name;
use crate::tensor::Datatype;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::fmt;

/// Most entries, dimensions and scales that are read.
const MOST: usize = 65_536;

/// What callers see in place of what the runtime tells, for the inputs or for the outputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    given: Value,
    pub(crate) entries: Vec<Override>,
}

/// Which tensor of the runtime's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    Name(String),
    Position(usize),
}

/// One input or output as callers see it; what is `None` stays as the runtime tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Override {
    pub(crate) key: Key,
    /// The place in the description, `inputs['x']`.
    pub(crate) path: String,
    pub(crate) name: Option<String>,
    pub(crate) datatype: Option<Datatype>,
    pub(crate) shape: Option<Vec<Dimension>>,
    pub(crate) layout: Option<Layout>,
    pub(crate) float: Option<Quantization>,
}

/// One dimension as callers see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Dimension {
    Fixed(i64),
    /// Any size, or between the two; under a name.
    Open {
        range: Option<Range>,
        symbol: Option<String>,
    },
}

/// The sizes that a dimension may have, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: i64,
    /// The most.
    pub max: i64,
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            i64::MAX => write!(out, "{} or more", self.min),
            max => write!(out, "{} to {max}", self.min),
        }
    }
}

/// The axes' letters, as callers have them and as the model does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) given: String,
    pub(crate) model: String,
}

/// How stored numbers are meant, real = scale × (stored − zero point); scales are empty where the runtime is to tell them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Quantization {
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Vec<i64>,
    /// Where there are several scales, the axis that they are along, as the model has it.
    pub(crate) axis: usize,
}

impl Overrides {
    /// Whether the description says nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Reads `inputs` or `outputs` of a description: an object by the runtime's names, or a list by position.
    ///
    /// # Errors
    /// `INVALID_OPTION`, with the path.
    pub(crate) fn read(field: &str, given: Value) -> Result<Overrides> {
        let entries = match &given {
            Value::Null => Vec::new(),
            Value::Object(named) => {
                let one = |(name, value): (&String, &Value)| entry(Key::Name(name.clone()), &At { path: format!("{field}['{}']", excerpt(name)), value });
                named.iter().map(one).collect::<Result<_>>()?
            }
            Value::Array(listed) if listed.len() <= MOST => {
                let one = |(index, value)| entry(Key::Position(index), &At { path: format!("{field}[{index}]"), value });
                listed.iter().enumerate().map(one).collect::<Result<_>>()?
            }
            other => return Err(wrong(field, "an object by the runtime's names, or a list", other)),
        };
        let mut given = given;
        for (key, layout) in entries.iter().filter_map(|entry: &Override| Some((&entry.key, entry.layout.as_ref()?))) {
            let said = match key {
                Key::Name(name) => given.get_mut(name),
                Key::Position(index) => given.get_mut(*index),
            };
            // Said in full to a runtime that must know how the model has it.
            if let Some(said) = said {
                said["model_layout"] = layout.model.as_str().into();
            }
        }
        Ok(Overrides { given, entries })
    }
}

impl Serialize for Overrides {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.given.serialize(serializer)
    }
}

/// `INVALID_OPTION` at a place in the description.
#[cold]
pub(crate) fn wrong(path: &str, expected: &str, got: &Value) -> NnrpError {
    let got = excerpt(&got.to_string());
    NnrpError::new(Reason::InvalidOption, format!("model description: {path}: expected {expected}, got {got}"))
        .with("path", path)
        .with("expected", expected)
        .with("got", got)
}

/// A value and its place in the description.
struct At<'v> {
    path: String,
    value: &'v Value,
}

const KEYS: [&str; 9] = ["name", "datatype", "shape", "layout", "model_layout", "as", "scale", "zero_point", "axis"];
const BOUNDS: [&str; 3] = ["min", "max", "name"];

impl At<'_> {
    fn wrong(&self, expected: &str) -> NnrpError {
        wrong(&self.path, expected, self.value)
    }

    /// The value under a key, where there is one; refuses an object with other keys.
    fn object<'a>(&'a self, known: &[&str], expected: &str) -> Result<impl Fn(&str) -> Option<At<'a>> + use<'a>> {
        let object = self.value.as_object().ok_or_else(|| self.wrong(expected))?;
        if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
            let (path, got) = (format!("{}.{}", self.path, excerpt(key)), excerpt(key));
            let message = format!("model description: {path}: unknown key: expected one of {}", known.join(", "));
            return Err(NnrpError::new(Reason::InvalidOption, message).with("path", path).with("expected", known.to_vec()).with("got", got));
        }
        Ok(move |key: &str| object.get(key).filter(|value| !value.is_null()).map(|value| At { path: format!("{}.{key}", self.path), value }))
    }

    fn text(&self, expected: &str) -> Result<String> {
        self.value.as_str().filter(|text| !text.is_empty() && text.len() <= NAME_LIMIT).map(str::to_owned).ok_or_else(|| self.wrong(expected))
    }

    fn size(&self) -> Result<i64> {
        self.value.as_i64().filter(|size| *size >= 0).ok_or_else(|| self.wrong("a whole number from 0"))
    }

    /// The items of a list, or the one value in place of a list of one.
    fn several<T>(&self, one: impl Fn(&At<'_>) -> Result<T>) -> Result<Vec<T>> {
        match self.value {
            Value::Array(items) if items.is_empty() || items.len() > MOST => Err(self.wrong("a number, or a list of numbers")),
            Value::Array(items) => items.iter().enumerate().map(|(index, value)| one(&At { path: format!("{}[{index}]", self.path), value })).collect(),
            _ => Ok(vec![one(self)?]),
        }
    }
}

fn entry(key: Key, at: &At<'_>) -> Result<Override> {
    let mut entry = Override { key, path: at.path.clone(), name: None, datatype: None, shape: None, layout: None, float: None };
    if at.value.is_null() {
        return Ok(entry);
    }
    if at.value.is_string() {
        entry.name = Some(at.text("a name")?);
        return Ok(entry);
    }
    let get = at.object(&KEYS, "a name, or an object")?;
    entry.name = get("name").map(|at| at.text(&format!("a name of 1 to {NAME_LIMIT} bytes"))).transpose()?;
    entry.datatype = get("datatype").map(|at| datatype(&at)).transpose()?;
    entry.shape = get("shape").map(|at| shape(&at)).transpose()?;
    entry.layout = match (get("layout"), get("model_layout")) {
        (None, None) => None,
        (None, Some(at)) => return Err(at.wrong("a 'layout' beside it, which is what callers have")),
        (Some(given), model) => Some(layout(&given, model.as_ref())?),
    };
    entry.float = float(&get)?;
    Ok(entry)
}

fn datatype(at: &At<'_>) -> Result<Datatype> {
    at.value.as_str().and_then(Datatype::from_name).ok_or_else(|| at.wrong("a datatype such as FP32"))
}

fn shape(at: &At<'_>) -> Result<Vec<Dimension>> {
    match at.value {
        Value::Array(dims) if dims.len() <= 64 => {
            dims.iter().enumerate().map(|(index, value)| dimension(&At { path: format!("{}[{index}]", at.path), value })).collect()
        }
        _ => Err(at.wrong("a list of at most 64 dimensions")),
    }
}

fn dimension(at: &At<'_>) -> Result<Dimension> {
    match at.value {
        Value::Number(size) if size.as_i64() == Some(-1) => Ok(Dimension::Open { range: None, symbol: None }),
        Value::Number(size) if size.as_i64().is_some_and(|size| size >= 0) => Ok(Dimension::Fixed(at.size()?)),
        Value::String(_) => Ok(Dimension::Open { range: None, symbol: Some(symbol(at)?) }),
        Value::Object(_) => {
            let get = at.object(&BOUNDS, "an object")?;
            let (min, max) = (get("min").map_or(Ok(0), |at| at.size())?, get("max").map_or(Ok(i64::MAX), |at| at.size())?);
            if min > max {
                return Err(at.wrong("a 'min' that is at most 'max'"));
            }
            let symbol = get("name").map(|at| symbol(&at)).transpose()?;
            Ok(Dimension::Open { range: Some(Range { min, max }), symbol })
        }
        _ => Err(at.wrong("a size, -1 for any, a name, or {min, max}")),
    }
}

/// The name of a dimension; another text would claim nothing (spec §7.10).
fn symbol(at: &At<'_>) -> Result<String> {
    let expected = "the name of a dimension: letters, digits and '_', not beginning with a digit";
    at.text(expected).and_then(|text| if is_name(&text) { Ok(text) } else { Err(at.wrong(expected)) })
}

fn layout(given: &At<'_>, model: Option<&At<'_>>) -> Result<Layout> {
    let letters = |at: &At<'_>| {
        let text = at.text("letters such as NHWC")?;
        let each_once = text.bytes().enumerate().all(|(index, letter)| letter.is_ascii_uppercase() && !text.as_bytes()[..index].contains(&letter));
        if each_once { Ok(text) } else { Err(at.wrong("capital letters, each once, such as NHWC")) }
    };
    let ours = letters(given)?;
    let model = match model {
        Some(at) => {
            let theirs = letters(at)?;
            let same = theirs.len() == ours.len() && theirs.chars().all(|letter| ours.contains(letter));
            if same { theirs } else { return Err(at.wrong(&format!("the letters of {ours} in another order"))) }
        }
        None => counterpart(&ours).ok_or_else(|| given.wrong("channels C first or last, or a 'model_layout' beside it"))?,
    };
    if model == ours {
        return Err(given.wrong("another layout than the model's"));
    }
    Ok(Layout { given: ours, model })
}

/// Channels first for channels last, and the other way round: NHWC and NCHW, HWC and CHW.
fn counterpart(layout: &str) -> Option<String> {
    let first = usize::from(layout.starts_with('N'));
    let rest: String = layout[first..].chars().filter(|letter| *letter != 'C').collect();
    match layout.find('C')? {
        at if at == layout.len() - 1 => Some(format!("{}C{rest}", &layout[..first])),
        at if at == first => Some(format!("{}{rest}C", &layout[..first])),
        _ => None,
    }
}

fn float<'a>(get: &impl Fn(&str) -> Option<At<'a>>) -> Result<Option<Quantization>> {
    let (scale, zero_point, axis) = (get("scale"), get("zero_point"), get("axis"));
    let Some(wanted) = get("as") else {
        let stray = scale.or(zero_point).or(axis);
        return stray.map_or(Ok(None), |at| Err(at.wrong("'as' beside it, such as \"FP32\"")));
    };
    if datatype(&wanted)? != Datatype::Fp32 {
        return Err(wanted.wrong("FP32"));
    }
    let positive = |at: &At<'_>| {
        let scale = at.value.as_f64().map(|scale| scale as f32).filter(|scale| scale.is_normal() && *scale > 0.0);
        scale.ok_or_else(|| at.wrong("a number above 0"))
    };
    let scales = scale.map(|at| at.several(positive)).transpose()?.unwrap_or_default();
    let whole = |at: &At<'_>| at.value.as_i64().ok_or_else(|| at.wrong("a whole number"));
    let zero_points = match &zero_point {
        Some(at) => at.several(whole)?,
        None => vec![0; scales.len()],
    };
    if let Some(at) = zero_point.filter(|_| zero_points.len() != scales.len()) {
        return Err(at.wrong(&format!("one for each scale, {}", scales.len())));
    }
    let axis = axis.map_or(Ok(0), |at| at.size())?;
    Ok(Some(Quantization { scales, zero_points, axis: usize::try_from(axis).unwrap_or(usize::MAX) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(given: Value) -> (String, String) {
        let error = Overrides::read("inputs", given).unwrap_err();
        (error.details()["path"].as_str().unwrap().to_owned(), error.message().to_owned())
    }

    #[test]
    fn a_name_alone_stands_for_an_object_with_a_name_by_position_or_by_name() {
        let listed = Overrides::read("outputs", json!(["note", {"name": "onset"}])).unwrap();
        let named = Overrides::read("outputs", json!({"a": "note", "b": {"name": "onset"}})).unwrap();
        for (index, name) in ["note", "onset"].into_iter().enumerate() {
            assert_eq!((&listed.entries[index].key, listed.entries[index].name.as_deref()), (&Key::Position(index), Some(name)));
            assert_eq!(named.entries[index].name.as_deref(), Some(name));
        }
        assert_eq!(serde_json::to_value(&named).unwrap(), json!({"a": "note", "b": {"name": "onset"}}));
        assert!(Overrides::read("outputs", Value::Null).unwrap().is_empty());
    }

    #[test]
    fn a_runtime_is_told_a_layout_in_full() {
        let told = |given: Value| serde_json::to_value(Overrides::read("inputs", given).unwrap()).unwrap();
        assert_eq!(told(json!([null, {"layout": "NHWC"}])), json!([null, {"layout": "NHWC", "model_layout": "NCHW"}]));
        let named = json!({"x": {"layout": "TN", "model_layout": "NT"}, "y": "z"});
        assert_eq!(told(named.clone()), named);
    }

    #[test]
    fn dimensions_are_sizes_names_and_bounds() {
        let read = Overrides::read("inputs", json!([{"shape": [3, -1, "n", {"min": 1, "max": 8, "name": "b"}, {"max": 2}]}])).unwrap();
        let open = |range: Option<(i64, i64)>, symbol: Option<&str>| Dimension::Open {
            range: range.map(|(min, max)| Range { min, max }),
            symbol: symbol.map(str::to_owned),
        };
        let expected = [Dimension::Fixed(3), open(None, None), open(None, Some("n")), open(Some((1, 8)), Some("b")), open(Some((0, 2)), None)];
        assert_eq!(read.entries[0].shape.as_deref().unwrap(), expected);
    }

    #[test]
    fn a_layout_has_a_counterpart_where_the_channels_are_first_or_last() {
        for (given, model) in [("NHWC", "NCHW"), ("NCHW", "NHWC"), ("HWC", "CHW"), ("CHW", "HWC"), ("NWC", "NCW"), ("NDHWC", "NCDHW")] {
            let read = Overrides::read("inputs", json!([{"layout": given}])).unwrap();
            assert_eq!(read.entries[0].layout, Some(Layout { given: given.into(), model: model.into() }));
        }
        let read = Overrides::read("inputs", json!([{"layout": "TN", "model_layout": "NT"}])).unwrap();
        assert_eq!(read.entries[0].layout.as_ref().unwrap().model, "NT");
    }

    #[test]
    fn each_mistake_of_a_description_is_told_with_its_path() {
        for (given, path, says) in [
            (json!(5), "inputs", "an object by the runtime's names"),
            (json!({"x": 5}), "inputs['x']", "a name, or an object"),
            (json!({"x": {"nam": "y"}}), "inputs['x'].nam", "unknown key"),
            (json!({"x": {"name": ""}}), "inputs['x'].name", "1 to 256 bytes"),
            (json!([{"datatype": "FP31"}]), "inputs[0].datatype", "a datatype"),
            (json!([{"shape": 3}]), "inputs[0].shape", "a list"),
            (json!([{}, {"shape": [1, -2]}]), "inputs[1].shape[1]", "a size, -1"),
            (json!([{"shape": [1.5]}]), "inputs[0].shape[0]", "a size"),
            (json!([{"shape": [4, "batch-size"]}]), "inputs[0].shape[1]", "letters, digits and '_'"),
            (json!([{"shape": ["1n"]}]), "inputs[0].shape[0]", "not beginning with a digit"),
            (json!([{"shape": ["?"]}]), "inputs[0].shape[0]", "the name of a dimension"),
            (json!([{"shape": [{"min": 1, "name": "batch size"}]}]), "inputs[0].shape[0].name", "the name of a dimension"),
            (json!([{"shape": [{"min": 3, "max": 2}]}]), "inputs[0].shape[0]", "at most 'max'"),
            (json!([{"shape": [{"least": 3}]}]), "inputs[0].shape[0].least", "unknown key"),
            (json!([{"layout": "nhwc"}]), "inputs[0].layout", "capital letters"),
            (json!([{"layout": "HH"}]), "inputs[0].layout", "each once"),
            (json!([{"layout": "NHCW"}]), "inputs[0].layout", "first or last"),
            (json!([{"layout": "NC"}]), "inputs[0].layout", "another layout"),
            (json!([{"layout": "TN", "model_layout": "NX"}]), "inputs[0].model_layout", "letters of TN"),
            (json!([{"model_layout": "NCHW"}]), "inputs[0].model_layout", "a 'layout' beside it"),
            (json!([{"as": "FP16"}]), "inputs[0].as", "FP32"),
            (json!([{"scale": 0.5}]), "inputs[0].scale", "'as' beside it"),
            (json!([{"as": "FP32", "scale": 0}]), "inputs[0].scale", "above 0"),
            (json!([{"as": "FP32", "scale": [0.5, "x"]}]), "inputs[0].scale[1]", "above 0"),
            (json!([{"as": "FP32", "scale": 0.5, "zero_point": [1, 2]}]), "inputs[0].zero_point", "one for each scale"),
        ] {
            let (at, message) = refused(given.clone());
            assert!(at == path && message.contains(says), "{given}: {at}: {message}");
        }
    }
}
