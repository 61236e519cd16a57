use super::{load, load_as, load_file, load_with};
use crate::common::{model, openvino, spec};
use nnrp_core::{Concurrency, Datatype, ModelSpec, Precision, Reason, Runtime, TensorSpec};
use serde_json::{Value, json};

fn shape(spec: &TensorSpec) -> Option<Vec<i64>> {
    spec.shape.as_ref().map(|shape| shape.to_vec())
}

#[test]
fn the_runtime_tells_its_version_its_devices_its_formats_and_its_options() {
    let info = openvino().info();
    assert_eq!(info.name, "openvino");
    assert!(info.version.starts_with("202"), "{}", info.version);
    assert!(info.devices.contains(&"CPU".to_owned()));
    assert!(["onnx", "openvino_ir", "tflite", "saved_model", "tensorflow", "paddle"].iter().all(|format| info.formats.iter().any(|known| known == format)));
    for option in ["NUM_STREAMS", "CACHE_DIR", "shapes"] {
        assert!(info.options["properties"][option].is_object(), "{option}");
    }
    assert!(info.options["properties"]["SUPPORTED_PROPERTIES"].is_null());
}

#[test]
fn a_signature_has_names_datatypes_and_the_symbols_of_the_file() {
    let session = load("dynamic");
    let signature = &session.info().signature;
    let input = &signature.inputs[0];
    assert_eq!((&*input.name, input.datatype, shape(input)), ("x", Datatype::Fp32, Some(vec![-1, 3, -1])));
    assert_eq!(input.symbols, [Some("batch".to_owned()), None, None]);
    assert_eq!((&*signature.outputs[0].name, shape(&signature.outputs[0])), ("y", Some(vec![-1, 3, -1])));
    assert_eq!(shape(&load("scalar").info().signature.inputs[0]), Some(vec![]));
}

#[test]
fn every_format_has_its_names_and_shapes() {
    for (file, format, shape_of_x) in [
        ("double.onnx", "onnx", vec![-1]),
        ("double.xml", "openvino_ir", vec![-1]),
        ("double.tflite", "tflite", vec![-1, 4]),
        ("double_saved_model", "saved_model", vec![-1, 4]),
        ("double_saved_model/saved_model.pb", "saved_model", vec![-1, 4]),
        ("double.pdmodel", "paddle", vec![-1, 4]),
    ] {
        let session = load_file(file);
        let info = session.info();
        assert_eq!((&*info.signature.inputs[0].name, &*info.signature.outputs[0].name), ("x", "y"), "{file}");
        assert_eq!((&*info.format, shape(&info.signature.inputs[0])), (format, Some(shape_of_x)), "{file}");
    }
    assert_eq!(&*load_file("double.pb").info().signature.inputs[0].name, "x:0");
}

#[test]
fn nothing_is_narrowed_unless_asked_and_what_holds_is_told() {
    let session = load("double");
    let info = session.info();
    assert_eq!((info.runtime, &*info.format, &*info.device), ("openvino", "onnx", "cpu"));
    assert_eq!((info.concurrency, info.cancellable), (Concurrency::Shared, true));
    let settings = &info.settings;
    assert_eq!((settings["library_version"].as_str(), settings["precision"].as_str()), (Some(&*info.runtime_version), Some("strict")));
    assert_eq!(settings["device"], "CPU");
    assert!(settings["threads"].as_u64() >= Some(1));
    let properties = &settings["properties"];
    assert_eq!(properties["INFERENCE_PRECISION_HINT"], "f32");
    assert_eq!(properties["EXECUTION_MODE_HINT"], "ACCURACY");
    assert_eq!(properties["ENABLE_CPU_PINNING"], "NO");
    assert_eq!(properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"], "0");
}

#[test]
fn a_precision_is_honoured_and_told_or_refused() {
    let capabilities = load_as("double", "cpu", Precision::Int8).err().map(|error| error.reason().to_owned());
    assert_eq!(capabilities.as_deref(), Some("NOT_OFFERED"));
    for (precision, name) in [(Precision::Bf16, "bf16"), (Precision::Fp16, "fp16")] {
        match load_as("double", "cpu", precision) {
            Ok(session) => assert_eq!(session.info().settings["precision"], name),
            Err(error) => {
                assert!(error.is(Reason::NotOffered), "{error:?}");
                assert!(error.details()["capabilities"].is_array());
            }
        }
    }
    let fast = load_as("double", "cpu", Precision::Fast).unwrap();
    let hint = fast.info().settings["properties"]["INFERENCE_PRECISION_HINT"].as_str().unwrap().to_owned();
    let told = if hint == "bf16" {
        "bf16"
    } else if hint == "f16" {
        "fp16"
    } else {
        "fast"
    };
    assert_eq!(fast.info().settings["precision"], told);
}

#[test]
fn an_option_that_narrows_contradicts_a_strict_precision() {
    for options in [json!({"EXECUTION_MODE_HINT": "PERFORMANCE"}), json!({"DYNAMIC_QUANTIZATION_GROUP_SIZE": 32}), json!({"KV_CACHE_PRECISION": "u8"})] {
        let error = load_with("double", options.clone()).err().unwrap();
        assert!(error.is(Reason::InvalidOption) && error.message().contains("precision 'strict'"), "{options} {error:?}");
    }
    let error = load_with("double", json!({"INFERENCE_PRECISION_HINT": "bf16"})).err();
    assert!(error.is_none_or(|error| error.is(Reason::InvalidOption)));
    assert!(load_with("double", json!({"INFERENCE_PRECISION_HINT": "f32"})).is_ok());
}

#[test]
fn a_model_in_fp64_is_refused_where_nothing_may_be_narrowed() {
    let error = load_as("identity_FP64", "auto", Precision::Strict).err().unwrap();
    assert!(error.is(Reason::NotOffered) && error.message().contains("FP64 in FP32"), "{error:?}");
    assert!(load_as("identity_FP64", "auto", Precision::Fast).is_ok());
}

#[test]
fn a_device_is_the_one_asked_for_or_an_error_that_lists_those_that_are_there() {
    for device in ["auto", "cpu", "CPU", "AUTO", "AUTO:CPU", "HETERO:CPU", "MULTI:CPU"] {
        let session = load_as("double", device, Precision::Strict).unwrap_or_else(|error| panic!("{device}: {error:?}"));
        assert_eq!((&*session.info().device, &session.info().settings["precision"]), ("cpu", &json!("strict")), "{device}");
    }
    for device in ["cuda:0", "GPU.9", "TPU", "AUTO:TPU,CPU", "CPU.1", "", "openvino:"] {
        let error = load_as("double", device, Precision::Strict).err().unwrap_or_else(|| panic!("{device}"));
        assert!(error.is(Reason::DeviceNotFound), "{device}: {error:?}");
        assert!(error.details()["available"].as_array().is_some_and(|available| available.contains(&json!("CPU"))));
    }
}

#[test]
fn what_spreads_a_model_over_devices_is_told_which() {
    for device in ["HETERO", "multi"] {
        let error = load_as("double", device, Precision::Strict).err().unwrap_or_else(|| panic!("{device}"));
        let name = device.to_uppercase();
        let expected = format!("device: expected the devices by their names, as in '{name}:CPU,GPU', got '{name}'");
        assert_eq!((error.reason(), error.message(), &error.details()["path"]), ("INVALID_OPTION", &*expected, &json!("device")));
        let told = ModelSpec { device: device.to_owned(), ..spec(&model("double"), json!({"MULTI_DEVICE_PRIORITIES": "CPU"})) };
        assert_eq!(openvino().load(&told).unwrap().info().device, "cpu");
    }
}

#[test]
fn properties_are_honoured_and_reported() {
    let options = json!({"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": "1", "PERF_COUNT": true, "PERFORMANCE_HINT": "THROUGHPUT"});
    let session = load_with("double", options).unwrap();
    let settings = &session.info().settings;
    assert_eq!(settings["threads"], 1);
    for (key, value) in [("NUM_STREAMS", "1"), ("INFERENCE_NUM_THREADS", "1"), ("PERF_COUNT", "YES"), ("PERFORMANCE_HINT", "THROUGHPUT")] {
        assert_eq!(settings["properties"][key], value);
    }
}

#[test]
fn properties_reach_the_devices_below_another() {
    let options = json!({"INFERENCE_NUM_THREADS": 1});
    let asked = nnrp_core::ModelSpec { device: "AUTO:CPU".to_owned(), ..crate::common::spec(&crate::common::model("double"), options) };
    assert_eq!(openvino().load(&asked).unwrap().info().settings["threads"], 1);
}

#[test]
fn a_property_that_is_not_known_or_not_honoured_is_refused() {
    let reason =
        |options: Value| load_with("double", options).err().map(|error| (error.reason().to_owned(), error.details().get("path").cloned().unwrap_or_default()));
    let is = |reason: &str, option: &str| Some((reason.to_owned(), json!(format!("options.{option}"))));
    assert_eq!(reason(json!({"STREAMS": 1})), is("UNKNOWN_OPTION", "STREAMS"));
    assert_eq!(reason(json!({"num_streams": 1})), is("UNKNOWN_OPTION", "num_streams"));
    assert_eq!(reason(json!({"CACHE_ENCRYPTION_CALLBACKS": "x"})), is("UNKNOWN_OPTION", "CACHE_ENCRYPTION_CALLBACKS"));
    assert_eq!(reason(json!({"NUM_STREAMS": "many"})), is("INVALID_OPTION", "NUM_STREAMS"));
    assert_eq!(reason(json!({"INFERENCE_NUM_THREADS": -1})), is("INVALID_OPTION", "INFERENCE_NUM_THREADS"));
    assert_eq!(reason(json!({"INFERENCE_NUM_THREADS": 5000})), is("INVALID_OPTION", "INFERENCE_NUM_THREADS"));
    let error = load_with("double", json!({"STREAMS": 1})).err().unwrap();
    assert!(error.details()["known"].as_array().is_some_and(|known| known.contains(&json!("NUM_STREAMS")) && known.contains(&json!("shapes"))));
}

#[test]
fn dimensions_can_be_fixed_or_bounded() {
    let session = load_with("dynamic", json!({"shapes": {"x": [[1, 8], 3, 5]}})).unwrap();
    let input = &session.info().signature.inputs[0];
    assert_eq!((shape(input), &input.symbols[0]), (Some(vec![-1, 3, 5]), &Some("batch".to_owned())));
    assert_eq!(session.info().settings["shapes"]["x"], json!([[1, 8], [3, 3], [5, 5]]));
    assert_eq!(shape(&load_with("any_rank", json!({"shapes": {"x": [2, -1]}})).unwrap().info().signature.inputs[0]), Some(vec![2, -1]));
    for shapes in [json!({"z": [1]}), json!({"x": [1, 100]})] {
        let error = load_with("steps", json!({"shapes": shapes})).err().unwrap();
        assert!(error.is(Reason::InvalidOption), "{error:?}");
    }
}

#[test]
fn a_compiled_model_is_kept_where_the_options_say() {
    let folder = std::env::temp_dir().join(format!("nnrp-{}-openvino-cache", std::process::id()));
    let options = json!({"CACHE_DIR": folder.to_str().unwrap()});
    let from_cache = || load_with("described", options.clone()).unwrap().info().settings["properties"]["LOADED_FROM_CACHE"].clone();
    assert_eq!((from_cache(), from_cache()), (json!("NO"), json!("YES")));
    let _gone = std::fs::remove_dir_all(folder);
}
