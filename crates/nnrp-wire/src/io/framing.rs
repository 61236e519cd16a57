//! Where a request ends (RFC 9112 §6). The HTTP library is given no byte of the next one before that has its turn, so that every head is seen from where it
//! begins, however requests were cut or put together on their way.
use memchr::memchr_iter;

/// What comes next.
#[derive(Debug)]
enum Next {
    Head,
    /// So many bytes of a body.
    Counted(u64),
    /// A body in chunks, which ends with an empty line; what its last line holds so far.
    Chunked(Line),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Line {
    Empty,
    Return,
    Other,
}

/// What a head says of the body behind it.
#[derive(Debug, Default, PartialEq)]
struct Said {
    length: Option<u64>,
    coded: bool,
}

/// The place in what a client sends.
#[derive(Debug)]
pub(super) struct Framing {
    next: Next,
    /// A head that did not come in one piece.
    head: Vec<u8>,
    ambiguous: bool,
}

impl Framing {
    pub(super) const START: Framing = Framing { next: Next::Head, head: Vec::new(), ambiguous: false };

    /// Whether the head that came last has a length beside a transfer coding.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// How many of these bytes the library may have now: up to the end of a message, or to where that may be. `answered`: the last request is.
    pub(super) fn take(&mut self, bytes: &[u8], answered: bool) -> usize {
        match &mut self.next {
            Next::Counted(left @ 1..) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                count
            }
            Next::Chunked(line) if !answered => chunks(line, bytes),
            _ => self.head(bytes),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> usize {
        self.next = Next::Head;
        // Empty lines before a head are passed over.
        let lead = if self.head.is_empty() { bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count() } else { 0 };
        let fresh = &bytes[lead..];
        let (end, said) = if self.head.is_empty() {
            let Some((end, said)) = read(fresh, 0) else {
                self.head.extend_from_slice(fresh);
                return bytes.len();
            };
            (lead + end, said)
        } else {
            let before = self.head.len();
            self.head.extend_from_slice(fresh);
            // The end alone, so that a head that drips is not read anew with each byte; an empty line is at most three bytes.
            let Some((end, _)) = read(&self.head, before.saturating_sub(3)) else { return bytes.len() };
            let said = read(&self.head[..end], 0).map(|(_, said)| said).unwrap_or_default();
            self.head = Vec::new();
            (end - before, said)
        };
        self.ambiguous = said.coded && said.length.is_some();
        if said.coded {
            self.next = Next::Chunked(Line::Empty);
            return end;
        }
        let (rest, length) = ((bytes.len() - end) as u64, said.length.unwrap_or(0));
        self.next = Next::Counted(length.saturating_sub(rest));
        end + rest.min(length) as usize
    }
}

/// Reads lines up to the first empty one: where that ends, and what those before it said, of which the first is passed over.
fn read(head: &[u8], from: usize) -> Option<(usize, Said)> {
    let mut said = Said::default();
    let mut at = from;
    loop {
        at += line_end(&head[at..])?;
        match &head[at..] {
            [b'\n', ..] => return Some((at + 1, said)),
            [b'\r', b'\n', ..] => return Some((at + 2, said)),
            [b'c' | b'C', ..] => said.length = value(&head[at..], b"content-length:").map(length).or(said.length),
            [b't' | b'T', ..] => said.coded |= value(&head[at..], b"transfer-encoding:").is_some(),
            _ => {}
        }
    }
}

/// Behind the first line feed. Lines of a head are so short that eight bytes at a time are faster than what finds a byte in long texts (149 instead of 434 ns
/// for a small request, two busy cores).
fn line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let differs = u64::from_le_bytes(*eight) ^ (ONES * b'\n' as u64);
        // The lowest byte that is zero is marked, and none below it.
        let zeros = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if zeros != 0 {
            return Some(at + zeros.trailing_zeros() as usize / 8 + 1);
        }
        at += 8;
    }
    bytes[at..].iter().position(|&byte| byte == b'\n').map(|rest| at + rest + 1)
}

/// Behind the first empty line of a body in chunks, or the end.
fn chunks(line: &mut Line, bytes: &[u8]) -> usize {
    let mut start = 0;
    for at in memchr_iter(b'\n', bytes) {
        let ended = grown(std::mem::replace(line, Line::Empty), &bytes[start..at]);
        start = at + 1;
        if ended != Line::Other {
            return start;
        }
    }
    *line = grown(*line, &bytes[start..]);
    bytes.len()
}

fn grown(line: Line, more: &[u8]) -> Line {
    match (line, more) {
        (line, []) => line,
        (Line::Empty, b"\r") => Line::Return,
        _ => Line::Other,
    }
}

/// The value of a header of that name, where one begins.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let named = start.last() == Some(&b':') && start.eq_ignore_ascii_case(name);
    named.then(|| rest[..line_end(rest).unwrap_or(rest.len())].trim_ascii())
}

/// The library refuses what is no length.
fn length(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET /v2 HTTP/1.1\r\nhost: t\r\n\r\n";
    const COUNTED: &str = "\r\nPOST /a HTTP/1.1\r\nCONTENT-length:  5 \r\n\r\n\n\n\r\n\n";
    const CHUNKED: &str = "POST /b HTTP/1.1\nTransfer-Encoding: chunked\n\n5\r\n\n\n\r\n\n\r\n0;x\r\nt: v\r\n\r\n";
    const AMBIGUOUS: &str = "GET /c HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 40\r\n\r\n0\r\n\r\n";
    const PADDED: &str = "GET /d HTTP/1.1\r\ncontent-length: 3\r\nx-content-length: 1\r\n";

    /// Hands out `bytes` in pieces of `size`, as the socket does; what each request was given, and whether its head was ambiguous.
    fn requests(lengths: &[usize], bytes: &[u8], size: usize) -> Vec<(Vec<u8>, bool)> {
        let mut framing = Framing::START;
        let mut all = Vec::new();
        let mut rest = bytes;
        for &length in lengths {
            let mut had = Vec::new();
            while had.len() < length {
                let piece = &rest[..rest.len().min(size)];
                let count = framing.take(piece, had.is_empty());
                assert!(count > 0);
                had.extend_from_slice(&piece[..count]);
                rest = &rest[count..];
            }
            all.push((had, framing.is_ambiguous()));
        }
        assert!(rest.is_empty());
        all
    }

    #[test]
    fn each_request_is_given_whole_and_alone_however_they_come() {
        let padded = format!("{PADDED}x: {}\r\nTransfer-ENCODING: chunked\r\n\r\n0\r\n\r\n", "y".repeat(3_000));
        let sent = [GET, COUNTED, AMBIGUOUS, CHUNKED, CHUNKED, &padded, COUNTED, GET, CHUNKED, AMBIGUOUS, GET];
        let lengths: Vec<usize> = sent.iter().map(|request| request.len()).collect();
        let expected: Vec<(Vec<u8>, bool)> = sent.iter().map(|request| (request.as_bytes().to_vec(), *request == AMBIGUOUS || *request == padded)).collect();
        for size in (1..80).chain([500, 2_000, 4_000, 100_000]) {
            assert_eq!(requests(&lengths, sent.concat().as_bytes(), size), expected, "{size}");
        }
    }

    #[test]
    fn what_only_looks_like_a_header_is_none() {
        let said = |head: &str| read(head.as_bytes(), 0).map(|(_, said)| said).unwrap();
        let nothing = "GET /content-length: HTTP/1.1\r\ncontent-lengths: 1\r\nx: transfer-encoding:\r\ncontent-length : 1\r\nt\r\nc\r\n\r\n";
        assert_eq!(said(nothing), Said::default());
        assert_eq!(said("GET / HTTP/1.1\ncontent-length:7\ntransfer-encoding:\n\n"), Said { length: Some(7), coded: true });
        assert_eq!(said("\ncontent-length: 18446744073709551616\r\n\r\n").length, Some(0));
    }
}
