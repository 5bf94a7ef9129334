//! How long series take to be found by matchers and listed, in the head and in a partition, of
//! 50,000 and of 400,000 series with a dozen labels each, and how long queries take that group them.
//! The series have two samples each; no HTTP. Prints the fastest of several runs of each row.
//!
//! `cargo bench --bench index` runs all; `-- pod` those rows whose text holds `pod`.

use larum::promql::ast::ExprKind;
use larum::promql::value::Value;
use larum::promql::{EvalOptions, Steps, evaluate, parse};
use larum::storage::options::Maintenance;
use larum::storage::{Matcher, Source, TimeRange, View};
use larum::{Batch, Db, Labels, Options, Timestamp};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SERIES_PER_TARGET: usize = 500;
const PODS_PER_TARGET: usize = 6;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What a cluster's exporters say: the first series of a target are the machine's, the others its pods'.
fn labels(n: usize) -> Labels {
    let (target, s) = (n / SERIES_PER_TARGET, n % SERIES_PER_TARGET);
    let mut pairs = vec![
        ("cluster", "eu-west-1".to_owned()),
        ("instance", format!("10.1.{}.{}:9100", target / 250, target % 250)),
        ("region", "eu".to_owned()),
    ];
    if target % 4 > 0 {
        pairs.push(("env", ["", "prod", "stage", "test"][target % 4].to_owned()));
    }
    if s < 240 {
        pairs.push(("__name__", format!("node_metric_{}_total", s / 4)));
        pairs.push(("job", "node".to_owned()));
        pairs.push(("device", format!("disk{}", s % 4)));
    } else {
        let (pod, metric) = (s % PODS_PER_TARGET, (s - 240) / PODS_PER_TARGET);
        // Spread as hashes are.
        let hash = ((target * PODS_PER_TARGET + pod) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        pairs.push(("__name__", format!("pod_metric_{}", metric / 4)));
        pairs.push(("job", "kubelet".to_owned()));
        pairs.push(("namespace", format!("team-{}", pod % 5)));
        pairs.push(("container", "main".to_owned()));
        pairs.push(("pod", format!("api-{:010x}-{:05x}", hash >> 24, hash & 0xf_ffff)));
        pairs.push(("le", format!("{}", metric % 4)));
    }
    Labels::from_pairs(pairs).expect("the names are distinct and not empty")
}

/// What the rows ask, each with the series that match.
fn questions(series: &[Labels]) -> Vec<(&'static str, String)> {
    let pods: BTreeSet<&str> = series.iter().filter_map(|labels| labels.get("pod")).collect();
    let some: Vec<&str> = pods.iter().step_by(pods.len() / 3).take(3).copied().collect();
    vec![
        ("select", r#"{__name__="pod_metric_7"}"#.to_owned()),
        ("select", r#"{job="node",instance=~"10\\.1\\.0\\.[1-5]:9100"}"#.to_owned()),
        ("select", r#"{pod=~".*abc.*"}"#.to_owned()),
        ("select", format!(r#"{{pod=~"{}"}}"#, some.join("|"))),
        ("select", r#"{__name__="pod_metric_7",pod=~"api-[0-7].*"}"#.to_owned()),
        ("select", r#"{env!=""}"#.to_owned()),
        ("select", r#"{__name__=~"pod_metric_3",env=""}"#.to_owned()),
        ("select", r#"{__name__=~".+"}"#.to_owned()),
        ("labels of", r#"{__name__=~".+"}"#.to_owned()),
        ("series", r#"{__name__=~"node_metric_1[0-5]_total",instance=~"10\\.1\\.0\\..*"}"#.to_owned()),
        ("label names", r#"{}"#.to_owned()),
        ("label names", r#"{__name__="pod_metric_7"}"#.to_owned()),
        ("pod values", r#"{}"#.to_owned()),
        ("pod values", r#"{__name__="pod_metric_7"}"#.to_owned()),
        ("pod values", r#"{namespace="team-1"}"#.to_owned()),
        ("query", r#"count by (__name__) ({__name__=~".+"})"#.to_owned()),
        ("query", r#"sum by (instance) ({__name__=~".+"})"#.to_owned()),
        ("query", r#"sum by (instance) (rate(node_metric_7_total[5m]))"#.to_owned()),
    ]
}

/// Answers a row and counts what is in the answer.
fn answer(view: &View, what: &str, text: &str, matchers: &[Matcher]) -> usize {
    let sets = [matchers.to_vec()];
    let select = || view.select(matchers, TimeRange::ALL).expect("nothing is damaged");
    match what {
        "select" => select().len(),
        "labels of" => {
            let set = select();
            let mut labels = set.label_reader(None);
            (0..set.len()).filter(|&i| !labels(i).is_empty()).count()
        }
        "query" => {
            let expr = parse(text).expect("it is PromQL");
            let answer = evaluate(&expr, view, Steps::instant(NOW), &EvalOptions::default());
            match answer.expect("nothing is damaged").value {
                Value::Vector(vector) => vector.len(),
                _ => 0,
            }
        }
        "series" => view.series(&sets, TimeRange::ALL).items.len(),
        "label names" => view.label_names(&sets, TimeRange::ALL).items.len(),
        _ => view.label_values("pod", &sets, TimeRange::ALL).items.len(),
    }
}

fn matchers(text: &str) -> Vec<Matcher> {
    match parse(text).map(|expr| expr.kind) {
        Ok(ExprKind::VectorSelector(selector)) => selector.matchers,
        // PromQL wants one matcher at least.
        _ => Vec::new(),
    }
}

fn run(count: usize, filter: Option<&str>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options =
        Options { clock: Arc::new(|| NOW), maintenance: Maintenance::Stepped, ..Options::default() };
    let db = Db::open(dir.path(), options).expect("a new folder opens");
    let series: Vec<Labels> = (0..count).map(labels).collect();
    let mut batch = Batch::new();
    for t in [Timestamp::from_millis(NOW.as_millis() - 15_000), NOW] {
        for some in series.chunks(2_000) {
            batch.clear();
            some.iter().for_each(|labels| batch.push(labels, t, 1.0));
            db.append(&batch).expect("the disk has room");
        }
    }
    let questions: Vec<_> = questions(&series)
        .into_iter()
        .map(|(what, text)| (format!("{what} {text}"), what, matchers(&text), text))
        .filter(|(row, ..)| filter.is_none_or(|filter| row.contains(filter)))
        .collect();
    drop(series);
    let rows = || -> Vec<(Duration, usize)> {
        let view = db.view();
        let fastest = |(_, what, matchers, text): &(String, &str, Vec<Matcher>, String)| {
            let mut fastest = Duration::MAX;
            let mut found = 0;
            let until = Instant::now() + Duration::from_millis(300);
            while fastest == Duration::MAX || Instant::now() < until {
                let start = Instant::now();
                found = answer(&view, what, text, matchers);
                fastest = fastest.min(start.elapsed());
            }
            (fastest, found)
        };
        questions.iter().map(fastest).collect()
    };
    let head = rows();
    db.flush().expect("the disk has room");
    let partition = rows();
    println!("{count} series\n{:>12} {:>12} {:>8}", "head, ms", "partition", "found");
    for (((row, ..), head), partition) in questions.iter().zip(head).zip(partition) {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!("{:12.3} {:12.3} {:8}  {row}", ms(head.0), ms(partition.0), head.1);
        assert_eq!(head.1, partition.1, "head and partition hold the same series");
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    for count in [50_000, 400_000] {
        run(count, filter.as_deref());
    }
}
