//! The real library and the small models of make_models.py.
use nnrp_core::{ModelSpec, Result, Runtime, Session};
use nnrp_runtimes::OnnxRuntime;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder of the models, made once a run.
static MODELS: LazyLock<PathBuf> = LazyLock::new(|| {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "these tests need Python with onnx and onnxruntime in .venv at the top of the repository: make build");
    let folder = root().join("target/test-models");
    let script = root().join("crates/nnrp-runtimes/tests/make_models.py");
    let status = Command::new(python).arg(script).arg(&folder).status().expect("Python starts");
    assert!(status.success(), "make_models.py failed");
    folder
});

/// The runtime, with the library that pip brought, or the one that the environment names.
pub(crate) fn runtime() -> OnnxRuntime {
    if std::env::var_os(nnrp_runtimes::onnxruntime::VARIABLE).is_some() {
        return OnnxRuntime::new(None);
    }
    let pythons = std::fs::read_dir(root().join(".venv/lib")).expect("a virtual environment in .venv: make build");
    let folders = pythons.flatten().map(|python| python.path().join("site-packages/onnxruntime/capi"));
    OnnxRuntime::new(folders.into_iter().find(|folder| folder.is_dir()))
}

pub(crate) fn model(name: &str) -> PathBuf {
    MODELS.join(format!("{name}.onnx"))
}

pub(crate) fn spec(path: &Path, options: Value) -> ModelSpec {
    let options = options.as_object().cloned().unwrap_or_default();
    ModelSpec { name: "m".to_owned(), version: "1".to_owned(), path: path.to_owned(), runtime: "onnxruntime".to_owned(), options }
}

pub(crate) fn load_with(name: &str, options: Value) -> Result<Box<dyn Session>> {
    runtime().load(&spec(&model(name), options))
}

pub(crate) fn load(name: &str) -> Box<dyn Session> {
    load_with(name, json!({})).expect("the model loads")
}
