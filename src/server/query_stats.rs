//! What a query took, as Prometheus says it: in answers where `stats` is asked for, and in the query log.

use crate::promql::Steps;
use crate::promql::running::Timings;
use crate::promql::value::Stats;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// `{"timings":{...},"samples":{...}}`
#[derive(Debug, Serialize)]
pub struct QueryStats {
    timings: StatsTimings,
    samples: StatsSamples,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsTimings {
    eval_total_time: Seconds,
    result_sort_time: Seconds,
    query_preparation_time: Seconds,
    inner_eval_time: Seconds,
    exec_queue_time: Seconds,
    exec_total_time: Seconds,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatsSamples {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    total_queryable_samples_per_step: Vec<(Time, u64)>,
    total_queryable_samples: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples_read_per_step: Vec<(Time, u64)>,
    samples_read: u64,
    peak_samples: u64,
}

#[derive(Debug)]
struct Seconds(Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

/// Seconds since the epoch: whole ones without decimals, as Go prints them.
#[derive(Debug)]
struct Time(i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1000 {
            0 => serializer.serialize_i64(self.0 / 1000),
            _ => serializer.serialize_f64(self.0 as f64 / 1000.0),
        }
    }
}

impl QueryStats {
    /// What a query at `steps` took; `per_step` where each step is asked for.
    pub fn new(timings: Timings, stats: &Stats, steps: &Steps, per_step: bool) -> QueryStats {
        let Timings { queue, prepare, evaluate, total } = timings;
        let queryable = stats.queryable.as_ref();
        let by_step = |counts: &[u64]| match per_step {
            true => steps.iter().map(Time).zip(counts.iter().copied()).collect(),
            false => Vec::new(),
        };
        QueryStats {
            timings: StatsTimings {
                eval_total_time: Seconds(prepare + evaluate),
                // Answers leave the evaluation in order.
                result_sort_time: Seconds(Duration::ZERO),
                query_preparation_time: Seconds(prepare),
                inner_eval_time: Seconds(evaluate),
                exec_queue_time: Seconds(queue),
                exec_total_time: Seconds(total),
            },
            samples: StatsSamples {
                total_queryable_samples_per_step: queryable.map_or_else(Vec::new, |q| by_step(&q.per_step)),
                total_queryable_samples: queryable.map_or(stats.samples, |q| q.total()),
                samples_read_per_step: queryable.map_or_else(Vec::new, |q| by_step(&q.read_per_step)),
                samples_read: queryable.map_or(stats.samples, |q| q.read()),
                peak_samples: stats.peak_samples,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::queryable::QueryableSamples;
    use crate::storage::Timestamp;

    #[test]
    fn stats_have_the_form_of_prometheus() {
        let (start, end) = (Timestamp::from_millis(10_000), Timestamp::from_millis(11_500));
        let steps = Steps::new(start, end, Duration::from_millis(1500)).unwrap();
        let queryable = QueryableSamples { per_step: vec![2, 3], read_per_step: vec![2, 1] };
        let stats = Stats { peak_samples: 9, queryable: Some(queryable), ..Stats::default() };
        let millis = Duration::from_millis;
        let timings =
            Timings { queue: millis(1), prepare: millis(2), evaluate: millis(3), total: millis(250) };
        let text =
            |per_step| serde_json::to_string(&QueryStats::new(timings, &stats, &steps, per_step)).unwrap();
        let times = r#"{"timings":{"evalTotalTime":0.005,"resultSortTime":0.0,"queryPreparationTime":0.002,"innerEvalTime":0.003,"execQueueTime":0.001,"execTotalTime":0.25}"#;
        assert_eq!(
            text(true),
            format!(
                r#"{times},"samples":{{"totalQueryableSamplesPerStep":[[10,2],[11.5,3]],"totalQueryableSamples":5,"samplesReadPerStep":[[10,2],[11.5,1]],"samplesRead":3,"peakSamples":9}}}}"#
            )
        );
        assert_eq!(
            text(false),
            format!(r#"{times},"samples":{{"totalQueryableSamples":5,"samplesRead":3,"peakSamples":9}}}}"#)
        );
    }
}
