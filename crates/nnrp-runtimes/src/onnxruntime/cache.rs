//! Optimised models, kept in a folder that the options name, so that the next load of the same file need not optimise it again.
use crate::digest::add_file;
use crate::{format, onnx};
use nnrp_core::{NnrpError, Reason, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where the optimised form of one model is, or will be.
pub(super) struct Kept {
    path: PathBuf,
    /// The model keeps weights in files beside it, and so must this.
    external: bool,
}

/// Files that the library writes an optimised model to; removed unless they are kept.
pub(super) struct Draft {
    pub(super) model: PathBuf,
    /// For weights; beside the model, and named in it.
    pub(super) weights: Option<String>,
    kept: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let weights = self.weights.iter().map(|name| self.model.with_file_name(name));
            weights.chain([self.model.clone()]).for_each(|file| drop(std::fs::remove_file(file)));
        }
    }
}

impl Kept {
    /// The place for a model as these settings, of this library and on this processor, optimise it.
    ///
    /// # Errors
    /// `INVALID_OPTION` when there is no such folder, or the model is optimised already.
    pub(super) fn of(folder: &Path, model: &Path, format: &str, settings: &Value) -> Result<Kept> {
        let wrong = |expected: &str| {
            let message = format!("options.optimized_model_cache: expected {expected}");
            NnrpError::new(Reason::InvalidOption, message).with("path", "options.optimized_model_cache")
        };
        if format != "onnx" {
            return Err(wrong(&format!("a model in ONNX, got {format}, which is optimised already")));
        }
        if !folder.is_dir() {
            return Err(wrong("a folder that is there"));
        }
        let mut hash = Sha256::new();
        add_file(&mut hash, model).map_err(|error| format::refused(&error))?;
        // Weights beside the model may be gigabytes, and are read all the same: neither their sizes nor their times tell that they are others.
        let (beside, external) = (model.parent().unwrap_or(Path::new("")), onnx::weights::files(model));
        for weights in &external {
            let place = beside.join(weights);
            let byte_size = std::fs::metadata(&place).map_err(|error| format::refused(&error))?.len();
            hash.update(format!("{weights} {byte_size}\0"));
            add_file(&mut hash, &place).map_err(|error| format::refused(&error))?;
        }
        hash.update(format!("{settings} {} {}", std::env::consts::ARCH, processor()));
        let name = hash.finalize().iter().fold(String::new(), |mut name, byte| {
            let _written = write!(name, "{byte:02x}");
            name
        });
        Ok(Kept { path: folder.join(name + ".onnx"), external: !external.is_empty() })
    }

    /// The optimised model, if it is there.
    pub(super) fn found(&self) -> Option<&Path> {
        self.path.is_file().then_some(&*self.path)
    }

    /// Files beside, for the library to write to; nobody else's.
    pub(super) fn draft(&self) -> Draft {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        let model = self.path.with_extension(format!("{}-{}.part", std::process::id(), DRAFTS.fetch_add(1, Relaxed)));
        let weights = model.with_extension("weights");
        let weights = weights.file_name().and_then(OsStr::to_str).filter(|_| self.external).map(str::to_owned);
        Draft { model, weights, kept: false }
    }

    /// Puts a whole draft in its place at once, so that nobody ever reads half of it.
    ///
    /// # Errors
    /// `LOAD_FAILED` when it cannot be put there.
    pub(super) fn keep(&self, mut draft: Draft) -> Result<()> {
        std::fs::rename(&draft.model, &self.path).map_err(|error| {
            let message = format!("options.optimized_model_cache: the optimised model cannot be kept there: {}", error.kind());
            NnrpError::new(Reason::LoadFailed, message).with("path", "options.optimized_model_cache")
        })?;
        draft.kept = true;
        Ok(())
    }

    /// Removes one that the library cannot read.
    pub(super) fn forget(&self) {
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// What of the processor decides how a model is laid out: a form for one may be wrong or slow on another.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let has = [
            ("avx", std::arch::is_x86_feature_detected!("avx")),
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ];
        has.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    }
    #[cfg(not(target_arch = "x86_64"))]
    String::new()
}
