//! Inputs, outputs and the names of their dimensions, as an ONNX file has them.
use super::{read, weights};
use nnrp_core::error::excerpt;
use nnrp_core::{Datatype, NnrpError, Reason, Result, TensorSpec};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// The names of the inputs' dimensions; `None` when the file cannot be read.
pub(crate) fn symbols(path: &Path) -> Option<BTreeSet<String>> {
    let (model, _) = read(path).ok()?;
    let dims = model.inputs.iter().filter_map(|(_, described)| dims(described)).flatten();
    Some(dims.filter_map(name).collect())
}

/// The names of the dimensions of all inputs and outputs, by tensor; none when the file cannot be read or is no ONNX file.
pub(crate) fn named_dimensions(path: &Path, format: &str) -> HashMap<String, Vec<Option<String>>> {
    let Some((model, _)) = (format == "onnx").then(|| read(path).ok()).flatten() else { return HashMap::new() };
    let tensors = model.inputs.iter().chain(&model.outputs);
    tensors.filter_map(|(tensor, described)| Some((tensor.clone(), dims(described)?.iter().map(name).collect()))).collect()
}

/// The inputs that a caller has to give, as the file names them: those without a value in the file.
///
/// # Errors
/// `INVALID_MODEL`, also for weights that lie elsewhere than in files beside the model; `NOT_OFFERED` for an input that is no tensor, or whose elements have no datatype.
pub(crate) fn inputs(path: &Path) -> Result<Vec<TensorSpec>> {
    let (model, _) = read(path)?;
    weights::check(path, &model.external)?;
    let given = model.inputs.iter().filter(|(name, _)| !model.initializers.contains(name));
    given.map(|(name, described)| input(name, described)).collect()
}

fn input(name: &str, described: &Map<String, Value>) -> Result<TensorSpec> {
    let text = described.get("datatype").and_then(Value::as_str);
    let datatype = text.and_then(Datatype::from_name).ok_or_else(|| {
        let name = excerpt(name);
        NnrpError::new(Reason::NotOffered, format!("input '{name}': expected a tensor of a datatype that there is here")).with("input", name)
    })?;
    let dims = dims(described);
    let shape = dims.map(|dims| dims.iter().map(|dim| dim.as_i64().unwrap_or(-1).max(-1)).collect());
    let symbols = dims.into_iter().flatten().map(self::name).collect();
    Ok(TensorSpec { name: name.into(), datatype, shape, symbols, ranges: vec![], optional: false })
}

fn dims(described: &Map<String, Value>) -> Option<&Vec<Value>> {
    described.get("shape")?.as_array()
}

/// A dimension's name, where it has one.
fn name(dim: &Value) -> Option<String> {
    dim.as_str().map(str::to_owned)
}
