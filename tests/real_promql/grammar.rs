//! Random queries over the series of `data`.
//!
//! Times are seconds. What is asked at, and each `@`, is one second after a multiple of five; ranges,
//! offsets and steps are multiples of five; samples lie three seconds after. So no sample and no
//! step of a subquery is ever on the border of a window.

use crate::random::Random;

/// What changed between Prometheus 2.42 and 3 so that answers differ, and how the queries avoid it.
/// It is printed with a difference, which may well be one of these.
pub const KNOWN_CHANGES: [(&str, &str); 17] = [
    ("windows are open on the left", "no sample and no step of a subquery lies on a border"),
    (
        "a counter is extrapolated to zero at most half an interval where samples are missing",
        "counters are far from zero, or have no gaps and are not put into subqueries; gauges are not rated",
    ),
    ("holt_winters is double_exponential_smoothing", "each server is asked in its own words"),
    ("new functions, aggregations, and modifiers", "only what 2.42 knows is asked"),
    ("sums, averages and deviations are compensated", "sums are exact in any order"),
    ("the deviation of a single NaN or infinity is NaN, not 0", "deviations of finite samples are asked"),
    ("2.42 has no answer to atan2 with a vector", "atan2 is not asked"),
    (
        "a comparison complains of two partners, too, where it drops one of them",
        "comparisons that drop have unique partners",
    ),
    (
        "2.42 moves the window of predict_linear(v[r] @ t) and timestamp(v @ t) along with the steps",
        "they get no @",
    ),
    ("2.42 forgets the label of count_values by (...) if it is not the last by name", "it is called z there"),
    (
        "in range queries 2.42 refuses a minus if two series have the same labels at different times",
        "there is no minus before an `or`",
    ),
    ("which date a NaN or an infinity is depends on Go's processor", "dates of numbers are asked"),
    (
        "powers, averages and deviations differ in the last digit, of which rounding, a remainder or a reset makes a first one",
        "rounding, remainders, powers, resets and changes are of samples",
    ),
    ("a dot in a regular expression matches a line feed", "there are no line feeds"),
    ("any text is a label's name", "names are letters"),
    ("which of equal elements topk takes is open", "topk gets values without ties"),
    ("numbers and durations mean the same", "each stands where 2.42 wants it"),
];

/// A query and how to ask it.
pub struct Question {
    /// In Prometheus 3's words.
    pub query: String,
    /// The time of an instant query, or the first step.
    pub start_s: i64,
    /// The last step and the distance between steps; `None` for an instant query.
    pub range: Option<(i64, i64)>,
}

/// Writes queries.
pub struct Grammar {
    /// Where its choices come from.
    pub random: Random,
    /// Where the samples begin.
    pub from_s: i64,
    /// Where the samples end.
    pub to_s: i64,
}

const MATH: [&str; 19] = [
    "abs", "exp", "ln", "log2", "log10", "sqrt", "sin", "cos", "asin", "acos", "atan", "sinh", "cosh",
    "tanh", "asinh", "acosh", "atanh", "deg", "rad",
];
/// They make a first digit of the last one, and so are asked of samples only.
const ROUNDS: [&str; 4] = ["ceil", "floor", "round", "sgn"];
const DATES: [&str; 8] =
    ["minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year"];
const OVER_TIME: [&str; 12] = [
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "present_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "idelta",
    "deriv",
    "absent_over_time",
];
const FOLDS: [&str; 6] = ["sum", "avg", "min", "max", "count", "group"];
const LABELS: [&str; 9] = ["instance", "job", "code", "method", "disk", "path", "le", "version", "absent"];

impl Grammar {
    /// The next query.
    pub fn question(&mut self) -> Question {
        let start_s = self.time_s();
        let range = self.random.chance(50).then(|| {
            let step_s = self.random.pick(&[5, 15, 20, 60, 95, 300]);
            (start_s + step_s * self.random.below(25) as i64, step_s)
        });
        let depth = 1 + self.random.below(4);
        let query = match self.random.below(40) {
            0 => self.scalar(2),
            1 if range.is_none() => self.range_selector(false),
            2 => self.string_call(depth),
            _ => self.vector(depth),
        };
        Question { query, start_s, range }
    }

    /// A time between a bit before the first and a bit after the last sample.
    fn time_s(&mut self) -> i64 {
        let from = self.from_s - 120;
        let span = (self.to_s - from + 400) / 5;
        from + 1 + 5 * self.random.below(span as usize) as i64
    }

    fn vector(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.selector();
        }
        let inner = depth - 1;
        match self.random.below(24) {
            0 | 1 => self.selector(),
            2 => {
                let f = self.random.pick(&MATH);
                format!("{f}({})", self.vector(inner))
            }
            3..=5 => {
                let f = self.random.pick(&OVER_TIME);
                format!("{f}({})", self.range_vector(inner))
            }
            6..=8 => self.rate(inner),
            9..=12 => self.aggregation(inner),
            13..=17 => self.binary(inner),
            18 => self.histogram_quantile(),
            19 => self.other_call(inner),
            20 => self.string_call(inner),
            21 => self.parameter_over_time(inner),
            22 => match self.vector(inner) {
                vector if vector.contains(" or ") => format!("abs({vector})"),
                vector => format!("-{vector}"),
            },
            _ => format!("({})", self.vector(inner)),
        }
    }

    fn scalar(&mut self, depth: usize) -> String {
        match self.random.below(if depth == 0 { 5 } else { 8 }) {
            0..=2 => self.random.pick(&["0", "1", "2", "-3", "0.5", "100", "1e3", "0x10"]).to_owned(),
            3 => self.random.pick(&["NaN", "Inf", "-Inf", "pi()"]).to_owned(),
            4 => "time()".to_owned(),
            5 => format!("scalar({})", self.vector(depth - 1)),
            6 => format!("-({})", self.scalar(depth - 1)),
            _ => {
                let op = self.random.pick(&["+", "-", "*", "/", "< bool", "== bool", "!= bool"]);
                format!("({} {op} {})", self.scalar(depth - 1), self.scalar(depth - 1))
            }
        }
    }

    fn matchers(&mut self, name: &str) -> String {
        let mut matchers = Vec::new();
        if self.random.chance(25) {
            matchers.push(self.random.pick(&[
                "job=\"api\"",
                "job!=\"db\"",
                "instance=~\"a|c|d\"",
                "instance!~\"[a-c]\"",
                "instance=~\".+\"",
                "absent=\"\"",
                "job=~\"a.*\"",
            ]));
        }
        if self.random.chance(15) {
            matchers.push(match name {
                "requests_total" | "young_total" => self.random.pick(&["code=\"500\"", "code=~\"2..|4..\""]),
                "temperature" | "odd" | "queue" => self.random.pick(&["disk=\"sda\"", "disk!=\"sdb\""]),
                "latency_bucket" => self.random.pick(&["le=\"1\"", "path=\"/\"", "le!=\"+Inf\""]),
                _ => "instance=\"b\"",
            });
        }
        if self.random.chance(2) {
            matchers.push("job=\"nobody\"");
        }
        matchers.join(",")
    }

    fn named(&mut self, name: &str) -> String {
        let matchers = self.matchers(name);
        if matchers.is_empty() { name.to_owned() } else { format!("{name}{{{matchers}}}") }
    }

    fn modifiers(&mut self) -> String {
        let mut modifiers = String::new();
        if self.random.chance(12) {
            modifiers += self.random.pick(&[" offset 15s", " offset 5m", " offset -2m", " offset 70s"]);
        }
        if self.random.chance(8) {
            let time_s = self.time_s();
            modifiers += self.random.pick(&[" @ start()", " @ end()", " @ "]);
            if modifiers.ends_with("@ ") {
                modifiers += &time_s.to_string();
            }
        }
        modifiers
    }

    fn selector(&mut self) -> String {
        let name = self.random.pick(&[
            "requests_total",
            "requests_total",
            "young_total",
            "temperature",
            "temperature",
            "odd",
            "queue",
            "queue",
            "limit",
            "node_info",
            "latency_bucket",
            "latency_count",
        ]);
        let selector = match self.random.below(30) {
            0 => "{__name__=~\"requests_total|queue\"}".to_owned(),
            1 => "{__name__=~\"latency_(sum|count)\",job=\"api\"}".to_owned(),
            2 => "{instance=\"a\",__name__!=\"odd\"}".to_owned(),
            _ => self.named(name),
        };
        selector + &self.modifiers()
    }

    fn duration(&mut self) -> &'static str {
        self.random.pick(&["30s", "1m", "90s", "2m", "5m", "5m", "10m", "75s"])
    }

    fn range_selector(&mut self, rated: bool) -> String {
        let name = if rated {
            self.random.pick(&[
                "requests_total",
                "young_total",
                "latency_count",
                "latency_sum",
                "latency_bucket",
            ])
        } else {
            self.random.pick(&["temperature", "odd", "queue", "requests_total", "latency_sum", "node_info"])
        };
        let selector = match self.random.below(30) {
            0 => "{__name__=~\"latency_(sum|count)\"}".to_owned(),
            _ => self.named(name),
        };
        format!("{selector}[{}]{}", self.duration(), self.modifiers())
    }

    /// A range selector or a subquery.
    fn range_vector(&mut self, depth: usize) -> String {
        if depth == 0 || self.random.chance(65) {
            return self.range_selector(false);
        }
        let range = self.random.pick(&["2m", "5m", "10m"]);
        let step = self.random.pick(&["10s", "15s", "30s", "1m", ""]);
        // Inside another subquery this one is asked at multiples of five seconds.
        let off = if self.random.chance(20) { self.modifiers() } else { String::new() };
        let inner = self.flat(depth - 1);
        format!("({inner})[{range}:{step}]{off}")
    }

    /// A vector without subqueries in it.
    fn flat(&mut self, depth: usize) -> String {
        loop {
            let vector = self.vector(depth.min(2));
            if !vector.contains(':') {
                return vector;
            }
        }
    }

    fn rate(&mut self, depth: usize) -> String {
        let f = self.random.pick(&["rate", "rate", "increase", "irate", "resets", "changes"]);
        if depth > 0 && self.random.chance(15) {
            let inner = self.named("latency_count");
            return format!("{f}({inner}[10m:{}])", self.random.pick(&["15s", "30s", "1m", ""]));
        }
        if self.random.chance(10) {
            return format!("delta({})", self.range_selector(false));
        }
        format!("{f}({})", self.range_selector(true))
    }

    fn parameter_over_time(&mut self, depth: usize) -> String {
        let m = self.range_vector(depth);
        match self.random.below(if m.contains('@') { 3 } else { 5 }) {
            0 => {
                format!("quantile_over_time({}, {m})", self.random.pick(&["0.5", "0.9", "0", "1", "-1", "2"]))
            }
            1 | 2 => format!("double_exponential_smoothing({m}, 0.3, 0.6)"),
            _ => format!("predict_linear({m}, {})", self.random.pick(&["60", "3600", "-100"])),
        }
    }

    fn grouping(&mut self) -> String {
        let word = self.random.pick(&["by", "by", "by", "without"]);
        let mut labels: Vec<&str> = (0..self.random.below(4)).map(|_| self.random.pick(&LABELS)).collect();
        labels.sort_unstable();
        labels.dedup();
        format!("{word} ({})", labels.join(", "))
    }

    fn aggregation(&mut self, depth: usize) -> String {
        let grouping = if self.random.chance(75) { self.grouping() } else { String::new() };
        match self.random.below(13) {
            12 => {
                let f = self.random.pick(&["stddev", "stdvar"]);
                format!("{f} {grouping} ({})", self.finite())
            }
            0 => {
                let f = self.random.pick(&["topk", "bottomk"]);
                let inner = self.without_ties();
                format!("{f} {grouping} ({}, {inner})", self.random.pick(&["1", "2", "5", "0"]))
            }
            1 => {
                let inner = self.vector(depth);
                format!(
                    "quantile {grouping} ({}, {inner})",
                    self.random.pick(&["0.5", "0.9", "0", "1", "-1", "2"])
                )
            }
            2 => {
                let inner = self.random.pick(&["queue", "limit", "node_info", "odd"]);
                let label = if grouping.starts_with("by") {
                    "z"
                } else {
                    self.random.pick(&["z", "job", "instance"])
                };
                format!("count_values {grouping} (\"{label}\", {inner})")
            }
            _ => {
                let f = self.random.pick(&FOLDS);
                format!("{f} {grouping} ({})", self.vector(depth))
            }
        }
    }

    fn without_at(&mut self, depth: usize) -> String {
        loop {
            let vector = self.vector(depth);
            if !vector.contains('@') {
                return vector;
            }
        }
    }

    /// A vector without NaNs and infinities.
    fn finite(&mut self) -> String {
        let name = self.random.pick(&["queue", "temperature", "limit", "young_total"]);
        self.named(name) + &self.modifiers()
    }

    fn without_ties(&mut self) -> String {
        let (matchers, modifiers) = (self.matchers("temperature"), self.modifiers());
        let inner = format!("temperature{{{matchers}}}{modifiers}");
        match self.random.below(4) {
            0 => format!("-{inner}"),
            1 => format!("{inner} * 3"),
            2 => format!("last_over_time(temperature{{{matchers}}}[2m]{modifiers})"),
            _ => inner,
        }
    }

    fn binary(&mut self, depth: usize) -> String {
        const ARITHMETIC: [&str; 4] = ["+", "-", "*", "/"];
        const COMPARISONS: [&str; 6] = ["==", "!=", "<", ">", "<=", ">="];
        let op = if self.random.chance(60) {
            self.random.pick(&ARITHMETIC).to_owned()
        } else {
            self.random.pick(&COMPARISONS).to_owned()
        };
        let filters = COMPARISONS.contains(&op.as_str());
        let op = if filters && self.random.chance(40) { op + " bool" } else { op };
        match self.random.below(12) {
            11 => format!("({} ^ {})", self.finite(), self.random.pick(&["2", "0.5", "-1", "NaN", "queue"])),
            10 => {
                format!("({} % {})", self.finite(), self.random.pick(&["7", "-3.5", "0", "limit", "queue"]))
            }
            0 | 1 => format!("({} {op} {})", self.vector(depth), self.scalar(1)),
            2 => format!("({} {op} {})", self.scalar(1), self.vector(depth)),
            // What surely has partners.
            3 => {
                let left = self.vector(depth);
                format!("({left} {op} {left})")
            }
            4 => {
                let many =
                    self.random.pick(&["requests_total", "queue", "odd", "temperature", "latency_bucket"]);
                let many = self.named(many);
                let on = self.random.pick(&["on (instance)", "on (instance, job)"]);
                let (one, labels) = self.random.pick(&[
                    ("limit", ""),
                    ("node_info", "version"),
                    ("node_info", "version, absent"),
                    ("max by (instance, job) (queue)", ""),
                ]);
                format!("({many} {op} {on} group_left ({labels}) {one})")
            }
            5 => {
                let many = self.random.pick(&["young_total", "queue"]);
                let many = self.named(many);
                format!("(limit {op} ignoring (code, method, disk) group_right () {many})")
            }
            6 => {
                let set = self.random.pick(&["and", "or", "unless"]);
                let matching = self.matching();
                format!("({} {set} {matching} {})", self.vector(depth), self.vector(depth))
            }
            7 => {
                let by = self.random.pick(&["by (instance)", "by (job)", "by (job, instance)", ""]);
                let (f, g) = (self.random.pick(&FOLDS), self.random.pick(&FOLDS));
                format!("({f} {by} ({}) {op} {g} {by} ({}))", self.vector(depth), self.vector(depth))
            }
            8 => {
                let [a, b] = self.random.pick(&[
                    ["queue", "temperature"],
                    ["odd", "queue"],
                    ["requests_total", "young_total"],
                    ["latency_sum", "latency_count"],
                ]);
                format!("({} {op} {})", self.named(a), self.named(b))
            }
            _ => {
                let matching = self.matching();
                let op = if filters { op.trim_end_matches(" bool").to_owned() + " bool" } else { op };
                format!("({} {op} {matching} {})", self.vector(depth), self.vector(depth))
            }
        }
    }

    fn matching(&mut self) -> String {
        match self.random.below(4) {
            0 => "on (instance)".to_owned(),
            1 => "on (job, instance, disk, code, method)".to_owned(),
            2 => "ignoring (le, path)".to_owned(),
            _ => String::new(),
        }
    }

    fn histogram_quantile(&mut self) -> String {
        let q = self.random.pick(&["0.5", "0.9", "0.99", "0", "1", "-1", "2"]);
        let buckets = match self.random.below(4) {
            0 => self.named("latency_bucket"),
            1 => format!("rate(latency_bucket[{}])", self.duration()),
            2 => format!("sum by (le, job) (latency_bucket{})", self.modifiers()),
            _ => format!("sum without (instance, path) (increase(latency_bucket[{}]))", self.duration()),
        };
        format!("histogram_quantile({q}, {buckets})")
    }

    fn other_call(&mut self, depth: usize) -> String {
        match self.random.below(10) {
            0 => format!("clamp({}, -2, {})", self.vector(depth), self.scalar(1)),
            1 => format!("clamp_min({}, {})", self.vector(depth), self.scalar(1)),
            2 => format!("clamp_max({}, {})", self.vector(depth), self.scalar(1)),
            3 if self.random.chance(50) => {
                let f = self.random.pick(&ROUNDS);
                format!("{f}({})", self.selector())
            }
            3 => format!("round({}, {})", self.selector(), self.random.pick(&["5", "0.1", "-3", "0"])),
            4 => format!("absent({})", self.vector(depth)),
            5 => format!("timestamp({})", self.without_at(depth)),
            6 => {
                let f = self.random.pick(&["sort", "sort_desc"]);
                format!("{f}({})", self.vector(depth))
            }
            7 => format!("vector({})", self.scalar(2)),
            8 => {
                let f = self.random.pick(&DATES);
                match self.random.below(3) {
                    0 => format!("{f}({} * 1e6)", self.finite()),
                    1 => format!("{f}(timestamp({}))", self.without_at(0)),
                    _ => format!("{f}(time() - {})", self.finite()),
                }
            }
            _ => {
                let f = self.random.pick(&DATES);
                format!("{f}()")
            }
        }
    }

    fn string_call(&mut self, depth: usize) -> String {
        let inner = self.vector(depth);
        let target = self.random.pick(&["new", "instance", "job", "__name__"]);
        if self.random.chance(40) {
            let sources = self.random.pick(&["\"job\", \"instance\"", "\"absent\"", "\"__name__\", \"job\""]);
            return format!("label_join({inner}, \"{target}\", \"-\", {sources})");
        }
        let (replacement, source, regex) = self.random.pick(&[
            ("$1", "instance", "(.*)"),
            ("x-$1", "instance", "([a-c])"),
            ("", "job", "api"),
            ("${1}_$2", "__name__", "(.*)_(.*)"),
            ("constant", "absent", ""),
            ("$1", "job", "(a).*"),
        ]);
        format!("label_replace({inner}, \"{target}\", \"{replacement}\", \"{source}\", \"{regex}\")")
    }
}
