//! What was measured, and the table of it.

use crate::aim::Verdict;
use crate::judge::Run;
use crate::rows::{By, Row};
use crate::server::Server;
use crate::{bench, dashboards, judge, long};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

/// A row with its figures.
pub struct Measured {
    /// The row.
    pub row: &'static Row,
    /// One figure a round.
    figures: BTreeMap<Server, Vec<f64>>,
}

/// Everything that is printed at the end.
pub struct Report {
    /// The rows that were asked for.
    pub rows: Vec<Measured>,
    quick: bool,
    /// Results of the load generator, as they are.
    runs: Vec<Value>,
}

impl Report {
    /// A report on `rows` without any figures.
    pub fn new(rows: impl Iterator<Item = &'static Row>, quick: bool) -> Report {
        let rows = rows.map(|row| Measured { row, figures: BTreeMap::new() }).collect();
        Report { rows, quick, runs: Vec::new() }
    }

    /// What the rows are measured by, as far as `what` picks it, each once, in the order of the rows.
    pub fn distinct<T: PartialEq>(&self, what: impl Fn(&'static By) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        for item in self.rows.iter().filter_map(|measured| what(&measured.row.by)) {
            if !found.contains(&item) {
                found.push(item);
            }
        }
        found
    }

    /// Takes in the rows that a bench printed. One of a peer has its name at the end.
    pub fn take_bench(&mut self, bench: &str, printed: &[(String, f64)]) {
        let figure =
            |name: &str| printed.iter().find(|(printed, _)| printed == name).map(|(_, figure)| *figure);
        for measured in &mut self.rows {
            if let By::Bench(its_bench, name) = measured.row.by
                && its_bench == bench
            {
                match figure(name) {
                    Some(figure) => measured.take(Server::Larum, figure),
                    None => eprintln!("accept: NOTICE: bench {bench} printed no row {name:?}"),
                }
                for peer in &Server::ALL[1..] {
                    if let Some(figure) = figure(&format!("{name}, {peer:?}")) {
                        measured.take(*peer, figure);
                    }
                }
            }
        }
    }

    /// Takes in the result of a run of the load generator.
    pub fn take_judge(&mut self, run: &Run, server: Server, result: Value) {
        for measured in &mut self.rows {
            if let By::Judge(its_run, figure) = &measured.row.by
                && run.stands_for(its_run, server)
                && let Some(figure) = figure.of(&result, server)
            {
                measured.take(server, figure);
            }
        }
        // The last of the servers in a round is the one that the answers of the others are compared with.
        if server == Server::Prometheus && result.get("query").is_some() {
            self.compare_answers(run, &result);
        }
        self.runs.push(result);
    }

    /// Takes in how many answers differ from those that Prometheus gave.
    fn compare_answers(&mut self, run: &Run, of_prometheus: &Value) {
        for measured in &mut self.rows {
            let By::Answers(its_run) = measured.row.by else { continue };
            if !run.stands_for(its_run, Server::Prometheus) {
                continue;
            }
            for server in [Server::Larum, Server::VictoriaMetrics] {
                let mut runs = self.runs.iter().rev();
                let result = runs.find(|run| run["target"] == server.target() && run.get("query").is_some());
                if let Some(different) =
                    result.and_then(|result| judge::different_answers(result, of_prometheus))
                {
                    measured.take(server, different as f64);
                }
            }
        }
    }

    /// Takes in the figures that `figure` has of a server for rows, by what these are measured by.
    pub fn take(&mut self, server: Server, figure: impl Fn(&By) -> Option<f64>) {
        for measured in &mut self.rows {
            if let Some(figure) = figure(&measured.row.by) {
                measured.take(server, figure);
            }
        }
    }

    /// Prints the table, and keeps everything in `out`. Fails if a row misses its aim and is behind a peer, or was
    /// not measured.
    pub fn finish(&self, out: Option<&Path>) -> ExitCode {
        println!("| group | what | aim | Larum | VictoriaMetrics | Prometheus | x peer | | by |");
        println!("| --- | --- | --- | ---: | ---: | ---: | ---: | --- | ---: |");
        let commands = self.distinct(|by| Some(self.command(by)));
        for measured in &self.rows {
            let row = measured.row;
            let by =
                commands.iter().position(|command| *command == self.command(&row.by)).unwrap_or_default();
            let figures = Server::ALL.map(|server| show(measured.median(server))).join(" | ");
            let (ratio, verdict) = (show(measured.ratio()), measured.verdict());
            println!(
                "| {} | {} | {} {} | {figures} | {ratio} | {verdict} | {} |",
                row.group,
                row.what,
                row.aim,
                row.unit,
                by + 1
            );
        }
        println!();
        for (i, command) in commands.iter().enumerate() {
            println!("{}. `{command}`", i + 1);
        }
        println!();
        self.print_surroundings();
        if let Some(out) = out
            && let Err(error) = std::fs::write(out, format!("{:#}\n", self.json()))
        {
            eprintln!("accept: {}: {error}", out.display());
            return ExitCode::from(2);
        }
        let bad =
            |measured: &Measured| matches!(measured.verdict(), Verdict::MissedBehind | Verdict::NotMeasured);
        if self.rows.iter().any(bad) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// What a reader must know of the machine to believe the figures.
    fn print_surroundings(&self) {
        let sum = |pointer: &str| -> f64 {
            self.runs.iter().filter_map(|run| run.pointer(pointer)?.as_f64()).sum()
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let rounds = self.rows.iter().flat_map(|measured| measured.figures.values()).map(Vec::len).max();
        println!("Medians; {} round(s) on {cores} cores.", rounds.unwrap_or_default());
        if self.quick {
            println!(
                "Small data sets (--quick): only what does not depend on size is comparable with its aim."
            );
        }
        if !self.runs.is_empty() {
            println!(
                "Other processes took {:.1} CPU s during {:.1} s of loading.",
                sum("/load/other_cpu_s"),
                sum("/load/seconds")
            );
        }
    }

    fn command(&self, by: &By) -> String {
        match by {
            By::Judge(run, _) | By::Answers(run) => judge::command(run, self.quick),
            By::Bench(bench, _) => bench::command(bench),
            By::Dashboards(_) => dashboards::COMMAND.to_owned(),
            By::Long(_) => long::COMMAND.to_owned(),
            By::Kills => "cargo bench --bench accept -- --run kills".to_owned(),
        }
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|measured| {
            let row = measured.row;
            let figures = measured.figures.iter();
            let figures: serde_json::Map<String, Value> =
                figures.map(|(server, figures)| (format!("{server:?}"), json!(figures))).collect();
            json!({
                "group": row.group, "what": row.what, "aim": row.aim.to_string(), "unit": row.unit,
                "figures": figures, "ratio": measured.ratio(), "verdict": measured.verdict().to_string(),
                "command": self.command(&row.by),
            })
        });
        json!({ "quick": self.quick, "rows": rows.collect::<Vec<_>>(), "runs": self.runs })
    }
}

impl Measured {
    fn take(&mut self, server: Server, figure: f64) {
        self.figures.entry(server).or_default().push(figure);
    }

    fn median(&self, server: Server) -> Option<f64> {
        let mut sorted = self.figures.get(&server)?.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted.get((sorted.len() - 1) / 2)?, sorted.get(sorted.len() / 2)?);
        Some((low + high) / 2.0)
    }

    /// Ours to the peer's that the aim is about.
    fn ratio(&self) -> Option<f64> {
        let theirs = self.row.aim.peer(self.median(Server::VictoriaMetrics), &self.peers());
        Some(self.median(Server::Larum)? / theirs.filter(|theirs| *theirs != 0.0)?)
    }

    fn verdict(&self) -> Verdict {
        let [ours, victoria_metrics] =
            [Server::Larum, Server::VictoriaMetrics].map(|server| self.median(server));
        self.row.aim.verdict(ours, victoria_metrics, &self.peers())
    }

    fn peers(&self) -> Vec<f64> {
        Server::ALL[1..].iter().filter_map(|server| self.median(*server)).collect()
    }
}

/// A figure with four digits that count.
fn show(figure: Option<f64>) -> String {
    let Some(figure) = figure else { return "-".to_owned() };
    if figure == 0.0 {
        return "0".to_owned();
    }
    let decimals = (3.0 - figure.abs().log10().floor()).clamp(0.0, 4.0);
    format!("{figure:.*}", decimals as usize)
}
