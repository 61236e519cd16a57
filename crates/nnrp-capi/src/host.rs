//! The program `nnrp-host`: a process of its own for one model (`isolation` in `spec/nnrp.h`).
use crate::settings;
use std::io::{Error, Result};

/// Hosts the model that an engine describes, until that engine is gone or wants no more.
///
/// # Errors
/// When the words are not those that an engine starts it with, or what the engine says makes no sense.
pub fn main(words: impl Iterator<Item = String>) -> Result<()> {
    let words: Vec<String> = words.collect();
    let [.., settings, socket, memory] = &words[..] else {
        return Err(Error::other("expected SETTINGS SOCKET MEMORY: an engine starts this program for a model with isolation 'process'"));
    };
    let descriptor = |word: &String| word.parse::<i32>().map_err(Error::other);
    let descriptors = [descriptor(socket)?, descriptor(memory)?];
    nnrp_runtimes::isolated::host(descriptors, |spec| settings::runtimes(Some(settings))?.load(spec))
}

/// Ends the process, not through the libraries' own ends, which may wait for runs that nobody can stop.
pub fn end() -> ! {
    #[cfg(unix)]
    // SAFETY: it ends the process; nothing of ours is left to be done.
    unsafe {
        libc::_exit(0)
    }
    #[cfg(not(unix))]
    std::process::exit(0)
}
