//! What a model's file is, by what is in it: the first look, before any runtime sees it. The ending of its name decides nothing alone.
use crate::beside;
use nnrp_core::{NnrpError, Reason, Result};
use prost::encoding::{WireType, decode_key, decode_varint};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

/// Formats that are told by bytes at one place: offset, bytes, name.
const MARKS: [(usize, &[u8], &str); 19] = [
    (4, b"ORTM", "ort"),
    (4, b"TFL3", "tflite"),
    (4, b"ET12", "pte"),
    (4, b"IREE", "vmfb"),
    (8, b"IREE", "vmfb"),
    (30, b"module.fb", "vmfb"),
    (0, b"ML\xefR", "stablehlo"),
    (0, b"GGUF", "gguf"),
    (0, b"7767517", "ncnn"),
    (0, b"\xdd\x85\x76\x00", "ncnn"),
    (0, b"ftrt", "tensorrt"),
    (0, b"ptrt", "tensorrt"),
    (0, b"\x89HDF\r\n", "hdf5"),
    (0, b"\x7fELF", "shared_library"),
    (0, b"\x80\x02", "pickle"),
    (0, b"\x80\x03", "pickle"),
    (0, b"\x80\x04", "pickle"),
    (0, b"\x80\x05", "pickle"),
    (0, b"PK\x03\x04", "zip"),
];
/// Each format, and the runtime that it was made for or that its makers read it by: asked first where none is wanted (spec §8.10).
pub const OWN_RUNTIMES: [(&str, &str); 17] = [
    ("onnx", "onnxruntime"),
    ("ort", "onnxruntime"),
    ("openvino_ir", "openvino"),
    ("tflite", "litert"),
    ("saved_model", "tensorflow"),
    ("mlpackage", "coreml"),
    ("mlmodel", "coreml"),
    ("torchscript", "torch"),
    ("pt2", "torch"),
    ("pte", "executorch"),
    ("vmfb", "iree"),
    ("jax_export", "jax"),
    ("mnn", "mnn"),
    ("ncnn", "ncnn"),
    ("tensorrt", "tensorrt"),
    ("gguf", "llama-cpp"),
    ("triton_python", "triton-python"),
];
/// How much of a file's beginning is looked at.
const HEAD: u64 = 4096;
/// How much of a table's list of fields is looked at.
const MOST_ENTRIES: usize = 128;
/// How much of a source in Python is looked at.
const MOST_SOURCE: u64 = 4 << 20;
/// How many fields of a protobuf message are looked at, so that a file of nothing but fields takes no time.
const MOST_FIELDS: usize = 10_000;

/// The format of a model's file or folder.
///
/// # Errors
/// `FILE_NOT_FOUND`; `INVALID_MODEL` when it is empty, of no known format, or a pickle; `LOAD_FAILED` when it cannot be read.
pub fn format(path: &Path) -> Result<&'static str> {
    let found = fs::metadata(path).map_err(|error| refused(&error))?;
    if found.is_dir() {
        return folder(path).ok_or_else(|| invalid("expected a model, got a folder of something else").with("got", "a folder"));
    }
    if !found.is_file() {
        return Err(invalid("expected a file, got something else").with("got", "something else"));
    }
    if found.len() == 0 {
        return Err(invalid("expected a model, got an empty file").with("byte_size", 0));
    }
    match sniff(path, found.len()).map_err(|error| refused(&error))? {
        Some("pickle") => {
            Err(invalid("a pickle runs whatever its maker wrote when it is opened, so none is; export the model, to ONNX for one").with("format", "pickle"))
        }
        Some(format) => Ok(format),
        None => Err(invalid("of no format that is known here")),
    }
}

/// The runtime that a file's format was made for; none where there is none such, or nobody can tell the format.
pub fn own_runtime(path: &Path) -> Option<&'static str> {
    own_runtime_of(format(path).ok()?)
}

/// The runtime that a format was made for.
pub fn own_runtime_of(format: &str) -> Option<&'static str> {
    OWN_RUNTIMES.iter().find(|(known, _)| *known == format).map(|&(_, runtime)| runtime)
}

/// The format, when the runtime reads it and all of the model lies where it may.
///
/// # Errors
/// As [`format`] and [`beside::check`]; `NOT_OFFERED` for a format that the runtime does not read.
pub(crate) fn expect(path: &Path, runtime: &'static str, reads: &[&str]) -> Result<&'static str> {
    let found = format(path).map_err(|error| error.with("runtime", runtime))?;
    if reads.contains(&found) {
        return beside::check(path, found).map(|()| found).map_err(|error| error.with("runtime", runtime));
    }
    let message = format!("model file: {runtime} does not read the format {found}; it reads {}", reads.join(", "));
    Err(NnrpError::new(Reason::NotOffered, message).with("runtime", runtime).with("format", found).with("reads", reads.to_vec()))
}

/// Bytes of a file, or of all that lies in a folder.
pub(crate) fn byte_size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::read_dir(path).into_iter().flatten().flatten().map(|entry| byte_size(&entry.path())).sum(),
        Ok(_) => fs::metadata(path).map_or(0, |found| if found.is_file() { found.len() } else { 0 }),
        Err(_) => 0,
    }
}

/// The error of a file that cannot be opened or read; names no path.
pub(crate) fn refused(error: &std::io::Error) -> NnrpError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => NnrpError::new(Reason::FileNotFound, "model file: no such file"),
        kind => NnrpError::new(Reason::LoadFailed, format!("model file: cannot be read: {kind}")).with("kind", kind.to_string()),
    }
}

fn invalid(what: &str) -> NnrpError {
    NnrpError::new(Reason::InvalidModel, format!("model file: {what}"))
}

fn folder(path: &Path) -> Option<&'static str> {
    let has = |name: &str| path.join(name).exists();
    if has("saved_model.pb") {
        Some("saved_model")
    } else if has("Manifest.json") && has("Data") {
        Some("mlpackage")
    } else {
        None
    }
}

fn sniff(path: &Path, byte_size: u64) -> std::io::Result<Option<&'static str>> {
    let mut file = BufReader::new(File::open(path)?);
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head)?;
    let marked = MARKS.iter().find(|(offset, mark, _)| head.get(*offset..).is_some_and(|rest| rest.starts_with(mark)));
    if let Some(&(_, _, name)) = marked {
        return Ok(if name == "zip" { archive(file) } else { Some(name) });
    }
    if let Some(format) = text(&head).or_else(|| safetensors(&head, byte_size)) {
        return Ok(Some(format));
    }
    if exported(&mut file, &head).is_some() {
        return Ok(Some("jax_export"));
    }
    file.seek(SeekFrom::Start(0))?;
    let named = |ending: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    if named("py") {
        return Ok(source(file));
    }
    Ok(protobuf(&mut file).or_else(|| (named("mnn") && flatbuffer(&head, byte_size)).then_some("mnn")))
}

/// OpenVINO's XML and Paddle's JSON.
fn text(head: &[u8]) -> Option<&'static str> {
    let start = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let has = |what: &[u8]| start.windows(what.len()).any(|window| window == what);
    if (start.starts_with(b"<?xml") || start.starts_with(b"<net")) && has(b"<net") {
        Some("openvino_ir")
    } else if start.starts_with(b"{") && has(b"\"base_code\"") && has(b"\"pir\"") {
        Some("paddle_pir")
    } else {
        None
    }
}

/// A source in Python is a model where it speaks of the class that Triton's Python back end looks for.
fn source(file: BufReader<File>) -> Option<&'static str> {
    let mut text = String::new();
    file.take(MOST_SOURCE).read_to_string(&mut text).ok()?;
    text.contains("TritonPythonModel").then_some("triton_python")
}

/// A length, and so many bytes of a JSON object.
fn safetensors(head: &[u8], byte_size: u64) -> Option<&'static str> {
    let (length, rest) = head.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    (length >= 2 && length <= byte_size.saturating_sub(8) && rest.first() == Some(&b'{')).then_some("safetensors")
}

/// Whether the root table lies within the file, and its list of fields too.
fn flatbuffer(head: &[u8], byte_size: u64) -> bool {
    let root = head.first_chunk::<4>().map_or(0, |root| u64::from(u32::from_le_bytes(*root)));
    let at = usize::try_from(root).unwrap_or(usize::MAX);
    let vtable = head.get(at..).and_then(|table| table.first_chunk::<4>()).map(|back| i64::from(i32::from_le_bytes(*back)));
    root >= 8 && vtable.is_some_and(|back| (0..byte_size.cast_signed()).contains(&(root.cast_signed() - back)) && back != 0)
}

/// What `jax.export` writes: a table without a mark, one of whose first fields holds a StableHLO module.
fn exported(file: &mut BufReader<File>, head: &[u8]) -> Option<()> {
    let number = |at: usize| head.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    let short = |at: usize| head.get(at..)?.first_chunk::<2>().map(|bytes| usize::from(u16::from_le_bytes(*bytes)));
    let root = usize::try_from(number(0)?).ok()?;
    let vtable = usize::try_from(i64::try_from(root).ok()? - i64::from(number(root)?.cast_signed())).ok()?;
    for entry in (4..short(vtable)?.min(MOST_ENTRIES)).step_by(2) {
        let Some((at, to)) = short(vtable + entry).filter(|&field| field > 0).and_then(|field| Some((root + field, number(root + field)?))) else { continue };
        let mut mark = [0; 4];
        file.seek(SeekFrom::Start(at as u64 + u64::from(to) + 4)).ok()?;
        if file.read_exact(&mut mark).is_ok() && mark == *b"ML\xefR" {
            return Some(());
        }
    }
    None
}

/// What is in an archive, by the names of its files.
fn archive(file: BufReader<File>) -> Option<&'static str> {
    // It begins where the file does. To look for something before it finds something in PyTorch's, which end with two records (zip 9.8).
    let config = zip::read::Config { archive_offset: zip::read::ArchiveOffset::Known(0) };
    let archive = zip::ZipArchive::with_config(config, file).ok()?;
    let has = |part: &str| archive.file_names().flatten().any(|name| name.ends_with(part));
    let within = |folder: &str| archive.file_names().flatten().any(|name| name.contains(folder));
    if has("archive_format") || has("serialized_exported_program.json") {
        Some("pt2")
    } else if has("data.pkl") {
        Some(if within("/code/") && has("constants.pkl") { "torchscript" } else { "pickle" })
    } else if has("config.json") && has("model.weights.h5") {
        Some("keras")
    } else {
        None
    }
}

const VARINT: WireType = WireType::Varint;
const BYTES: WireType = WireType::LengthDelimited;

/// The formats that are protobuf messages say nothing of themselves; which fields they have tells them apart.
fn protobuf(file: &mut BufReader<File>) -> Option<&'static str> {
    let (mut seen, mut first) = (Vec::new(), None);
    for _ in 0..MOST_FIELDS {
        let Some((tag, wire)) = key(file) else { break };
        match (tag, wire) {
            // The graph of an ONNX model; the rest may be cut off, and whoever reads it will say so.
            (7, BYTES) if seen.first() != Some(&(1, BYTES)) => return Some("onnx"),
            // What Core ML models are made of: one of many kinds, each a field of its own.
            (200..=3000, BYTES) if seen.contains(&(1, VARINT)) => return Some("mlmodel"),
            _ => {}
        }
        if !seen.contains(&(tag, wire)) {
            seen.push((tag, wire));
        }
        if skip(file, wire, &mut first).is_none() {
            break;
        }
    }
    let only = |known: &[(u32, WireType)]| !seen.is_empty() && seen.iter().all(|field| known.contains(field));
    match first {
        Some(0x0a) if seen.contains(&(2, BYTES)) && only(&[(1, VARINT), (2, BYTES)]) => Some("saved_model"),
        Some(0x0a) if only(&[(1, BYTES), (2, BYTES), (3, VARINT), (4, BYTES), (5, BYTES)]) => Some("tensorflow"),
        Some(0x08) if only(&[(1, BYTES), (2, BYTES), (3, BYTES), (4, BYTES), (5, BYTES)]) => Some("paddle"),
        _ => None,
    }
}

/// Passes over a field's value; `first` is the first byte of the first one that has bytes.
fn skip(file: &mut BufReader<File>, wire: WireType, first: &mut Option<u8>) -> Option<()> {
    let byte_size = match wire {
        VARINT => return varint(file).map(drop),
        BYTES => {
            let byte_size = i64::try_from(varint(file)?).ok()?;
            *first = first.or(file.fill_buf().ok()?.first().copied());
            byte_size
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::StartGroup | WireType::EndGroup => return None,
    };
    file.seek_relative(byte_size).ok()
}

/// The key of the next field.
fn key(file: &mut BufReader<File>) -> Option<(u32, WireType)> {
    let key = varint(file)?;
    let mut encoded = Vec::with_capacity(10);
    prost::encoding::encode_varint(key, &mut encoded);
    decode_key(&mut encoded.as_slice()).ok()
}

fn varint(file: &mut BufReader<File>) -> Option<u64> {
    let mut encoded = [0; 10];
    for at in 0..encoded.len() {
        file.read_exact(&mut encoded[at..=at]).ok()?;
        if encoded[at] < 0x80 {
            return decode_varint(&mut &encoded[..=at]).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests;
