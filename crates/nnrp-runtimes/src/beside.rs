//! The files that belong to a model beside its own, and where they may lie: nothing that it leads to through a link is read from elsewhere (spec §8.7).
use nnrp_core::{NnrpError, Reason, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most files of a folder that are looked at.
const MOST_FILES: usize = 100_000;

/// Refuses a model of which a file lies elsewhere; whether the files are there is for the runtime to say. ONNX names its files, and they are looked at as it is read.
///
/// # Errors
/// `INVALID_MODEL`.
pub fn check(path: &Path, format: &str) -> Result<()> {
    let with = |ending: &str| vec![path.with_extension(ending)];
    let is_within = |files: Vec<PathBuf>| files.iter().all(|file| !is_elsewhere(path, file));
    let is_right = match format {
        "openvino_ir" | "ncnn" => is_within(with("bin")),
        "paddle" | "paddle_pir" => is_within(with("pdiparams")),
        "mnn" => is_within(vec![path.with_added_extension("weight")]),
        "gguf" => is_within(parts(path)),
        "saved_model" if path.is_dir() => folder_is_within(&path.join("saved_model.pb")),
        "saved_model" => folder_is_within(path),
        _ => true,
    };
    if is_right { Ok(()) } else { Err(refused("outside its folder")) }
}

/// All parts of a language model of which this is one, `NAME-00001-of-00003.gguf`.
fn parts(path: &Path) -> Vec<PathBuf> {
    let told = path.file_name().and_then(|name| {
        let (name, count) = name.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (name, part) = name.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        Some((name, count)).filter(|_| is_number(part) && is_number(count))
    });
    let Some((name, count)) = told else { return Vec::new() };
    let part = |part| path.with_file_name(format!("{name}-{part:05}-of-{count}.gguf"));
    (1..=count.parse().unwrap_or(0)).map(part).collect()
}

/// The error of weights that a model keeps where it must not.
#[cold]
pub(crate) fn refused(got: &str) -> NnrpError {
    NnrpError::new(Reason::InvalidModel, format!("model file: expected weights in files beside it, got some {got}"))
}

/// Whether a file that is there lies neither in the model's folder nor in the one that the model's own file really lies in, as where a cache keeps
/// every file under a name of its own in one folder, and links lead there.
pub(crate) fn is_elsewhere(model: &Path, file: &Path) -> bool {
    file.canonicalize().is_ok_and(|file| !homes(model).iter().any(|home| file.starts_with(home)))
}

fn homes(model: &Path) -> Vec<PathBuf> {
    let folder = model.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let real = model.canonicalize().ok().and_then(|file| Some(file.parent()?.to_owned()));
    folder.and_then(|folder| folder.canonicalize().ok()).into_iter().chain(real).collect()
}

/// Whether all that lies in the folder of `main`, and in folders below it, lies there; links to folders are followed once.
fn folder_is_within(main: &Path) -> bool {
    let homes = homes(main);
    let (mut folders, mut seen, mut files) = (vec![main.parent().unwrap_or(main).to_owned()], BTreeSet::new(), 0);
    while let Some(folder) = folders.pop() {
        let Ok(folder) = folder.canonicalize() else { continue };
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            files += 1;
            let Ok(found) = entry.path().canonicalize() else { continue };
            let is_main = entry.file_name() == main.file_name().unwrap_or_default();
            if files > MOST_FILES || !(is_main || homes.iter().any(|home| found.starts_with(home))) {
                return false;
            }
            if found.is_dir() && seen.insert(found.clone()) {
                folders.push(found);
            }
        }
    }
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder of files and of links, each of which says where it leads; gone at its end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, entries: &[&str]) -> Tree {
            let root = std::env::temp_dir().join(format!("nnrp-beside-{name}-{}", std::process::id()));
            let _gone = fs::remove_dir_all(&root);
            for entry in entries {
                let (name, to) = entry.split_once(" -> ").map_or((*entry, None), |(name, to)| (name, Some(to)));
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match to {
                    Some(to) => symlink(to, path).unwrap(),
                    None => fs::write(path, name).unwrap(),
                }
            }
            Tree(root)
        }

        fn check(&self, model: &str, format: &str) -> bool {
            check(&self.0.join(model), format)
                .map_err(|error| assert!(error.is(Reason::InvalidModel) && error.message().ends_with("outside its folder")))
                .is_ok()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn weights_that_a_link_leads_out_of_the_folder_for_are_refused() {
        let tree = Tree::new("out", &["m/a.xml", "m/a.bin -> ../secret", "m/b.xml", "m/b.bin -> kept/b", "m/kept/b", "m/c.xml", "secret"]);
        assert_eq!(["m/a.xml", "m/b.xml", "m/c.xml"].map(|model| tree.check(model, "openvino_ir")), [false, true, true]);
        for (format, weights) in [("ncnn", "n.bin"), ("paddle", "n.pdiparams"), ("mnn", "n.mnn.weight")] {
            let tree = Tree::new(format, &["m/n.mnn", &format!("m/{weights} -> ../secret"), "secret"]);
            assert!(!tree.check("m/n.mnn", format), "{format}");
        }
    }

    #[test]
    fn every_part_of_a_language_model_lies_with_the_first() {
        let whole = ["l-00001-of-00002.gguf", "l-00002-of-00002.gguf", "l.gguf", "other-00002-of-00002.gguf -> ../nnrp-elsewhere"];
        assert!(Tree::new("parts", &whole).check("l-00001-of-00002.gguf", "gguf"));
        let tree = Tree::new("part", &["m/l-00001-of-00002.gguf", "m/l-00002-of-00002.gguf -> ../secret", "m/l.gguf", "secret"]);
        assert!(!tree.check("m/l-00001-of-00002.gguf", "gguf") && tree.check("m/l.gguf", "gguf"));
    }

    #[test]
    fn a_cache_that_links_every_file_of_a_model_into_one_folder_is_one() {
        let tree = Tree::new(
            "cache",
            &[
                "blobs/1",
                "blobs/2",
                "snapshots/main -> 5f",
                "snapshots/5f/m.xml -> ../../blobs/1",
                "snapshots/5f/m.bin -> ../../blobs/2",
                "snapshots/5f/saved_model.pb -> ../../blobs/1",
                "snapshots/5f/variables/variables.index -> ../../../blobs/2",
            ],
        );
        for folder in ["snapshots/5f", "snapshots/main"] {
            assert!(tree.check(&format!("{folder}/m.xml"), "openvino_ir"));
            assert!(tree.check(folder, "saved_model") && tree.check(&format!("{folder}/saved_model.pb"), "saved_model"));
        }
    }

    #[test]
    fn a_saved_model_is_looked_at_whole() {
        let whole = ["m/saved_model.pb", "m/variables/variables.index", "m/assets/words/all.txt", "m/round -> ."];
        let tree = Tree::new("whole", &whole);
        assert!(tree.check("m", "saved_model"));
        for out in ["m/variables/variables.data-0 -> ../../secret", "m/assets/words/more -> ../../../secret", "m/extra -> ../there"] {
            let tree = Tree::new("holed", &[&whole[..], &[out, "secret", "there/x"]].concat());
            assert!(!tree.check("m", "saved_model"), "{out}");
        }
    }
}
