//! What clients have not read of their answers: bounded for a server as a whole, so that any number of those who never read costs what it was told to spare
//! (spec §7.12).
use bytes::Bytes;
use nnrp_core::{NnrpError, Reason, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What each connection may have unread beside that, so that small answers go out whoever else reads nothing; the system's own buffers hold more.
pub(crate) const SHARE: usize = 64 << 10;

/// Bytes of large answers, all connections together.
pub(crate) struct Unread {
    byte_size: AtomicUsize,
    bound: usize,
}

/// Counts as long as it is kept.
pub(crate) struct Claim {
    unread: Arc<Unread>,
    byte_size: usize,
}

impl Unread {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Unread { byte_size: AtomicUsize::new(0), bound })
    }

    /// Takes room for an answer. One that is larger than all the room there is gets it while nobody else has any.
    ///
    /// # Errors
    /// `UNREAD_ANSWERS`: there is too little left.
    pub(crate) fn claim(self: &Arc<Self>, byte_size: usize) -> Result<Claim> {
        let before = self.byte_size.fetch_add(byte_size, Ordering::Relaxed);
        let claim = Claim { unread: self.clone(), byte_size };
        if before == 0 || before.saturating_add(byte_size) <= self.bound { Ok(claim) } else { Err(claim.refused(before)) }
    }
}

impl Claim {
    #[cold]
    fn refused(self, unread: usize) -> NnrpError {
        let (answer, limit) = (self.byte_size, self.unread.bound);
        let message =
            format!("the answer, of {answer} bytes, has no room: clients have not read {unread} bytes of theirs, and the server keeps at most {limit}");
        NnrpError::new(Reason::UnreadAnswers, message).with("byte_size", answer).with("limit", limit)
    }

    /// The bytes, which keep this until they are gone.
    pub(crate) fn on(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Claimed { bytes, _claim: self })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.unread.byte_size.fetch_sub(self.byte_size, Ordering::Relaxed);
    }
}

struct Claimed {
    bytes: Bytes,
    _claim: Claim,
}

impl AsRef<[u8]> for Claimed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_makes_room_and_a_lone_answer_always_has_it() {
        let unread = Unread::new(100);
        let lone = unread.claim(1_000).unwrap().on(Bytes::from_static(b"large"));
        assert!(unread.claim(1).err().unwrap().is(Reason::UnreadAnswers));
        let part = lone.slice(1..3);
        drop(lone);
        assert!(unread.claim(1).is_err());
        assert_eq!(part, &b"ar"[..]);
        drop(part);
        let (first, second) = (unread.claim(60).unwrap(), unread.claim(40).unwrap());
        assert!(unread.claim(1).is_err());
        drop(first);
        let third = unread.claim(60).unwrap();
        drop((second, third));
        assert_eq!(unread.byte_size.load(Ordering::Relaxed), 0);
    }
}
