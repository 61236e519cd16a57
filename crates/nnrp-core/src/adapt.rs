//! A session as callers see it: under the names, shapes, layouts and types that the model's description says (spec §6.6).
//!
//! Where the description says nothing, the runtime's session is used itself. Names and shapes alone cost a call more and no copy.
use crate::convert::{Axes, QUANTIZED, bounds, dequantize, quantize, transpose};
use crate::error::{NnrpError, Reason, Result};
use crate::model::{ModelSpec, NAME_LIMIT, Signature, TensorSpec};
use crate::overrides::{Dimension, Key, Layout, Override, Overrides, Quantization, wrong};
use crate::runtime::{Control, Outputs, Reading, Room, Session, SessionInfo, Sink, Verb};
use crate::stop::Stop;
use crate::tensor::{Datatype, Shape, Tensor};
use crate::validate::{check_output, wrong_output};
use serde_json::{Map, Value, json};
use smallvec::SmallVec;

/// What becomes of one input or output between callers and the runtime.
#[derive(Clone, Default)]
struct Change {
    /// For each of the model's axes, which one it is of the callers'; and the other way round.
    axes: Option<(Axes, Axes)>,
    /// What the model stores, and how it is meant.
    stored: Option<(Datatype, Quantization)>,
    /// Whether callers see other dimensions than the runtime tells, so that outputs must be looked at.
    narrowed: bool,
}

struct Adapted {
    session: Box<dyn Session>,
    info: SessionInfo,
    inputs: Vec<Change>,
    outputs: Vec<Change>,
    /// Whether any input is converted.
    converts: bool,
}

/// The session under the names, shapes, layouts and types of the model's description, with another signature first where there is one.
///
/// # Errors
/// `INVALID_OPTION` with the path in the description, what was expected and what was got, where it contradicts what the runtime tells.
pub(crate) fn adapt(session: Box<dyn Session>, spec: &ModelSpec, named: Option<Signature>) -> Result<Box<dyn Session>> {
    let overrides = !spec.inputs.is_empty() || !spec.outputs.is_empty();
    if !overrides && named.is_none() {
        return Ok(session);
    }
    let mut info = session.info().clone();
    info.signature = named.unwrap_or(info.signature);
    let (inputs, told_inputs) = changes("inputs", &spec.inputs, &mut info.signature.inputs, &info.settings)?;
    let (outputs, told_outputs) = changes("outputs", &spec.outputs, &mut info.signature.outputs, &info.settings)?;
    if overrides {
        info.settings.insert("overrides".to_owned(), json!({"inputs": told_inputs, "outputs": told_outputs}));
    }
    let converts = inputs.iter().any(|change| change.axes.is_some() || change.stored.is_some());
    Ok(Box::new(Adapted { session, info, inputs, outputs, converts }))
}

impl Session for Adapted {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        let mut answer = if self.converts { self.session.run(&self.take(inputs)?, outputs, control)? } else { self.session.run(inputs, outputs, control)? };
        self.give(outputs, &mut answer)?;
        Ok(answer)
    }

    fn run_into(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, room: &dyn Room) -> Result<Outputs> {
        let mut answer = if self.converts {
            self.session.run_into(&self.take(inputs)?, outputs, control, room)?
        } else {
            self.session.run_into(inputs, outputs, control, room)?
        };
        self.give(outputs, &mut answer)?;
        Ok(answer)
    }

    fn stream(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let mut unfit = None;
        let mut adapted = |mut answer: Outputs| match self.give(outputs, &mut answer) {
            Ok(()) => sink(answer),
            // The session hears that nobody wants more; the caller hears why.
            Err(error) => Err(unfit.insert(error).clone()),
        };
        let done = if self.converts {
            self.session.stream(&self.take(inputs)?, outputs, control, &mut adapted)
        } else {
            self.session.stream(inputs, outputs, control, &mut adapted)
        };
        unfit.map_or(done, Err)
    }

    fn work(&self, turns: &mut (dyn FnMut() + Send)) {
        self.session.work(turns);
    }

    fn wait(&self, until: &mut (dyn FnMut() + Send)) {
        self.session.wait(until);
    }

    fn back(&self, stop: &Stop) -> Result<bool> {
        self.session.back(stop)
    }

    fn reading(&self) -> Option<Reading> {
        if self.converts { None } else { self.session.reading() }
    }

    fn workers(&self) -> Option<usize> {
        self.session.workers()
    }

    fn state(&self) -> Map<String, Value> {
        self.session.state()
    }

    fn tend(&self, verb: Verb<'_>) -> Result<Value> {
        self.session.tend(verb)
    }

    fn warm_up(&self) -> Result<()> {
        self.session.warm_up()
    }

    fn stats(&self) -> Result<Value> {
        self.session.stats()
    }

    fn set_option(&self, name: &str, value: &Value) -> Result<()> {
        self.session.set_option(name, value)
    }
}

impl Adapted {
    fn take<'t>(&self, inputs: &'t [Option<Tensor<'_>>]) -> Result<SmallVec<[Option<Tensor<'t>>; 4]>> {
        let each = inputs.iter().zip(&self.inputs).zip(&self.info.signature.inputs);
        each.map(|((tensor, change), spec)| change.take(tensor.as_ref(), spec)).collect()
    }

    fn give(&self, outputs: &[usize], answer: &mut Outputs) -> Result<()> {
        let mut each = outputs.iter().zip(answer);
        each.try_for_each(|(index, tensor)| self.outputs[*index].give(self.info.runtime, &self.info.signature.outputs[*index], tensor))
    }
}

impl Change {
    /// An input as the runtime takes it.
    fn take<'t>(&self, tensor: Option<&'t Tensor<'_>>, spec: &TensorSpec) -> Result<Option<Tensor<'t>>> {
        let Some(tensor) = tensor else { return Ok(None) };
        let mut taken = Tensor::borrowed(tensor.datatype, &tensor.shape, tensor.bytes());
        if let Some((to_model, _)) = &self.axes {
            taken = transpose(&taken, to_model);
        }
        if let Some((datatype, meaning)) = &self.stored {
            let named = |error: NnrpError| NnrpError::new(Reason::ValueOutOfRange, format!("input '{}': {}", spec.name, error.message()));
            taken = quantize(&taken, *datatype, meaning).map_err(|error| named(error).with("input", &*spec.name))?;
        }
        Ok(Some(taken))
    }

    /// An output as callers see it.
    fn give(&self, runtime: &str, spec: &TensorSpec, tensor: &mut Tensor<'static>) -> Result<()> {
        let misfit = |expected: String, got: String| {
            let message = format!("output '{}': expected {expected}, got {got}", spec.name);
            wrong_output(runtime, &NnrpError::new(Reason::RunFailed, message).with("output", &*spec.name).with("expected", expected).with("got", got))
        };
        if let Some((datatype, meaning)) = &self.stored {
            if tensor.datatype != *datatype {
                return Err(misfit(format!("datatype {}", datatype.name()), tensor.datatype.name().to_owned()));
            }
            *tensor = dequantize(tensor, meaning);
        }
        if let Some((_, to_callers)) = &self.axes {
            if tensor.shape.len() != to_callers.len() {
                return Err(misfit(format!("{} dimensions", to_callers.len()), tensor.shape.len().to_string()));
            }
            *tensor = transpose(tensor, to_callers);
        }
        if self.narrowed { check_output(runtime, spec, tensor) } else { Ok(()) }
    }
}

/// Changes the specs to what callers see, and tells for each that changes what it is to the runtime.
fn changes(field: &str, overrides: &Overrides, specs: &mut [TensorSpec], settings: &Map<String, Value>) -> Result<(Vec<Change>, Map<String, Value>)> {
    let (mut changes, mut told) = (vec![Change::default(); specs.len()], Map::new());
    let before = specs.to_vec();
    for entry in &overrides.entries {
        let index = find(field, entry, &before)?;
        let was = &before[index];
        let tells = settings.get("quantization").and_then(|all| all.get(&*was.name));
        changes[index] = change(entry, &mut specs[index], tells)?;
        let told_of = entry.tell(was, &changes[index]);
        told.insert(specs[index].name.to_string(), told_of);
    }
    for (index, spec) in specs.iter().enumerate() {
        if specs[..index].iter().any(|other| other.name == spec.name) {
            return Err(wrong(field, "names that differ", &json!(&*spec.name)));
        }
    }
    Ok((changes, told))
}

/// The place of the tensor that an entry is about.
fn find(field: &str, entry: &Override, specs: &[TensorSpec]) -> Result<usize> {
    match &entry.key {
        Key::Position(index) if *index < specs.len() => Ok(*index),
        Key::Position(index) => Err(wrong(field, &format!("at most {}, as the runtime tells", specs.len()), &json!(index + 1))),
        Key::Name(name) => specs.iter().position(|spec| *spec.name == **name).ok_or_else(|| {
            let known: Vec<&str> = specs.iter().take(16).map(|spec| &*spec.name).collect();
            wrong(&entry.path, &format!("a name that the runtime tells, one of {known:?}"), &json!(name))
        }),
    }
}

fn change(entry: &Override, spec: &mut TensorSpec, tells: Option<&Value>) -> Result<Change> {
    let axes = entry.layout.as_ref().map(|layout| turn(entry, layout, spec)).transpose()?;
    let stored = store(entry, spec, tells, axes.as_ref())?;
    let narrowed = match &entry.shape {
        Some(shape) => narrow(entry, shape, spec)?,
        None => false,
    };
    let stated = |datatype: &Datatype| *datatype == spec.datatype || stored.as_ref().is_some_and(|(stored, _)| datatype == stored);
    if let Some(datatype) = entry.datatype.filter(|datatype| !stated(datatype)) {
        return Err(wrong(&format!("{}.datatype", entry.path), spec.datatype.name(), &json!(datatype.name())));
    }
    if let Some(name) = &entry.name {
        spec.name = name.as_str().into();
    }
    debug_assert!(spec.name.len() <= NAME_LIMIT);
    Ok(Change { axes, stored, narrowed })
}

/// Puts the axes in the callers' order.
fn turn(entry: &Override, layout: &Layout, spec: &mut TensorSpec) -> Result<(Axes, Axes)> {
    let path = format!("{}.layout", entry.path);
    if matches!(spec.datatype, Datatype::Bytes | Datatype::Int4 | Datatype::Uint4) {
        return Err(wrong(&path, &format!("no layout, because elements of {} do not change places", spec.datatype.name()), &json!(layout.given)));
    }
    let shape = spec.shape.get_or_insert_with(|| Shape::from_elem(-1, layout.given.len()));
    if shape.len() != layout.given.len() {
        return Err(wrong(&path, &format!("{} letters, as the runtime tells {:?}", shape.len(), shape.as_slice()), &json!(layout.given)));
    }
    let order = |these: &str, those: &str| these.chars().filter_map(|letter| those.find(letter)).collect::<Axes>();
    let (to_model, to_callers) = (order(&layout.model, &layout.given), order(&layout.given, &layout.model));
    spec.shape = Some(to_callers.iter().map(|axis| shape[*axis]).collect());
    spec.symbols = if spec.symbols.is_empty() { vec![] } else { to_callers.iter().map(|axis| spec.symbols[*axis].clone()).collect() };
    Ok((to_model, to_callers))
}

/// Shows stored numbers as real ones; those that are real already stay.
fn store(entry: &Override, spec: &mut TensorSpec, tells: Option<&Value>, axes: Option<&(Axes, Axes)>) -> Result<Option<(Datatype, Quantization)>> {
    let Some(given) = &entry.float else { return Ok(None) };
    let (path, stored) = (format!("{}.as", entry.path), spec.datatype);
    if stored == Datatype::Fp32 && given.scales.is_empty() {
        return Ok(None);
    }
    if !QUANTIZED.contains(&stored) {
        let expected = format!("a tensor of INT8, UINT8, INT16 or UINT16, and the runtime tells {}", stored.name());
        return Err(wrong(&path, &expected, &json!("FP32")));
    }
    let (least, most) = bounds(stored);
    if let Some(odd) = given.zero_points.iter().find(|zero_point| !(least..=most).contains(zero_point)) {
        let expected = format!("a number that {} stores, {least} to {most}", stored.name());
        return Err(wrong(&format!("{}.zero_point", entry.path), &expected, &json!(odd)));
    }
    let told = tells.and_then(told);
    let meaning = match (told, given.scales.is_empty()) {
        (Some(told), true) => told,
        (None, false) => given.clone(),
        (Some(told), false) if told.scales == given.scales && told.zero_points == given.zero_points => told,
        (Some(told), false) => {
            let expected = format!("scale {:?} and zero point {:?}, as the runtime tells", told.scales, told.zero_points);
            return Err(wrong(&format!("{}.scale", entry.path), &expected, &json!([given.scales, given.zero_points])));
        }
        (None, true) => return Err(wrong(&format!("{}.scale", entry.path), "a scale, because the runtime tells none", &Value::Null)),
    };
    let count = i64::try_from(meaning.scales.len()).unwrap_or(i64::MAX);
    let size = spec.shape.as_ref().and_then(|shape| {
        // The axis is the model's, the shape the callers' by now.
        let axis = axes.map_or(Some(meaning.axis), |(to_model, _)| to_model.get(meaning.axis).copied())?;
        shape.get(axis).copied()
    });
    if count != 1 && size != Some(count) {
        let got = json!({"axis": meaning.axis, "scales": count, "size": size});
        return Err(wrong(&format!("{}.scale", entry.path), "one, or as many as a fixed dimension at 'axis' has", &got));
    }
    spec.datatype = Datatype::Fp32;
    Ok(Some((stored, meaning)))
}

/// What a runtime tells among its settings, `{"scales", "zero_points", "axis"}`.
fn told(tells: &Value) -> Option<Quantization> {
    let scales: Vec<f32> = tells["scales"].as_array()?.iter().filter_map(|scale| Some(scale.as_f64()? as f32)).collect();
    let mut zero_points: Vec<i64> = tells["zero_points"].as_array()?.iter().filter_map(Value::as_i64).collect();
    if zero_points.len() == 1 {
        zero_points.resize(scales.len(), zero_points[0]);
    }
    let axis = usize::try_from(tells["axis"].as_u64().unwrap_or(0)).ok()?;
    (!scales.is_empty() && scales.len() == zero_points.len()).then_some(Quantization { scales, zero_points, axis })
}

/// Fixes, bounds and names dimensions, and tells whether any is other than before.
fn narrow(entry: &Override, given: &[Dimension], spec: &mut TensorSpec) -> Result<bool> {
    let was = spec.shape.clone();
    let mut shape = was.clone().unwrap_or_else(|| Shape::from_elem(-1, given.len()));
    if shape.len() != given.len() {
        let expected = format!("{} dimensions, as the runtime tells {:?}", shape.len(), shape.as_slice());
        return Err(wrong(&format!("{}.shape", entry.path), &expected, &json!(given.len())));
    }
    let (mut symbols, mut ranges) = (std::mem::take(&mut spec.symbols), vec![None; shape.len()]);
    symbols.resize(shape.len(), None);
    for (axis, dimension) in given.iter().enumerate() {
        match dimension {
            Dimension::Fixed(size) if [-1, *size].contains(&shape[axis]) => shape[axis] = *size,
            Dimension::Open { range, symbol } if shape[axis] == -1 => {
                ranges[axis] = *range;
                symbols[axis] = symbol.clone().or_else(|| symbols[axis].take());
            }
            other => return Err(wrong(&format!("{}.shape[{axis}]", entry.path), &format!("{}, as the runtime tells", shape[axis]), &other.tell())),
        }
    }
    symbols.iter_mut().zip(&shape).filter(|(_, size)| **size != -1).for_each(|(symbol, _)| *symbol = None);
    spec.symbols = if symbols.iter().all(Option::is_none) { vec![] } else { symbols };
    spec.ranges = if ranges.iter().all(Option::is_none) { vec![] } else { ranges };
    let narrowed = was.as_ref() != Some(&shape) || !spec.ranges.is_empty();
    spec.shape = Some(shape);
    Ok(narrowed)
}

impl Dimension {
    fn tell(&self) -> Value {
        match self {
            Dimension::Fixed(size) => json!(size),
            Dimension::Open { range: None, symbol: Some(symbol) } => json!(symbol),
            Dimension::Open { range: Some(range), .. } => json!(range.to_string()),
            Dimension::Open { .. } => json!(-1),
        }
    }
}

impl Override {
    /// What the runtime has in its place.
    fn tell(&self, was: &TensorSpec, change: &Change) -> Value {
        let mut told = json!({"name": &*was.name, "datatype": was.datatype.name(), "shape": was.shape.as_deref()});
        if let Some(layout) = self.layout.as_ref().filter(|_| change.axes.is_some()) {
            told["layout"] = layout.model.as_str().into();
        }
        if let Some((_, meaning)) = &change.stored {
            told["quantization"] = json!({"scales": meaning.scales, "zero_points": meaning.zero_points, "axis": meaning.axis});
        }
        told
    }
}
