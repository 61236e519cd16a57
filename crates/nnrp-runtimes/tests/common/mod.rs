//! The real libraries, the small models of make_models.py, and what every runtime's tests say.
pub(crate) mod room;

use nnrp_core::{Control, Datatype, ModelSpec, NnrpError, Outputs, Result, Session, Tensor};
use nnrp_runtimes::{OnnxRuntime, OpenVino, onnxruntime, openvino};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The folder of the models, made once a run.
static MODELS: LazyLock<PathBuf> = LazyLock::new(|| {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "these tests need Python with the packages of requirements.txt in .venv at the top of the repository: make build");
    let folder = root().join("target/test-models");
    let script = root().join("crates/nnrp-runtimes/tests/make_models.py");
    let status = Command::new(python).arg(script).arg(&folder).status().expect("Python starts");
    assert!(status.success(), "make_models.py failed");
    folder
});

/// Where pip put a library; `None` when the environment names one.
fn library(variable: &str, folder: &str) -> Option<PathBuf> {
    if std::env::var_os(variable).is_some() {
        return None;
    }
    let pythons = std::fs::read_dir(root().join(".venv/lib")).expect("a virtual environment in .venv: make build");
    pythons.flatten().map(|python| python.path().join("site-packages").join(folder)).find(|folder| folder.is_dir())
}

pub(crate) fn onnxruntime() -> OnnxRuntime {
    OnnxRuntime::new(library(onnxruntime::VARIABLE, "onnxruntime/capi"))
}

pub(crate) fn openvino() -> OpenVino {
    OpenVino::new(library(openvino::VARIABLE, "openvino/libs"))
}

/// The file of a model, `double.onnx`.
pub(crate) fn file(name: &str) -> PathBuf {
    MODELS.join(name)
}

pub(crate) fn model(name: &str) -> PathBuf {
    file(&format!("{name}.onnx"))
}

pub(crate) fn spec(path: &Path, options: Value) -> ModelSpec {
    let options = options.as_object().cloned().unwrap_or_default();
    ModelSpec { options, ..ModelSpec::new("m", path) }
}

pub(crate) fn f32s<'a>(shape: &[i64], values: &'a [f32]) -> Tensor<'a> {
    // SAFETY: any bytes of floats are bytes, and they are borrowed as long.
    let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
    Tensor::borrowed(Datatype::Fp32, shape, bytes)
}

pub(crate) fn values(tensor: &Tensor<'_>) -> Vec<f32> {
    assert_eq!(tensor.datatype, Datatype::Fp32);
    tensor.bytes().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

pub(crate) fn run(session: &dyn Session, inputs: &[Option<Tensor<'_>>], outputs: &[usize]) -> Result<Outputs> {
    session.run(inputs, outputs, Control::default())
}

/// A file of its own for one test; gone at its end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Scratch {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nnrp-{}-{made}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// Copies of a file's bytes with three of them changed at random, the same each time.
pub(crate) fn corrupted(whole: &[u8], times: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..times).map(move |_| {
        let mut bytes = whole.to_vec();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (state >> 33) as usize % bytes.len();
            bytes[place] = (state >> 20) as u8;
        }
        bytes
    })
}

pub(crate) fn tells_no_path(error: &NnrpError) {
    let told = format!("{} {}", error.message(), Value::Object(error.details().clone()));
    let (ours, scratch) = (env!("CARGO_MANIFEST_DIR").trim_end_matches("/crates/nnrp-runtimes"), std::env::temp_dir());
    for path in [ours, scratch.to_str().unwrap(), "/onnxruntime_src", "src/", "test-models", ".onnx", ".cc", ".cpp"] {
        assert!(!told.contains(path), "{path} in {told}");
    }
}
