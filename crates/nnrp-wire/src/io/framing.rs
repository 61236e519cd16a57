//! Where a request ends (RFC 9112 §6). The HTTP library is given no byte of the next one before that has its turn, so that every head is seen from where it
//! begins, however requests were cut or put together on their way.
use memchr::memchr_iter;
use nnrp_core::error::excerpt;

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
    /// Two lengths differ, one is none, or the last coding is not `chunked`.
    wrong: bool,
}

/// What is wrong with a head that the library refuses without saying why.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) header: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) got: String,
    /// The request's own.
    pub(crate) request_id: Option<String>,
}

/// The place in what a client sends.
#[derive(Debug)]
pub(super) struct Framing {
    next: Next,
    /// A head that did not come in one piece.
    head: Vec<u8>,
    ambiguous: bool,
    fault: Option<Box<Fault>>,
}

impl Framing {
    pub(super) const START: Framing = Framing { next: Next::Head, head: Vec::new(), ambiguous: false, fault: None };

    /// Whether the head that came last has a length beside a transfer coding.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// What is wrong with the head that came last, if that is known.
    pub(super) fn fault(&mut self) -> Option<Box<Fault>> {
        self.fault.take()
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
            if said.wrong {
                self.fault = fault(&fresh[..end]);
            }
            (lead + end, said)
        } else {
            let before = self.head.len();
            self.head.extend_from_slice(fresh);
            // The end alone, so that a head that drips is not read anew with each byte; an empty line is at most three bytes.
            let Some((end, _)) = read(&self.head, before.saturating_sub(3)) else { return bytes.len() };
            let said = read(&self.head[..end], 0).map(|(_, said)| said).unwrap_or_default();
            let head = std::mem::take(&mut self.head);
            if said.wrong {
                self.fault = fault(&head[..end]);
            }
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

const LENGTH: &[u8] = b"content-length:";
const CODING: &[u8] = b"transfer-encoding:";

/// Reads lines up to the first empty one: where that ends, and what those before it said, of which the first is passed over.
fn read(head: &[u8], from: usize) -> Option<(usize, Said)> {
    let mut said = Said::default();
    let mut at = from;
    loop {
        at += line_end(&head[at..])?;
        match &head[at..] {
            [b'\n', ..] => return Some((at + 1, said)),
            [b'\r', b'\n', ..] => return Some((at + 2, said)),
            [b'c' | b'C', ..] => {
                if let Some(value) = value(&head[at..], LENGTH) {
                    said.wrong |= !is_length(value) || said.length.is_some_and(|before| before != length(value));
                    said.length = Some(length(value));
                }
            }
            [b't' | b'T', ..] => {
                if let Some(value) = value(&head[at..], CODING) {
                    said.wrong |= !ends_chunked(value);
                    said.coded = true;
                }
            }
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

fn is_length(value: &[u8]) -> bool {
    value.iter().all(u8::is_ascii_digit) && std::str::from_utf8(value).is_ok_and(|text| text.parse::<u64>().is_ok())
}

fn ends_chunked(value: &[u8]) -> bool {
    value.rsplit(|&byte| byte == b',').next().is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
}

/// What is wrong with a head in which something is.
#[cold]
fn fault(head: &[u8]) -> Option<Box<Fault>> {
    let mut at = 0;
    let (mut lengths, mut codings, mut request_id) = (Vec::new(), Vec::new(), None);
    while let Some(end) = line_end(&head[at..]) {
        at += end;
        lengths.extend(value(&head[at..], LENGTH));
        codings.extend(value(&head[at..], CODING));
        request_id = request_id.or_else(|| value(&head[at..], b"x-request-id:")).filter(|id| !id.is_empty());
    }
    let (header, expected, got) = match codings.last() {
        Some(last) if !ends_chunked(last) => ("transfer-encoding", "chunked", codings),
        _ => ("content-length", "one number of bytes below 2^64", lengths),
    };
    let got = got.iter().map(|value| excerpt(&String::from_utf8_lossy(value))).collect::<Vec<_>>().join(" and ");
    let request_id = request_id.and_then(|id| std::str::from_utf8(id).ok()).map(str::to_owned);
    Some(Box::new(Fault { header, expected, got: excerpt(&got), request_id }))
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
        assert_eq!(said("GET / HTTP/1.1\ncontent-length:7\ntransfer-encoding:\n\n"), Said { length: Some(7), coded: true, wrong: true });
        assert_eq!(said("\ncontent-length: 18446744073709551616\r\n\r\n").length, Some(0));
    }

    #[test]
    fn what_is_wrong_with_a_head_is_told_in_whatever_pieces_it_came() {
        for (headers, expected) in [
            ("Content-Length: -1\r\n", Some(("content-length", "-1"))),
            ("content-length: 18446744073709551616\r\n", Some(("content-length", "18446744073709551616"))),
            ("content-length: 1\r\ncontent-length: 2\r\n", Some(("content-length", "1 and 2"))),
            ("transfer-encoding: chunked, gzip\r\n", Some(("transfer-encoding", "chunked, gzip"))),
            ("content-length: 7\r\ncontent-length: 7\r\n", None),
            ("transfer-encoding: gzip, Chunked\r\n", None),
        ] {
            let head = format!("POST / HTTP/1.1\r\nX-Request-Id:  mine\r\n{headers}\r\n");
            for size in [1, 20, 1_000] {
                let mut framing = Framing::START;
                head.as_bytes().chunks(size).for_each(|piece| assert_eq!(framing.take(piece, true), piece.len()));
                let fault = framing.fault();
                assert_eq!(fault.as_ref().map(|fault| (fault.header, &*fault.got)), expected, "{head}");
                assert!(fault.is_none_or(|fault| fault.request_id.as_deref() == Some("mine")));
            }
        }
    }
}
