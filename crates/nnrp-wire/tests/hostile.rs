//! Nothing that a stranger sends makes a decoder panic or take memory out of proportion.
#[allow(dead_code, reason = "the tests of the sockets use it all")]
#[path = "sockets/support.rs"]
mod support;
#[path = "codec/vectors.rs"]
mod vectors;

use bytes::Bytes;
use nnrp_core::{Code, NnrpError, Reason};
use nnrp_wire::ServerSettings;
use nnrp_wire::codec::rest::{decode_error, decode_raw_request, decode_request, decode_response};
use peak_alloc::PeakAlloc;
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use support::{PATIENCE, Wire, binary, post, serve, settings};
use vectors::{Vector, decode, load, text};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

/// One measurement at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes that `work` had at its highest beyond what there was before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = PEAK.current_usage();
    PEAK.reset_peak_usage();
    let result = work();
    (result, PEAK.peak_usage().saturating_sub(before))
}

/// FP64 out of `1,` is four times its text; a vector may hold twice what it needs.
fn bound(body: &[u8]) -> usize {
    10 * body.len() + (1 << 20)
}

#[test]
fn each_attack_gets_its_error_in_bounded_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for vector in load("attacks/rest") {
        let (answer, bytes) = peak(|| decode(&vector));
        let error = answer.err().unwrap_or_else(|| panic!("{}: accepted", vector.name));
        let expected = &vector.document["error"];
        assert_eq!((error.code().name(), error.reason()), (text(&expected["code"]), text(&expected["reason"])), "{}: {error:?}", vector.name);
        for (key, value) in expected["details"].as_object().into_iter().flatten() {
            assert_eq!(error.details().get(key), Some(value), "{}: {error:?}", vector.name);
        }
        assert!(bytes <= bound(&vector.body), "{}: {bytes} bytes for {}", vector.name, vector.body.len());
        assert!(error.message().len() < 1_000, "{}: a message of {} bytes", vector.name, error.message().len());
    }
}

/// Bytes of an answer, of which the system's buffers take a part.
const ANSWER: usize = 9 << 20;

#[test]
fn those_who_never_read_cost_what_the_server_was_told_to_spare() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (server, _gate) = serve(ServerSettings { max_unread_bytes: ANSWER * 5 / 2, ..settings() });
    let (header, body) = binary(&[1.0; ANSWER / 4]);
    let asked = post("/v2/models/echo/infer", &header, body);
    let ask = |_| {
        let mut wire = Wire::narrow(server.http_address().unwrap());
        let status = wire.send(&asked).head().status;
        (wire, status)
    };
    let (clients, bytes) = peak(|| (0..24).map(ask).collect::<Vec<_>>());
    assert_eq!(clients.iter().filter(|(_, status)| *status == 200).count(), 2);
    // Two answers that are kept, and a request, which grows as it comes, with the answer that has no room.
    assert!(bytes < 8 * ANSWER, "{bytes} bytes");
    let (kept, begun) = (PEAK.current_usage(), Instant::now());
    drop(clients);
    while PEAK.current_usage() + 2 * ANSWER > kept {
        assert!(begun.elapsed() < PATIENCE, "{kept} bytes, then {}", PEAK.current_usage());
        std::thread::yield_now();
    }
}

/// A generator that gives the same numbers on every machine (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if end == 0 { 0 } else { (self.0 % end as u64) as usize }
    }
}

const TOKENS: &str = r#"[ ] { } , : " \ null true - 1e400 99999999999999999999 0.1e-5 \ud800 FP64 BYTES "data": "shape":[] NaN "parameters":{} 01"#;

fn mutate(dice: &mut Dice, base: &[u8], other: &[u8]) -> Vec<u8> {
    let mut body = base.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(body.len());
        let end = (at + dice.below(24)).min(body.len());
        match dice.below(7) {
            0 if !body.is_empty() => body[at] ^= 1 << dice.below(8),
            1 => body.truncate(at),
            2 => drop(body.splice(at..end, other.iter().copied().skip(dice.below(other.len())).take(40))),
            3 => drop(body.splice(at..at, TOKENS.split(' ').nth(dice.below(22)).unwrap().bytes())),
            4 => drop(body.drain(at..end)),
            5 => {
                let again = body[at..end].repeat(dice.below(5));
                drop(body.splice(at..at, again));
            }
            _ if !body.is_empty() => body[at] = b"0123456789[]{},:\"e.-\\\xff"[dice.below(22)],
            _ => {}
        }
    }
    body
}

fn check(what: &str, error: &NnrpError) {
    assert!(matches!(error.code(), Code::InvalidArgument | Code::Unimplemented), "{what}: {error:?}");
    assert!(Reason::from_name(error.reason()).is_some() && error.message().len() < 1_000, "{what}: {error:?}");
}

fn throw(base: &Vector, body: &Bytes, size: Option<usize>) {
    let received = Instant::now();
    if let Err(error) = decode_request("m", "", body, size, received) {
        check(&base.name, &error);
    }
    if let Err(error) = decode_raw_request("m", "", body, &base.signature) {
        check(&base.name, &error);
    }
    match decode_response(body, size) {
        Ok(response) => assert!(response.outputs.len() <= 1_024),
        Err(error) => check(&base.name, &error),
    }
    assert!(!decode_error(500, body).message().is_empty() || matches!(serde_json::from_slice(body), Ok(Value::Object(_))));
}

#[test]
fn a_mutated_message_is_a_message_or_a_typed_error() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut vectors = load("rest");
    vectors.extend(load("attacks/rest").into_iter().filter(|vector| vector.body.len() < 4_096));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..40_000 {
        let (base, other) = (&vectors[dice.below(vectors.len())], &vectors[dice.below(vectors.len())]);
        let body = Bytes::from(mutate(&mut dice, &base.body, &other.body));
        let size = match dice.below(4) {
            0 => Some(dice.below(body.len() + 2)),
            _ => base.json_size,
        };
        let ((), bytes) = peak(|| throw(base, &body, size));
        assert!(bytes <= bound(&body), "{}: {bytes} bytes for {}", base.name, body.len());
    }
}
