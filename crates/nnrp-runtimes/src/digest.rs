//! What a file or a folder holds, in 64 letters (docs/guide/sources.md).
use crate::format;
use nnrp_core::{NnrpError, Reason, Result};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The SHA-256 digest of a file; of a folder, that of the lines `DIGEST  NAME` of its files, in the order of their names, as `sha256sum` writes them.
///
/// # Errors
/// When something of it cannot be read.
pub fn digest(path: &Path) -> io::Result<String> {
    if !path.is_dir() {
        return of_file(path);
    }
    let mut names = Vec::new();
    list(path, "", &mut names)?;
    names.sort_unstable();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(format!("{}  {name}\n", of_file(&path.join(&name))?));
    }
    Ok(hexadecimal(hash))
}

/// Refuses what is not what it was when its digest was said.
///
/// # Errors
/// `INVALID_MODEL`, with both digests; `FILE_NOT_FOUND` where nothing is there.
pub(crate) fn check(path: &Path, expected: &str) -> Result<()> {
    let got = digest(path).map_err(|error| format::refused(&error))?;
    if got == expected {
        return Ok(());
    }
    let message = format!("model file: expected sha256 {}, got {got}", nnrp_core::error::excerpt(expected));
    Err(NnrpError::new(Reason::InvalidModel, message).with("expected", expected).with("got", got))
}

fn of_file(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    add_file(&mut hash, path)?;
    Ok(hexadecimal(hash))
}

/// Goes on with what a file holds.
pub(crate) fn add_file(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let (mut file, mut piece) = (File::open(path)?, vec![0; 1 << 18]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            read => hash.update(&piece[..read]),
        }
    }
}

/// The files below a folder, by their paths from it; what is behind a link to a folder is not below it.
fn list(folder: &Path, within: &str, names: &mut Vec<String>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{within}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else if entry.path().is_file() {
            names.push(name);
        }
    }
    Ok(())
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_folders_digest_is_that_of_its_list_as_sha256sum_writes_it() {
        let folder = std::env::temp_dir().join(format!("nnrp-digest-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("b")).unwrap();
        for name in ["b/c", "b.d", "a"] {
            std::fs::write(folder.join(name), "abc").unwrap();
        }
        assert_eq!(digest(&folder.join("a")).unwrap(), ABC);
        let list = folder.with_extension("list");
        std::fs::write(&list, format!("{ABC}  a\n{ABC}  b.d\n{ABC}  b/c\n")).unwrap();
        assert_eq!(digest(&folder).unwrap(), digest(&list).unwrap());
        std::fs::write(folder.join("b/c"), "abd").unwrap();
        assert_ne!(digest(&folder).unwrap(), digest(&list).unwrap());
        assert!(check(&folder.join("a"), ABC).is_ok());
        assert!(check(&folder.join("b/c"), ABC).unwrap_err().is(Reason::InvalidModel));
        assert!(check(&folder.join("none"), ABC).unwrap_err().is(Reason::FileNotFound));
        std::fs::remove_dir_all(folder).unwrap();
        std::fs::remove_file(list).unwrap();
    }
}
