use crate::common::model;
use nnrp_core::Reason;
use nnrp_runtimes::inspect;
use serde_json::json;
use std::path::Path;

#[test]
fn a_model_tells_what_it_is_and_what_it_needs() {
    let path = model("described");
    let told = inspect(&path).unwrap();
    let square = json!(["k", "k"]);
    assert_eq!(
        told,
        json!({
            "format": "onnx",
            "byte_size": std::fs::metadata(&path).unwrap().len(),
            "ir_version": 10,
            "producer": {"name": "nnrp-tests", "version": "7"},
            "graph_name": "described",
            "domain": "org.example",
            "description": "Two steps.",
            "model_version": 3,
            "metadata": {"labels": "cat,dog"},
            "signature": {
                "inputs": [{"name": "x", "datatype": "FP32", "shape": square}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": square}],
            },
            "needs": {
                "opsets": {"ai.onnx": 17, "com.microsoft": 1},
                "operators": {"ai.onnx": ["Relu"], "com.microsoft": ["FusedMatMul"]},
                "external_files": [],
            },
        })
    );
}

#[test]
fn files_beside_and_operators_within_are_seen() {
    assert_eq!(inspect(&model("external")).unwrap()["needs"]["external_files"], json!(["weights.bin"]));
    assert_eq!(inspect(&model("loop")).unwrap()["needs"]["operators"], json!({"ai.onnx": ["Identity", "Loop", "MatMul"]}));
}

#[test]
fn any_rank_scalars_defaults_and_what_is_no_tensor_are_told_apart() {
    let input = |name: &str, index: usize| inspect(&model(name)).unwrap()["signature"]["inputs"][index].clone();
    assert_eq!(input("any_rank", 0), json!({"name": "x", "datatype": "FP32", "shape": null}));
    assert_eq!(input("scalar", 0), json!({"name": "x", "datatype": "FP32", "shape": []}));
    assert_eq!(input("dynamic", 0)["shape"], json!(["batch", 3, -1]));
    assert_eq!(input("optional_initializer", 1)["optional"], true);
    assert_eq!(input("optional_input", 0), json!({"name": "x", "datatype": "FP32", "shape": ["n"], "optional": true}));
    assert_eq!(inspect(&model("sequence")).unwrap()["signature"]["outputs"][0], json!({"name": "y", "type": "sequence"}));
}

#[test]
fn what_is_no_model_is_refused() {
    assert!(inspect(Path::new("/no/such.onnx")).unwrap_err().is(Reason::FileNotFound));
    assert!(inspect(&model("x").with_file_name("weights.bin")).unwrap_err().is(Reason::InvalidModel));
    assert!(inspect(&std::env::temp_dir()).unwrap_err().is(Reason::InvalidModel));
}
