//! What a library says, on one line and without the file paths in it.
use nnrp_core::plain::plain;
use regex_lite::{Captures, Regex};
use std::path::Path;
use std::sync::LazyLock;

/// Longest text of a library that an error repeats, in bytes.
const TEXT_LIMIT: usize = 2048;

/// The text on one line, without file paths: the model's own, whatever looks like one, and the source files of the library.
pub(crate) fn scrub(text: &str, model: Option<&Path>) -> String {
    // An absolute path on Unix or Windows, or a relative one; with a line number when it has one.
    static PATH: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"(?:[A-Za-z]:[\\/]|[~.]{0,2}[\\/]|[\w@+-][\w.@+-]*)(?:[^\s'"`()<>\[\]{},;|:]*)(?::\d+)?"#).ok());
    // One in quotes, which may have spaces and brackets in it.
    static QUOTED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"["'](?:[A-Za-z]:[\\/]|[~.]{0,2}[\\/])[^"'\n]*["']"#).ok());
    let (Some(pattern), Some(quoted)) = (&*PATH, &*QUOTED) else { return String::new() };
    let unquoted = quoted.replace_all(text, |found: &Captures<'_>| {
        let (token, end) = (&found[0], found.get(0).map_or(0, |all| all.start() + 1));
        let path = is_path(&token[1..token.len() - 1], text.get(..end).unwrap_or_default());
        if path { format!("{0}…{0}", &token[..1]) } else { token.to_owned() }
    });
    let text = limit(&without(&unquoted, model), 4 * TEXT_LIMIT);
    let scrubbed = pattern.replace_all(&text, |found: &Captures<'_>| {
        let (token, before) = (&found[0], found.get(0).map_or("", |all| text.get(..all.start()).unwrap_or_default()));
        if is_path(token, before) { "…".to_owned() } else { token.to_owned() }
    });
    limit(plain(&scrubbed).replace("……", "…").trim(), TEXT_LIMIT)
}

/// The text without the model's path and the folders that it lies in, for what lies beside it: as they were given, and as the library may have found them.
fn without(text: &str, model: Option<&Path>) -> String {
    let Some(model) = model else { return text.to_owned() };
    let found = [std::path::absolute(model).ok(), model.canonicalize().ok()];
    // The longest first, and a folder only when it is no plain word.
    let folders = found.iter().flatten().flat_map(|path| path.ancestors()).filter(|folder| folder.components().count() > 2);
    let text = [Some(model)].into_iter().flatten().chain(folders).filter_map(Path::to_str).fold(text.to_owned(), |text, path| text.replace(path, "…"));
    let given = model.parent().and_then(Path::to_str).filter(|folder| !folder.is_empty());
    given.map_or(text.clone(), |folder| text.replace(&format!("\"{folder}\""), "\"…\"").replace(&format!("'{folder}'"), "'…'"))
}

fn is_path(token: &str, before: &str) -> bool {
    const FILES: [&str; 15] = [".cc", ".h", ".hpp", ".cpp", ".cu", ".cuh", ".inc", ".py", ".so", ".dll", ".dylib", ".onnx", ".ort", ".bin", ".data"];
    let name = token.rsplit_once(':').filter(|(_, line)| line.bytes().all(|c| c.is_ascii_digit())).map_or(token, |(name, _)| name);
    if FILES.iter().any(|ending| name.ends_with(ending)) || name.contains(".so.") {
        return true;
    }
    // Exporters name nodes like paths, `/encoder/MatMul`; the library tells them in these ways.
    let is_node = ["Name:'", "name:'", "node '", "Node (", "node (", "Node:", "node:", "name: "].iter().any(|mark| before.ends_with(mark));
    let drive = token.as_bytes().get(1) == Some(&b':') && matches!(token.as_bytes().get(2), Some(b'\\' | b'/'));
    !is_node && (drive || (token.len() > 1 && token.trim_start_matches(['~', '.']).starts_with(['/', '\\'])))
}

fn limit(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_model_and_of_the_librarys_sources_are_stripped() {
        let model = Path::new("/srv/my models/a/model.onnx");
        for (text, expected) in [
            ("Load model from /srv/my models/a/model.onnx failed:Protobuf parsing failed.", "Load model from … failed:Protobuf parsing failed."),
            ("/onnxruntime_src/onnxruntime/core/framework/x.cc:173 Status foo(int) bad", "… Status foo(int) bad"),
            ("External data path: /srv/my models/a/w.bin is missing", "External data path: … is missing"),
            ("error in 'C:\\src\\ort\\x.cpp:12': no", "error in '…': no"),
            ("onnxruntime/core/x.h:5 and conv_op.cc:9", "… and …"),
            ("dlopen ../lib/libcudart.so.12: cannot open", "dlopen …: cannot open"),
            ("see ~/models/x and /etc/passwd", "see … and …"),
            ("resolved path: \"/srv/my models/out (1).x\" allowed directory: \"/srv/my models/a\"", "resolved path: \"…\" allowed directory: \"…\""),
            ("Path '/a b/c' resolves to '/d (e) f/g h' which is outside", "Path '…' resolves to '…' which is outside"),
        ] {
            assert_eq!(scrub(text, Some(model)), expected);
        }
    }

    #[test]
    fn the_folder_of_a_relative_path_is_stripped_as_it_was_given_and_as_it_was_found() {
        let found = std::path::absolute("the model/w.bin").unwrap();
        let text = format!("allowed directory: \"the model\", not there: {}", found.display());
        assert_eq!(scrub(&text, Some(Path::new("the model/m.onnx"))), "allowed directory: \"…\", not there: …");
    }

    #[test]
    fn names_of_nodes_and_plain_words_stay() {
        for text in [
            "Non-zero status code returned while running Add node. Name:'/encoder/Add' Status Message: 3 by 4",
            "Node (/model/MatMul) Op (MatMul) [ShapeInferenceError] Incompatible dimensions",
            "Type 'tensor(float16)' of input parameter (x.1) of operator (Add) in node (/a/Add) is invalid. 1/2 and float/double",
        ] {
            assert_eq!(scrub(text, None), text);
        }
    }

    #[test]
    fn a_text_is_cut_at_its_limit_between_characters() {
        assert!(scrub(&"é ".repeat(5_000), None).len() <= TEXT_LIMIT + '…'.len_utf8());
    }
}
