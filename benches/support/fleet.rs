//! A fleet of machines and the pods on them, made up like the data that the load generator of
//! `../shared/judge` sends: the metrics that its queries ask for, each with as many series, and others
//! that make up 500 series a machine. Values are functions of series and round, so nothing is kept.

use larum::Labels;

/// Machines.
pub const MACHINES: usize = 100;
/// Series of a machine with its pods.
pub const SERIES_PER_MACHINE: usize = 500;
/// From one scrape to the next.
pub const INTERVAL_MS: i64 = 15_000;

const PODS: usize = 6;
const APPS: [&str; 12] = [
    "api",
    "web",
    "cart",
    "checkout",
    "catalog",
    "auth",
    "mailer",
    "worker",
    "scheduler",
    "gateway",
    "billing",
    "search",
];
const NAMESPACES: [&str; 5] = ["default", "monitoring", "shop", "payments", "batch"];
const BOUNDS: [&str; 12] =
    ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"];

/// How a series moves.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Constant,
    /// Grows by about a hundred units a scrape, each of so many to one.
    Counter(f64),
    /// Pages of memory.
    Gauge,
    /// The bucket of this index: the higher, the more it holds.
    Bucket(u8),
}

/// A series.
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Its machine, whose series share their timestamps.
    pub machine: usize,
    kind: Kind,
    /// Makes its values unlike others'.
    seed: u64,
}

impl Series {
    /// Its value in a round.
    pub fn value(&self, round: i64) -> f64 {
        let noise = |width: u64| (mix(self.seed ^ round as u64) % width) as f64;
        match self.kind {
            Kind::Constant => (self.seed % 1000) as f64 * 4096.0,
            Kind::Counter(units) => {
                ((self.seed % 100_000) as f64 + round as f64 * 100.0 + noise(100)) / units
            }
            Kind::Gauge => ((self.seed % 100_000) as f64 + noise(1000)) * 4096.0,
            Kind::Bucket(index) => {
                // The seed is that of the pod, so that no bucket holds less than the one below.
                (f64::from(index) + 1.0) * (round as f64 * 40.0 + noise(40))
            }
        }
    }
}

/// When a machine is scraped in a round that begins at `round_ms`: at an offset of its own, and one
/// scrape in five some milliseconds late.
pub fn time_ms(machine: usize, round: i64, round_ms: i64) -> i64 {
    let late = mix((machine as u64) << 32 ^ round as u64);
    let late = if late.is_multiple_of(5) { 1 + (late >> 32) % 5 } else { 0 };
    round_ms + (mix(machine as u64) % 14_000) as i64 + late as i64
}

/// All series, machine by machine.
pub fn series() -> Vec<Series> {
    (0..MACHINES).flat_map(machine).collect()
}

fn machine(machine: usize) -> Vec<Series> {
    let mut all = Vec::with_capacity(SERIES_PER_MACHINE);
    let mut add =
        |name: &str, seed: Option<u64>, kind: Kind, base: &[(&str, &str)], more: &[(&str, &str)]| {
            let pairs = [("__name__", name)].into_iter().chain(base.iter().chain(more).copied());
            let labels = Labels::from_pairs(pairs).expect("the names are distinct and not empty");
            let seed = seed.unwrap_or(mix((machine * SERIES_PER_MACHINE + all.len()) as u64));
            all.push(Series { labels, machine, kind, seed });
            all.len()
        };
    let (host, node) = (format!("10.0.0.{machine}"), format!("node-{machine:04}"));
    for pod in 0..PODS {
        let number = machine * PODS + pod;
        let (app, namespace) = (APPS[number % APPS.len()], NAMESPACES[number % NAMESPACES.len()]);
        let name = format!("{app}-{:010x}-{number:05x}", mix(number as u64) & 0xff_ffff_ffff);
        let (kubelet, instance) = (format!("{host}:10250"), format!("{host}:{}", 8080 + pod));
        let cadvisor = [
            ("container", app),
            ("instance", &kubelet),
            ("job", "cadvisor"),
            ("namespace", namespace),
            ("node", &node),
            ("pod", &name),
        ];
        add("container_cpu_usage_seconds_total", None, Kind::Counter(1e9), &cadvisor, &[]);
        for gauge in ["working_set_bytes", "usage_bytes", "rss", "cache"] {
            add(&format!("container_memory_{gauge}"), None, Kind::Gauge, &cadvisor, &[]);
        }
        let state = [("job", "kube-state-metrics"), ("namespace", namespace), ("pod", &name)];
        let created = [("created_by_kind", "ReplicaSet"), ("created_by_name", app), ("node", &node)];
        add("kube_pod_info", None, Kind::Constant, &state, &created);
        let own = [
            ("instance", instance.as_str()),
            ("job", "app"),
            ("namespace", namespace),
            ("pod", &name),
            ("service", app),
        ];
        for (method, code) in [
            ("GET", "200"),
            ("GET", "404"),
            ("GET", "500"),
            ("POST", "200"),
            ("POST", "400"),
            ("POST", "500"),
        ] {
            add("http_requests_total", None, Kind::Counter(1.0), &own, &[("code", code), ("method", method)]);
        }
        for (index, bound) in (0..).zip(BOUNDS) {
            let name = "http_request_duration_seconds_bucket";
            add(name, Some(mix(number as u64)), Kind::Bucket(index), &own, &[("le", bound)]);
        }
        for n in 0..19 {
            let kind = if n % 2 == 0 { Kind::Counter(1.0) } else { Kind::Gauge };
            add(&format!("application_metric_{n}"), None, kind, &own, &[]);
        }
    }
    let instance = format!("{host}:9100");
    let base = [("instance", instance.as_str()), ("job", "node")];
    for cpu in ["0", "1", "2", "3", "4", "5", "6", "7"] {
        for mode in ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"] {
            let kind = if mode == "irq" { Kind::Constant } else { Kind::Counter(100.0) };
            add("node_cpu_seconds_total", None, kind, &base, &[("cpu", cpu), ("mode", mode)]);
        }
    }
    add("node_load1", None, Kind::Counter(100.0), &base, &[]);
    add("node_memory_MemAvailable_bytes", None, Kind::Gauge, &base, &[]);
    add("node_memory_MemTotal_bytes", None, Kind::Constant, &base, &[]);
    for (device, fstype) in [("nvme0n1", "ext4"), ("nvme0n2", "vfat"), ("nvme1n1", "xfs"), ("tmpfs", "tmpfs")]
    {
        let more = [("device", device), ("fstype", fstype)];
        add("node_filesystem_size_bytes", None, Kind::Constant, &base, &more);
        add("node_filesystem_avail_bytes", None, Kind::Gauge, &base, &more);
    }
    for n in 0.. {
        let kind = if n % 3 == 0 { Kind::Gauge } else { Kind::Counter(1.0) };
        if add(&format!("node_metric_{n}"), None, kind, &base, &[]) >= SERIES_PER_MACHINE {
            break;
        }
    }
    all
}

/// SplitMix64 of a number.
fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
