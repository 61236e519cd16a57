//! Each format by the bytes that tell it, and what is none.
use super::*;
use std::io::Write;
use std::path::PathBuf;

/// A folder of its own for one test; gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let folder = std::env::temp_dir().join(format!("nnrp-{}-format-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Scratch(folder)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

fn zipped(names: &[&str]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for name in names {
        archive.start_file(*name, stored).unwrap();
        archive.write_all(b"x").unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn every_format_is_told_by_what_is_in_the_file() {
    let scratch = Scratch::new("each");
    let torchscript = zipped(&["net/data.pkl", "net/code/__torch__.py", "net/constants.pkl"]);
    let cases: [(&str, &[u8]); 23] = [
        ("onnx", b"\x08\x0a\x12\x04nnrp\x3a\x02\x12\x00"),
        ("ort", b"\x20\0\0\0ORTM\0\0"),
        ("openvino_ir", b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<net name=\"a\">"),
        ("tflite", b"\x1c\0\0\0TFL3\0\0"),
        ("tensorflow", b"\x0a\x05\x0a\x01x\x12\x00\x22\x02\x08\x01"),
        ("saved_model", b"\x08\x01\x12\x02\x0a\x00"),
        ("paddle", b"\x0a\x02\x08\x00\x22\x02\x08\x01"),
        ("paddle_pir", b"{\"base_code\":{\"magic\":\"pir\",\"version\":1}"),
        ("torchscript", &torchscript),
        ("pt2", &zipped(&["net/archive_format", "net/models/model.json"])),
        ("keras", &zipped(&["config.json", "model.weights.h5"])),
        ("gguf", b"GGUF\x03\0\0\0"),
        ("vmfb", b"\x1c\0\0\0IREE"),
        ("vmfb", b"\x10\0\0\0\x1c\0\0\0IREE"),
        ("vmfb", b"PK\x03\x04\x2d\0\0\0\0\0\0\0\x21\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x09\0\0\0module.fb"),
        ("jax_export", b"\x0c\0\0\0\x06\0\x08\0\x04\0\0\0\x08\0\0\0\x04\0\0\0\x04\0\0\0ML\xefR"),
        ("mlmodel", b"\x08\x06\x12\x02\x0a\x00\xb2\x1f\x02\x08\x01"),
        ("stablehlo", b"ML\xefR\x0dStableHLO"),
        ("ncnn", b"7767517\n2 2\n"),
        ("pte", b"\x30\0\0\0ET12\0\0"),
        ("safetensors", b"\x02\0\0\0\0\0\0\0{}"),
        ("tensorrt", b"ftrt\0\0\0\0"),
        ("shared_library", b"\x7fELF\x02"),
    ];
    for (expected, bytes) in cases {
        // The ending says nothing, or something else.
        for name in ["model", "model.onnx", "model.tflite", "model.mnn"] {
            assert_eq!(format(&scratch.file(name, bytes)).unwrap(), expected, "{name}");
        }
    }
    let mnn = b"\x0c\0\0\0\0\0\x04\0\x04\0\0\0\x08\0\0\0\0\0\0\0";
    assert_eq!(format(&scratch.file("model.mnn", mnn)).unwrap(), "mnn");
    assert!(format(&scratch.file("model.onnx", mnn)).unwrap_err().is(Reason::InvalidModel));
}

/// An archive with a second record at its end, as PyTorch writes them: one for sizes of 64 bits, although none is needed.
fn ended_twice(mut archive: Vec<u8>) -> Vec<u8> {
    let end = archive.split_off(archive.len() - 22);
    let number = |at: usize| u32::from_le_bytes(end[at..at + 4].try_into().unwrap()).into();
    let (at, count) = (archive.len() as u64, u64::from(u16::from_le_bytes(end[10..12].try_into().unwrap())));
    archive.extend(b"PK\x06\x06");
    archive.extend(44_u64.to_le_bytes());
    archive.extend([0x1e, 3, 0x2d, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    archive.extend([count, count, number(12), number(16)].into_iter().flat_map(u64::to_le_bytes));
    archive.extend(b"PK\x06\x07\0\0\0\0");
    archive.extend(at.to_le_bytes());
    archive.extend(1_u32.to_le_bytes());
    archive.extend(end);
    archive
}

#[test]
fn an_archive_of_pytorchs_is_read_whatever_its_first_name_is_long() {
    let scratch = Scratch::new("long");
    for length in 1..64 {
        let first = "n".repeat(length);
        let file = scratch.file("model.pt2", &ended_twice(zipped(&[&first, "net/archive_format"])));
        assert_eq!(format(&file).unwrap(), "pt2", "{length}");
    }
}

#[test]
fn a_source_in_python_is_a_model_where_it_speaks_of_the_class() {
    let scratch = Scratch::new("source");
    let source = b"# A long comment\nclass TritonPythonModel:\n    pass\n";
    assert_eq!(format(&scratch.file("model.py", source)).unwrap(), "triton_python");
    for (name, bytes) in [("other.py", &b"print(5)\n"[..]), ("model.txt", source), ("bytes.py", b"\xff TritonPythonModel")] {
        assert!(format(&scratch.file(name, bytes)).unwrap_err().is(Reason::InvalidModel), "{name}");
    }
}

#[test]
fn a_folder_may_be_a_model() {
    let scratch = Scratch::new("folders");
    scratch.file("saved/saved_model.pb", b"\x08\x01");
    scratch.file("package.mlpackage/Manifest.json", b"{}");
    scratch.file("package.mlpackage/Data/model.mlmodel", b"\x08\x06");
    scratch.file("other/model.onnx", b"\x08\x0a");
    assert_eq!(format(&scratch.0.join("saved")).unwrap(), "saved_model");
    assert_eq!(format(&scratch.0.join("package.mlpackage")).unwrap(), "mlpackage");
    assert_eq!(byte_size(&scratch.0.join("package.mlpackage")), 4);
    assert!(format(&scratch.0.join("other")).unwrap_err().is(Reason::InvalidModel));
}

#[test]
fn a_pickle_is_refused_alone_and_in_an_archive() {
    let scratch = Scratch::new("pickle");
    for bytes in [&b"\x80\x04\x95\x0c\0\0\0"[..], &zipped(&["archive/data.pkl", "archive/data/0"])] {
        let error = format(&scratch.file("model.pt", bytes)).unwrap_err();
        assert!(error.is(Reason::InvalidModel) && error.message().contains("pickle"), "{error:?}");
    }
}

#[test]
fn what_is_no_model_is_of_no_format_wherever_it_ends() {
    let scratch = Scratch::new("none");
    let whole = zipped(&["net/data.pkl", "net/code/a.py", "net/constants.pkl"]);
    let texts = [&b"hello, this is text\n"[..], &[0; 64], &[0xff; 64], b"<?xml version=\"1.0\"?><html/>", b"{\"a\": 1}", b"\x0a", b"\x12\x7f"];
    for bytes in texts.into_iter().chain((1..whole.len() - 1).map(|end| &whole[..end])) {
        let error = format(&scratch.file("model.onnx", bytes)).unwrap_err();
        assert!(error.is(Reason::InvalidModel), "{error:?}");
    }
}

#[test]
fn a_files_own_runtime_is_that_of_its_content() {
    let scratch = Scratch::new("own");
    for (name, bytes, runtime) in [
        ("model.onnx", &b"\x18\0\0\0TFL3 and more"[..], Some("litert")),
        ("model.tflite", b"GGUF\x03\0\0\0 and more", Some("llama-cpp")),
        ("model.vmfb", b"ML\xefR and more", None),
        ("empty.onnx", b"", None),
        ("garbage.onnx", b"nothing of the sort", None),
    ] {
        assert_eq!(own_runtime(&scratch.file(name, bytes)), runtime, "{name}");
    }
    assert_eq!(own_runtime(&scratch.0.join("nowhere.onnx")), None);
}
