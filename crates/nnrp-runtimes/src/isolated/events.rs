//! What becomes of processes, told to whoever watches.
use nnrp_core::condvar::Condvar;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Most that are kept for who looks rarely; earlier ones are missed, which their numbers show.
const KEPT: usize = 256;

/// The latest events, and a wait for the next.
#[derive(Debug, Default)]
pub struct Events {
    latest: Mutex<Latest>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct Latest {
    count: u64,
    events: VecDeque<(u64, Value)>,
}

impl Events {
    /// Tells one, a JSON object, to which its number and the time are added.
    pub fn tell(&self, mut event: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut latest = self.latest.lock();
        latest.count += 1;
        let number = latest.count;
        event["number"] = json!(number);
        event["time"] = json!(now.as_secs_f64());
        if latest.events.len() == KEPT {
            latest.events.pop_front();
        }
        latest.events.push_back((number, event));
        drop(latest);
        self.told.notify_all();
    }

    /// The number of the latest.
    pub fn count(&self) -> u64 {
        self.latest.lock().count
    }

    /// Those after that number that are still kept, in order; waits for one, but no longer than that.
    pub fn after(&self, number: u64, limit: Duration) -> Vec<Value> {
        let until = Instant::now() + limit;
        let mut latest = self.latest.lock();
        while latest.count <= number && !self.told.wait_until(&mut latest, until).timed_out() {}
        latest.events.iter().filter(|(each, _)| *each > number).map(|(_, event)| event.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looks_sees_each_event_once_and_what_was_missed_by_the_numbers() {
        let events = Events::default();
        let numbers = |after| events.after(after, Duration::ZERO).iter().map(|event| event["number"].as_u64().unwrap()).collect::<Vec<_>>();
        assert!(numbers(0).is_empty());
        (0..3).for_each(|_| events.tell(json!({})));
        assert_eq!((numbers(0), numbers(2), numbers(3)), (vec![1, 2, 3], vec![3], vec![]));
        (0..KEPT).for_each(|_| events.tell(json!({})));
        assert_eq!(numbers(3).len(), KEPT);
        assert_eq!(numbers(0).first(), Some(&4));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| events.after(events.count(), Duration::from_secs(60)).len());
            while !waits.is_finished() {
                events.tell(json!({}));
                std::thread::yield_now();
            }
            assert!(waits.join().unwrap() > 0);
        });
    }
}
