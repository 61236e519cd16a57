//! Counters and latency histograms of a model version (spec §7.6): four uncontended additions a request.
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const SHARDS: usize = 4;
/// Four buckets an octave from 1 µs to 68 s: a quantile is at most 19 % too high.
const BUCKETS: usize = 4 * 26;
const FIRST_OCTAVE: u32 = 10;

/// What the requests of one model version came to.
#[derive(Default)]
pub struct Metrics {
    shards: [Shard; SHARDS],
    failures: Mutex<Map<String, Value>>,
    streams: Streams,
}

/// What the requests that were asked for streams of answers came to, however they ended.
#[derive(Default)]
struct Streams {
    count: AtomicU64,
    answers: AtomicU64,
    first_ns: AtomicU64,
}

/// On cache lines of its own, so that threads do not take them from each other.
#[repr(align(128))]
struct Shard {
    total_ns: AtomicU64,
    queue_ns: AtomicU64,
    run_ns: AtomicU64,
    latency: [AtomicU64; BUCKETS],
}

impl Default for Shard {
    fn default() -> Self {
        Shard { total_ns: 0.into(), queue_ns: 0.into(), run_ns: 0.into(), latency: [const { AtomicU64::new(0) }; BUCKETS] }
    }
}

fn my_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! { static SHARD: usize = NEXT.fetch_add(1, Relaxed) % SHARDS; }
    SHARD.with(|shard| *shard)
}

fn bucket(ns: u64) -> usize {
    let octave = 63 - (ns | 1).leading_zeros();
    if octave < FIRST_OCTAVE {
        return 0;
    }
    let quarter = (ns >> (octave - 2)) & 3;
    (((octave - FIRST_OCTAVE) * 4) as usize + quarter as usize).min(BUCKETS - 1)
}

/// The upper bound of a bucket, in nanoseconds.
fn bound(index: usize) -> u64 {
    let octave = FIRST_OCTAVE as usize + index / 4;
    (1 << octave) + ((index as u64 % 4 + 1) << (octave - 2))
}

impl Metrics {
    /// Counts an answered request.
    #[inline]
    pub fn success(&self, queue: Duration, run: Duration) {
        let (queue, run) = (queue.as_nanos() as u64, run.as_nanos() as u64);
        let shard = &self.shards[my_shard()];
        if queue > 0 {
            shard.queue_ns.fetch_add(queue, Relaxed);
        }
        shard.run_ns.fetch_add(run, Relaxed);
        shard.total_ns.fetch_add(queue + run, Relaxed);
        shard.latency[bucket(queue + run)].fetch_add(1, Relaxed);
    }

    /// Counts a stream of answers that has ended, and how long its first answer took.
    pub fn stream(&self, answers: u64, first: Option<Duration>) {
        self.streams.count.fetch_add(1, Relaxed);
        self.streams.answers.fetch_add(answers, Relaxed);
        self.streams.first_ns.fetch_add(first.map_or(0, |first| first.as_nanos() as u64), Relaxed);
    }

    /// Counts a request that was refused, failed or was withdrawn.
    #[cold]
    pub fn failure(&self, reason: &str) {
        let mut failures = self.failures.lock();
        let count = failures.get(reason).and_then(Value::as_u64).unwrap_or(0);
        failures.insert(reason.to_owned(), (count + 1).into());
    }

    /// The state now: counts, nanoseconds, and quantiles of queue and run together.
    pub fn snapshot(&self) -> Value {
        let sum = |field: fn(&Shard) -> &AtomicU64| self.shards.iter().map(|shard| field(shard).load(Relaxed)).sum::<u64>();
        let latency: Vec<u64> = (0..BUCKETS).map(|index| self.shards.iter().map(|shard| shard.latency[index].load(Relaxed)).sum()).collect();
        let count: u64 = latency.iter().sum();
        let quantile = |share: f64| {
            let rank = (share * count as f64).ceil() as u64;
            let mut seen = 0;
            latency.iter().position(|n| {
                seen += n;
                seen >= rank
            })
        };
        let at = |share| if count == 0 { Value::Null } else { quantile(share).map(bound).into() };
        json!({
            "success_count": count,
            "total_ns": sum(|shard| &shard.total_ns),
            "queue_ns": sum(|shard| &shard.queue_ns),
            "run_ns": sum(|shard| &shard.run_ns),
            "latency_ns": {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99)},
            "streams": {
                "count": self.streams.count.load(Relaxed),
                "answer_count": self.streams.answers.load(Relaxed),
                "first_answer_ns": self.streams.first_ns.load(Relaxed),
            },
            "failures": *self.failures.lock(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_lies_below_the_bound_of_its_bucket_and_above_the_one_before() {
        for ns in [1_100, 1_500, 5_000, 123_456, 9_000_000, 1 << 35] {
            let index = bucket(ns);
            assert!(ns < bound(index), "{ns}");
            assert!(index == 0 || ns >= bound(index - 1), "{ns}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_snapshot_tells_counts_sums_and_quantiles() {
        let metrics = Metrics::default();
        for _ in 0..99 {
            metrics.success(Duration::ZERO, Duration::from_micros(10));
        }
        metrics.success(Duration::from_millis(5), Duration::from_millis(5));
        metrics.failure("SHAPE_MISMATCH");
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot["success_count"], 100);
        assert_eq!(snapshot["queue_ns"], 5_000_000);
        assert_eq!(snapshot["failures"]["SHAPE_MISMATCH"], 1);
        let p50 = snapshot["latency_ns"]["p50"].as_u64().unwrap();
        assert!((10_000..13_000).contains(&p50), "{p50}");
    }
}
