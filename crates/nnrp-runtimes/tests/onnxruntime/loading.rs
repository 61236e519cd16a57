use super::{load, load_with};
use crate::common::{model, onnxruntime, spec};
use nnrp_core::{Concurrency, Datatype, ModelSpec, NnrpError, Precision, Reason, Runtime, Session, TensorSpec};
use serde_json::{Value, json};

fn shape(spec: &TensorSpec) -> Option<Vec<i64>> {
    spec.shape.as_ref().map(|shape| shape.to_vec())
}

#[test]
fn the_runtime_tells_its_version_its_providers_and_its_options() {
    let info = onnxruntime().info();
    assert_eq!(info.name, "onnxruntime");
    assert!(info.version.starts_with("1."), "{}", info.version);
    assert!(info.devices.contains(&"CPUExecutionProvider".to_owned()));
    assert!(info.options["properties"]["providers"].is_object());
}

#[test]
fn a_signature_has_names_datatypes_and_symbolic_dimensions() {
    let session = load("dynamic");
    let input = &session.info().signature.inputs[0];
    assert_eq!((&*input.name, input.datatype, shape(input)), ("x", Datatype::Fp32, Some(vec![-1, 3, -1])));
    assert_eq!(input.symbols, [Some("batch".to_owned()), None, None]);
    assert!(!input.optional);
}

#[test]
fn a_scalar_is_not_a_tensor_of_any_rank() {
    let knows = onnxruntime().version().is_ok_and(|version| version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()) >= Some(24));
    assert_eq!(shape(&load("scalar").info().signature.inputs[0]), knows.then(Vec::new));
    assert_eq!(shape(&load("any_rank").info().signature.inputs[0]), None);
}

#[test]
fn an_input_that_the_model_has_a_value_for_is_optional_and_comes_last() {
    let session = load("optional_initializer");
    let inputs: Vec<_> = session.info().signature.inputs.iter().map(|input| (&*input.name, input.optional)).collect();
    assert_eq!(inputs, [("x", false), ("bias", true)]);
}

#[test]
fn the_settings_that_hold_are_told() {
    let session = load("double");
    let info = session.info();
    assert_eq!((info.runtime, &*info.format, &*info.device), ("onnxruntime", "onnx", "cpu"));
    assert_eq!((info.concurrency, info.cancellable), (Concurrency::Shared, true));
    assert_eq!(info.settings["library_version"], info.runtime_version);
    assert_eq!(info.settings["providers"], json!([["CPUExecutionProvider", {}]]));
    assert_eq!(info.settings["use_per_session_threads"], false);
    assert_eq!(info.settings["inter_op_num_threads"], 1);
    assert!(info.settings["intra_op_num_threads"].as_i64() >= Some(1));
    assert_eq!(info.settings["session"]["session.intra_op.allow_spinning"], "0");
}

#[test]
fn options_are_honoured_and_reported() {
    let options = json!({
        "intra_op_num_threads": 1,
        "execution_mode": "parallel",
        "graph_optimization_level": "basic",
        "enable_mem_pattern": false,
        "enable_cpu_mem_arena": false,
        "use_deterministic_compute": true,
        "log_severity_level": 3,
        "free_dimension_overrides": {"batch": 5},
        "session": {"session.intra_op.allow_spinning": "1", "session.set_denormal_as_zero": 1},
        "providers": ["CPUExecutionProvider"],
    });
    let session = load_with("dynamic", options).unwrap();
    let info = session.info();
    assert_eq!(shape(&info.signature.inputs[0]), Some(vec![5, 3, -1]));
    assert_eq!(info.settings["use_per_session_threads"], true);
    assert_eq!(info.settings["intra_op_num_threads"], 1);
    assert_eq!(info.settings["execution_mode"], "parallel");
    assert_eq!(info.settings["graph_optimization_level"], "basic");
    assert_eq!(info.settings["enable_mem_pattern"], false);
    assert_eq!(info.settings["session"]["session.intra_op.allow_spinning"], "1");
    assert_eq!(info.settings["session"]["session.set_denormal_as_zero"], "1");
    assert_eq!(info.settings["free_dimension_overrides"], json!({"batch": 5}));
}

#[test]
fn weights_in_a_file_beside_the_model_are_found() {
    let session = load("external");
    assert_eq!(shape(&session.info().signature.inputs[0]), Some(vec![512]));
}

#[test]
fn a_provider_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let error = load_with("double", json!({"providers": ["CPUExecutionProvider", "NoSuchExecutionProvider"]})).err().unwrap();
    assert!(error.is(Reason::DeviceNotFound), "{error:?}");
    assert!(error.message().contains("providers[1]") && error.message().contains("CPUExecutionProvider"), "{error}");
    assert!(error.details()["available"].as_array().is_some_and(|available| !available.is_empty()));
}

#[test]
fn a_provider_is_given_its_options() {
    let azure = "AzureExecutionProvider";
    if onnxruntime().info().devices.iter().any(|device| device == azure) {
        let session = load_with("double", json!({"providers": [[azure, {}]]})).unwrap();
        assert_eq!(session.info().settings["providers"], json!([[azure, {}], ["CPUExecutionProvider", {}]]));
    }
    let error = load_with("double", json!({"providers": [["CPUExecutionProvider", {"threads": 2}]]})).err().unwrap();
    assert!(error.is(Reason::UnknownOption), "{error:?}");
}

#[test]
fn an_option_that_is_not_known_is_refused() {
    let error = load_with("double", json!({"intra_threads": 2})).err().unwrap();
    assert!(error.is(Reason::UnknownOption), "{error:?}");
    assert!(error.details()["known"].as_array().is_some_and(|known| known.contains(&json!("intra_op_num_threads"))));
}

#[test]
fn the_size_of_a_dimension_that_no_input_has_is_refused() {
    let error = load_with("dynamic", json!({"free_dimension_overrides": {"batch": 5, "bath": 5}})).err().unwrap();
    assert!(error.is(Reason::InvalidOption), "{error:?}");
    assert_eq!(error.details()["path"], "options.free_dimension_overrides");
    assert!(error.message().contains("got 'bath'; there are: batch"), "{error}");
    let error = load_with("external", json!({"free_dimension_overrides": {"batch": 5}})).err().unwrap();
    assert!(error.message().ends_with("there are: none"), "{error}");
}

fn load_on(device: &str, precision: Precision, options: Value) -> Result<Box<dyn Session>, NnrpError> {
    onnxruntime().load(&ModelSpec { device: device.to_owned(), precision, ..spec(&model("double"), options) })
}

#[test]
fn a_device_and_the_providers_say_the_same_or_the_load_is_refused() {
    let cpu = json!({"providers": ["CPUExecutionProvider"]});
    for (device, options) in [("auto", json!({})), ("auto", cpu.clone()), ("cpu", json!({})), ("cpu", cpu.clone()), ("CPUExecutionProvider", cpu.clone())] {
        let session = load_on(device, Precision::Strict, options).unwrap();
        let info = session.info();
        assert_eq!((&*info.device, &info.settings["device"]), ("cpu", &json!("cpu")));
    }
    for device in ["cuda:0", "cuda", "CUDAExecutionProvider", "GPU"] {
        let error = load_on(device, Precision::Strict, cpu.clone()).err().unwrap();
        assert!(error.is(Reason::InvalidOption), "{error:?}");
        assert!(error.message().contains(device) && error.message().contains("CPUExecutionProvider"), "{error}");
    }
    // Azure's provider has no device: what it does not call elsewhere, the CPU runs.
    for device in ["NoSuchExecutionProvider", "AzureExecutionProvider", "GPU", "cpu:1", "cuda:x", ""] {
        let error = load_on(device, Precision::Strict, json!({})).err().unwrap();
        assert!(error.is(Reason::DeviceNotFound) && error.details()["available"].is_array(), "{error:?}");
    }
    let has_cuda = onnxruntime().info().devices.iter().any(|device| device == "CUDAExecutionProvider");
    assert!(has_cuda || load_on("cuda:0", Precision::Strict, json!({})).err().unwrap().is(Reason::DeviceNotFound));
}

#[test]
fn a_precision_that_is_not_the_models_own_is_not_offered() {
    for precision in [Precision::Strict, Precision::Fast] {
        assert_eq!(load_on("auto", precision, json!({})).unwrap().info().settings["precision"], "strict");
    }
    for (precision, name) in [(Precision::Bf16, "bf16"), (Precision::Fp16, "fp16"), (Precision::Int8, "int8")] {
        let error = load_on("auto", precision, json!({})).err().unwrap();
        assert!(error.is(Reason::NotOffered) && error.message().contains(&format!("convert the model to {name}")), "{error:?}");
    }
}

#[test]
fn a_format_that_the_runtime_does_not_read_is_named_with_those_that_it_reads() {
    let error = onnxruntime().load(&spec(&crate::common::file("double.tflite"), json!({}))).err().unwrap();
    assert!(error.is(Reason::NotOffered), "{error:?}");
    assert_eq!((&error.details()["format"], &error.details()["reads"]), (&json!("tflite"), &json!(["onnx", "ort"])));
}
