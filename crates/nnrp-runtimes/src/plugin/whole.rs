//! Whether a shared library is whole. One that was cut off is mapped by the system's loader all the same, and ends the process when it is read.
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};
use std::path::Path;

/// Of a 64-bit ELF file with the bytes in this machine's order: its head, and one entry of the table of what is mapped.
const HEAD: usize = 64;
const ENTRY: usize = 56;
/// The kind of an entry that is mapped.
const LOAD: u32 = 1;

/// Whether all that would be mapped is there; what is no such file is left to the loader.
pub(super) fn is_whole(path: &Path) -> Result<bool> {
    let mut file = File::open(path)?;
    let (mut head, mut entry, length) = ([0; HEAD], [0; ENTRY], file.metadata()?.len());
    if length < HEAD as u64 {
        return Ok(true);
    }
    file.read_exact(&mut head)?;
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    if head[..6] != [0x7f, b'E', b'L', b'F', 2, order] {
        return Ok(true);
    }
    let (table, size, count) = (long(&head, 32), short(&head, 54), short(&head, 56));
    if usize::from(size) != ENTRY || table.checked_add(u64::from(size) * u64::from(count)).is_none_or(|end| end > length) {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(table))?;
    let mut table = file.take(u64::from(size) * u64::from(count));
    for _ in 0..count {
        table.read_exact(&mut entry)?;
        let kind = u32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]);
        let end = long(&entry, 8).checked_add(long(&entry, 32));
        if kind == LOAD && end.is_none_or(|end| end > length) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk))
}

fn short(bytes: &[u8], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |chunk| u16::from_ne_bytes(*chunk))
}
