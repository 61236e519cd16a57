//! Plug-ins: the sample of bindings/c, the frozen one, and those that do what none should, each compiled here.
use crate::common::{Scratch, root};
use libloading::Library;
use nnrp_core::runtime::Runtimes;
use nnrp_core::{ModelSpec, Result, Runtime, Session};
use nnrp_runtimes::plugin::{self, Plugin};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

mod loading;
mod running;
mod sample;
mod streaming;
mod texts;

/// A shared library made of `bindings/c/SOURCE` with more words for the compiler, once for each name.
fn compiled(name: &str, source: &str, words: &[&str]) -> PathBuf {
    static MADE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lib{name}{}", std::env::consts::DLL_SUFFIX));
    let mut made = MADE.lock().unwrap();
    if !made.contains(&file) {
        // Made elsewhere and moved here: another process may have the old one open.
        let draft = file.with_extension(format!("{}.part", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-I"]);
        compiler.arg(root().join("spec")).args(words).arg(root().join("bindings/c").join(source)).arg("-o").arg(&draft);
        let output = compiler.output().expect("these tests need a C compiler, cc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(draft, &file).unwrap();
        made.push(file.clone());
    }
    file
}

fn sample() -> PathBuf {
    compiled("sample", "runtime_sample.c", &[])
}

fn bad() -> PathBuf {
    compiled("bad", "plugins/bad.c", &[])
}

/// Sessions and tensors of `bad` that this thread made and did not end.
fn alive() -> i64 {
    // SAFETY: the library is the one that is open, and the function takes nothing.
    unsafe { Library::new(bad()).unwrap().get::<unsafe extern "C" fn() -> std::ffi::c_long>(c"bad_alive").unwrap()() }
}

/// Runs `body`, which must end every session and tensor of `bad` that it makes, on this thread.
fn leaving_nothing(body: impl FnOnce()) {
    let before = alive();
    body();
    assert_eq!(alive(), before, "sessions or tensors were not ended");
}

/// A session's document: inputs `x`, outputs as told, and more fields.
fn told(outputs: &Value, more: &Value) -> String {
    let mut told = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}], "outputs": outputs});
    told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    told.to_string()
}

fn one_output() -> Value {
    json!([{"name": "y", "datatype": "FP32", "shape": [-1]}])
}

/// A session of `bad` that tells this of itself and does that.
fn load_bad(told: &str, does: &str) -> Result<Box<dyn Session>> {
    let model = Scratch::new(&format!("{does}-{:x}.bad", told.len()), told.as_bytes());
    Plugin::open(&bad())?.load(&spec(&model.0, json!({"do": does})))
}

fn spec(path: &Path, options: Value) -> ModelSpec {
    crate::common::spec(path, options)
}

fn added(files: &[PathBuf]) -> Result<Runtimes> {
    let mut runtimes = Runtimes::default();
    plugin::add(&mut runtimes, files)?;
    Ok(runtimes)
}
