//! What a model's description says otherwise of inputs and outputs, beside a session that gives back what it takes.
use nnrp_core::runtime::Runtimes;
use nnrp_core::{
    Control, Data, Datatype, Engine, Input, ModelSpec, Output, Outputs, Reason, Request, Result, Runtime, RuntimeInfo, Session, SessionInfo, Settings, Tensor,
    Threads,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// Outputs are the inputs, in order; the option `tells` is what it tells of its session.
struct Echo;

struct EchoSession(SessionInfo);

impl Runtime for Echo {
    fn name(&self) -> &'static str {
        "echo"
    }

    fn info(&self) -> RuntimeInfo {
        RuntimeInfo::from_json("echo", "{}")
    }

    fn load(&self, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        Ok(Box::new(EchoSession(SessionInfo::from_json("echo", Threads::Any, &spec.options["tells"].to_string())?)))
    }
}

impl Session for EchoSession {
    fn info(&self) -> &SessionInfo {
        &self.0
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], _: Control<'_>) -> Result<Outputs> {
        Ok(outputs.iter().map(|index| inputs[*index].clone().unwrap().into_owned()).collect())
    }

    fn workers(&self) -> Option<usize> {
        Some(3)
    }
}

fn tells(tensors: &[(&str, &str, Value)]) -> Value {
    let all: Vec<Value> = tensors.iter().map(|(name, datatype, shape)| json!({"name": name, "datatype": datatype, "shape": shape})).collect();
    json!({"version": "1", "format": "echo", "device": "cpu", "exclusive": false, "cancellable": false, "settings": {}, "inputs": all, "outputs": all})
}

fn load(tells: &Value, inputs: &Value, outputs: &Value) -> Result<Engine> {
    let mut runtimes = Runtimes::default();
    runtimes.add(Arc::new(Echo));
    let engine = Engine::new(Settings::default(), runtimes);
    let described = json!({"name": "m", "path": "m", "options": {"tells": tells}, "inputs": inputs, "outputs": outputs});
    engine.load(ModelSpec::from_json(&described.to_string())?)?;
    Ok(engine)
}

fn infer(engine: &Engine, inputs: Vec<(&'static str, Tensor<'static>)>) -> Result<Vec<Output>> {
    let inputs = inputs.into_iter().map(|(name, tensor)| Input { name: name.into(), tensor }).collect();
    Ok(engine.infer(Request { model: "m".into(), inputs, ..Request::default() })?.outputs.into_iter().collect())
}

fn floats(shape: &[i64], values: &[f32]) -> Tensor<'static> {
    Tensor::from_values(Datatype::Fp32, shape, values.to_vec())
}

fn values(tensor: &Tensor<'_>) -> Vec<f32> {
    tensor.bytes().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The path, what was expected, and what was got.
fn refused(tells: &Value, inputs: &Value) -> (String, String, String) {
    let error = load(tells, inputs, &Value::Null).err().expect("refused");
    assert!(error.is(Reason::InvalidOption), "{error}");
    let detail = |key: &str| error.details()[key].as_str().unwrap_or_default().to_owned();
    (detail("path"), detail("expected"), detail("got"))
}

#[test]
fn names_are_given_by_the_runtimes_own_and_by_position_and_nothing_is_copied() {
    let tells = tells(&[("a", "FP32", json!([-1])), ("b", "FP32", json!([-1]))]);
    let engine = load(&tells, &json!({"a": "b", "b": {"name": "a"}}), &json!([null, "second"])).unwrap();
    let (b, a) = (floats(&[2], &[1.0, 2.0]), floats(&[1], &[3.0]));
    let Data::Shared(given) = b.data.clone() else { panic!("not shared") };
    let answer = infer(&engine, vec![("a", a), ("b", b)]).unwrap();
    assert_eq!(answer.iter().map(|output| &*output.name).collect::<Vec<_>>(), ["a", "second"]);
    assert_eq!((values(&answer[0].tensor), values(&answer[1].tensor)), (vec![1.0, 2.0], vec![3.0]));
    assert_eq!(answer[0].tensor.bytes().as_ptr(), given.as_ptr());
    let loaded = engine.model("m", "").unwrap();
    assert_eq!(loaded.session.info().settings["overrides"]["inputs"]["b"]["name"], "a");
    assert_eq!(loaded.session.workers(), Some(3));
}

#[test]
fn without_overrides_the_session_is_the_runtimes_own() {
    let engine = load(&tells(&[("a", "FP32", json!([1]))]), &json!({}), &json!([])).unwrap();
    assert!(!engine.model("m", "").unwrap().session.info().settings.contains_key("overrides"));
}

#[test]
fn dimensions_are_fixed_bounded_and_named_before_a_runtime_sees_a_request() {
    let tells = tells(&[("x", "FP32", json!([-1, -1, -1]))]);
    let engine = load(&tells, &json!([{"shape": [2, {"min": 1, "max": 2}, "time"]}]), &Value::Null).unwrap();
    let signature = engine.model("m", "").unwrap().signature().clone();
    assert_eq!(signature.inputs[0].wire_shape().as_slice(), [2, -1, -1]);
    assert_eq!(signature.inputs[0].symbols, [None, None, Some("time".to_owned())]);
    assert!(infer(&engine, vec![("x", floats(&[2, 2, 1], &[0.0; 4]))]).is_ok());
    for (shape, says) in [([1, 2, 1], "[2, -1, -1]"), ([2, 3, 1], "dimension 1: expected 1 to 2, got 3"), ([2, 0, 1], "got 0")] {
        let count = shape.iter().product::<i64>() as usize;
        let error = infer(&engine, vec![("x", floats(&shape, &vec![0.0; count]))]).unwrap_err();
        assert!(error.is(Reason::ShapeMismatch) && error.message().contains(says), "{error}");
    }
}

#[test]
fn a_shape_that_was_lost_is_said_and_outputs_are_held_to_it() {
    let tells = tells(&[("x", "FP32", Value::Null)]);
    let engine = load(&tells, &Value::Null, &json!([{"shape": [-1, 2]}])).unwrap();
    assert!(infer(&engine, vec![("x", floats(&[1, 2], &[0.0; 2]))]).is_ok());
    let error = infer(&engine, vec![("x", floats(&[2], &[0.0; 2]))]).unwrap_err();
    assert!(error.is(Reason::RunFailed) && error.message().contains("output 'x': expected shape [-1, 2], got [2]"), "{error}");
}

#[test]
fn callers_have_their_layout_and_the_model_its_own() {
    let tells = tells(&[("x", "FP32", json!([1, 2, 1, 2]))]);
    let engine = load(&tells, &json!({"x": {"layout": "NHWC", "shape": [1, 1, 2, 2]}}), &Value::Null).unwrap();
    assert_eq!(engine.model("m", "").unwrap().signature().inputs[0].wire_shape().as_slice(), [1, 1, 2, 2]);
    let seen = infer(&engine, vec![("x", floats(&[1, 1, 2, 2], &[1.0, 10.0, 2.0, 20.0]))]).unwrap();
    assert_eq!((seen[0].tensor.shape.as_slice(), values(&seen[0].tensor)), (&[1, 2, 1, 2][..], vec![1.0, 2.0, 10.0, 20.0]));
    let both = load(&tells, &json!([{"layout": "NHWC"}]), &json!([{"layout": "NHWC"}])).unwrap();
    let same = infer(&both, vec![("x", floats(&[1, 1, 2, 2], &[1.0, 10.0, 2.0, 20.0]))]).unwrap();
    assert_eq!((same[0].tensor.shape.as_slice(), values(&same[0].tensor)), (&[1, 1, 2, 2][..], vec![1.0, 10.0, 2.0, 20.0]));
}

#[test]
fn what_is_stored_in_few_bits_is_seen_as_the_numbers_that_it_means() {
    let mut tells = tells(&[("q", "INT8", json!([-1, 2]))]);
    let (path, expected, got) = refused(&tells, &json!([{"as": "FP32", "scale": [0.5], "zero_point": [128]}]));
    assert_eq!((&*path, &*expected, &*got), ("inputs[0].zero_point", "a number that INT8 stores, -128 to 127", "128"));
    let float = json!([{"as": "FP32", "scale": 0.5, "zero_point": -3, "datatype": "INT8"}]);
    let engine = load(&tells, &float, &Value::Null).unwrap();
    let stored = infer(&engine, vec![("q", floats(&[1, 2], &[1.0, 1000.0]))]).unwrap();
    assert_eq!(stored[0].tensor.bytes(), [(-1i8).cast_unsigned(), 127]);
    let error = infer(&engine, vec![("q", floats(&[1, 2], &[1.0, f32::NAN]))]).unwrap_err();
    assert!(error.is(Reason::ValueOutOfRange) && error.message() == "input 'q': element 1: expected a number, got NaN", "{error}");

    tells["settings"] = json!({"quantization": {"q": {"scales": [0.5, 2.0], "zero_points": [0, 1], "axis": 1}}});
    let engine = load(&tells, &json!([{"as": "FP32"}]), &json!({"q": {"as": "FP32", "datatype": "FP32"}})).unwrap();
    let there_and_back = infer(&engine, vec![("q", floats(&[2, 2], &[0.5, 4.0, 1.0, 6.0]))]).unwrap();
    assert_eq!(values(&there_and_back[0].tensor), [0.5, 4.0, 1.0, 6.0]);
    let told = engine.model("m", "").unwrap().session.info().settings["overrides"]["outputs"]["q"].clone();
    assert_eq!(told["quantization"]["scales"], json!([0.5, 2.0]));
}

#[test]
fn a_contradiction_names_its_path_what_was_expected_and_what_was_got() {
    let tells = tells(&[("x", "FP32", json!([-1, 3])), ("q", "INT8", json!([-1])), ("t", "BYTES", json!([-1, 1]))]);
    for (inputs, path, expected, got) in [
        (json!({"z": "y"}), "inputs['z']", r#"a name that the runtime tells, one of ["x", "q", "t"]"#, "\"z\""),
        (json!(["a", "b", "c", "d"]), "inputs", "at most 3, as the runtime tells", "4"),
        (json!({"x": "q"}), "inputs", "names that differ", "\"q\""),
        (json!({"x": {"shape": [1]}}), "inputs['x'].shape", "2 dimensions, as the runtime tells [-1, 3]", "1"),
        (json!({"x": {"shape": [1, 4]}}), "inputs['x'].shape[1]", "3, as the runtime tells", "4"),
        (json!({"x": {"shape": [1, "n"]}}), "inputs['x'].shape[1]", "3, as the runtime tells", "\"n\""),
        (json!({"x": {"shape": [1, {"max": 9}]}}), "inputs['x'].shape[1]", "3, as the runtime tells", "\"0 to 9\""),
        (json!({"x": {"datatype": "FP16"}}), "inputs['x'].datatype", "FP32", "\"FP16\""),
        (json!({"x": {"layout": "NHWC"}}), "inputs['x'].layout", "2 letters, as the runtime tells [-1, 3]", "\"NHWC\""),
        (json!({"t": {"layout": "HN", "model_layout": "NH"}}), "inputs['t'].layout", "no layout, because elements of BYTES do not change places", "\"HN\""),
        (json!({"q": {"as": "FP32", "scale": 1, "datatype": "INT16"}}), "inputs['q'].datatype", "FP32", "\"INT16\""),
        (json!({"q": {"as": "FP32"}}), "inputs['q'].scale", "a scale, because the runtime tells none", "null"),
        (json!({"x": {"as": "FP32", "scale": 2}}), "inputs['x'].as", "a tensor of INT8, UINT8, INT16 or UINT16, and the runtime tells FP32", "\"FP32\""),
    ] {
        assert_eq!(refused(&tells, &inputs), (path.to_owned(), expected.to_owned(), got.to_owned()), "{inputs}");
    }
    assert!(load(&tells, &json!({"x": {"as": "FP32"}}), &Value::Null).is_ok());
}
