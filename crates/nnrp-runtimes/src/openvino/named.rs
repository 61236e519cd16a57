//! A model's file under a name that OpenVINO takes it by: of some formats it looks at the ending of the name, not at what is in the file.
use crate::{format, onnx};
use nnrp_core::{NnrpError, Reason, Result};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Formats by the ending that their files have.
const ENDINGS: [(&str, &str); 5] = [("onnx", "onnx"), ("tflite", "tflite"), ("tensorflow", "pb"), ("openvino_ir", "xml"), ("paddle", PADDLE)];
/// Whatever is called so OpenVINO takes for a model of Paddle's: an ONNX file for one without inputs and outputs.
const PADDLE: &str = "pdmodel";
/// Formats that it reads under no other ending.
const BY_NAME: [&str; 2] = ["tflite", "paddle"];
/// How many names for a folder are tried where others have taken them.
const MOST_TRIES: usize = 64;

/// Where OpenVINO reads a model.
pub(super) enum Place {
    /// Where it lies.
    Itself(PathBuf),
    /// In a folder of its own with links to it, which goes when the model is read.
    Linked { folder: PathBuf, file: PathBuf },
}

impl Place {
    /// The place of a file of that format.
    ///
    /// # Errors
    /// `LOAD_FAILED` when the file has another ending and nothing can be written to the folder of temporary files.
    pub(super) fn of(path: &Path, format: &str) -> Result<Place> {
        // A saved model is read by its folder.
        if format == "saved_model" && path.is_file() {
            return Ok(Place::Itself(path.parent().unwrap_or(path).to_owned()));
        }
        let wanted = ENDINGS.iter().find(|(known, _)| *known == format).map_or("", |(_, ending)| ending);
        let got = path.extension().unwrap_or_default();
        if got == wanted || (got != PADDLE && !BY_NAME.contains(&format)) {
            return Ok(Place::Itself(path.to_owned()));
        }
        let path = std::path::absolute(path).map_err(|error| format::refused(&error))?;
        Place::linked(&path, format, wanted).map_err(|error| {
            let message =
                format!("model file: openvino reads {format} from files that end in .{wanted}, and a link to this one cannot be made: {}", error.kind());
            NnrpError::new(Reason::LoadFailed, message).with("runtime", super::NAME).with("kind", error.kind().to_string())
        })
    }

    fn linked(path: &Path, format: &str, ending: &str) -> io::Result<Place> {
        let folder = folder()?;
        let place = Place::Linked { file: folder.join(format!("model.{ending}")), folder: folder.clone() };
        link(path, place.path())?;
        let weights = match format {
            "openvino_ir" => "bin",
            "paddle" => "pdiparams",
            _ => "",
        };
        if path.with_extension(weights).is_file() && !weights.is_empty() {
            link(&path.with_extension(weights), &place.path().with_extension(weights))?;
        }
        let beside = if format == "onnx" { onnx::weights::files(path) } else { BTreeSet::new() };
        for name in beside {
            let to = folder.join(&name);
            fs::create_dir_all(to.parent().unwrap_or(&folder))?;
            link(&path.with_file_name(&name), &to)?;
        }
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Place::Itself(file) | Place::Linked { file, .. } => file,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Place::Linked { folder, .. } = self {
            let _gone = fs::remove_dir_all(folder);
        }
    }
}

/// A new folder, which nobody else may look into.
fn folder() -> io::Result<PathBuf> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    for _ in 0..MOST_TRIES {
        let folder = std::env::temp_dir().join(format!("nnrp-{}-{}", process::id(), MADE.fetch_add(1, Relaxed)));
        match builder.create(&folder) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|()| folder),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

/// Links are for the few there: a copy.
#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to).map(drop)
}
