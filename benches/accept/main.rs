//! Prints every aim with what was measured: ours, the peers' in the same run, the ratio, the verdict,
//! and the command that measured it. `make accept`; `benches/README.md` says how to read it.
//!
//! Servers are measured by the load generator in `../shared/judge`, one after the other in each
//! round, so that what else the machine does hits all of them; the library by the benches beside
//! this folder. Several rounds give medians.

mod aim;
mod bench;
mod dashboards;
mod judge;
mod kills;
mod long;
mod report;
mod rows;
mod server;
#[path = "../../tests/support/mod.rs"]
mod support;

use clap::Parser;
use judge::{Judge, Run};
use report::Report;
use rows::{By, ROWS};
use server::Server;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Measures Larum and its peers against the aims, and prints a table.
#[derive(Parser)]
#[command(name = "accept", bin_name = "make accept ARGS=\"...\"")]
struct Args {
    /// Groups of rows, or parts of a row's name; all rows if none is given.
    rows: Vec<String>,
    /// Small data sets and one round: minutes instead of hours, and rougher figures.
    #[arg(long)]
    quick: bool,
    /// So many rounds; three unless --quick.
    #[arg(long)]
    rounds: Option<usize>,
    /// Leave out a peer: `prometheus` takes most of the time.
    #[arg(long, value_name = "SERVER")]
    without: Vec<Server>,
    /// Keep the rows, all rounds and the load generator's results in this file.
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
    /// Where data sets and servers' data go while it runs (some GB; removed at the end).
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target"))]
    work: PathBuf,
    /// A load generator that is built already.
    #[arg(long, value_name = "PROGRAM", env = "JUDGE")]
    judge: Option<PathBuf>,
    /// Measure. Without this the rows are only listed, for plain `cargo bench` runs this as well.
    #[arg(long)]
    run: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let wanted = |row: &&rows::Row| {
        args.rows.is_empty() || args.rows.iter().any(|word| row.group == *word || row.what.contains(&**word))
    };
    let mut report = Report::new(ROWS.iter().filter(wanted), args.quick);
    if report.rows.is_empty() {
        eprintln!("accept: no row is called {:?}", args.rows);
        return ExitCode::from(2);
    }
    if !args.run {
        report.rows.iter().for_each(|measured| println!("{:<8} {}", measured.row.group, measured.row.what));
        return ExitCode::SUCCESS;
    }
    match measure(&args, &mut report) {
        Ok(()) => report.finish(args.out.as_deref()),
        Err(error) => {
            eprintln!("accept: {error}");
            ExitCode::from(2)
        }
    }
}

/// Fills in the report. What cannot be measured is noted there; an error is one that leaves no report.
fn measure(args: &Args, report: &mut Report) -> Result<(), String> {
    std::fs::create_dir_all(&args.work).map_err(|e| format!("{}: {e}", args.work.display()))?;
    let folder = tempfile::Builder::new().prefix("accept-").tempdir_in(&args.work);
    let folder = folder.map_err(|e| format!("no temporary folder in {}: {e}", args.work.display()))?;
    let runs = report.distinct(|by| match by {
        By::Judge(run, _) | By::Answers(run) => Some(*run),
        _ => None,
    });
    let benches = report.distinct(|by| if let By::Bench(bench, _) = by { Some(*bench) } else { None });

    let servers = server::bring(&args.without);
    let measured_by = |by: fn(&By) -> bool| report.rows.iter().any(|measured| by(&measured.row.by));
    let dashboards = measured_by(|by| matches!(by, By::Dashboards(_)));
    let long = measured_by(|by| matches!(by, By::Long(_)));
    let kills = measured_by(|by| matches!(by, By::Kills));
    let judge = match runs.is_empty() && !dashboards {
        true => None,
        false => Judge::bring(args.judge.as_deref(), folder.path(), args.quick)
            .map_err(|why| eprintln!("accept: NOTICE: servers are not measured: {why}"))
            .ok(),
    };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    for round in 1..=rounds {
        let mut done: Vec<(&Run, Server)> = Vec::new();
        for bench in &benches {
            eprintln!("accept: round {round} of {rounds}: bench {bench}");
            match bench::run(bench, args.quick) {
                Ok(figures) => report.take_bench(bench, &figures),
                Err(why) => eprintln!("accept: NOTICE: {why}"),
            }
        }
        for (run, server) in runs.iter().flat_map(|run| servers.iter().map(move |server| (run, *server))) {
            let Some(judge) = judge.as_ref() else { continue };
            if done.iter().any(|(earlier, its)| *its == server && earlier.stands_for(run, server)) {
                continue;
            }
            done.push((run, server));
            eprintln!("accept: round {round} of {rounds}: {}, {server:?}", run.set.name);
            match judge.run(run, server) {
                Ok(result) => report.take_judge(run, server, result),
                Err(why) => eprintln!("accept: NOTICE: {why}"),
            }
        }
        for server in &servers {
            if let Some(judge) = judge.as_ref().filter(|_| dashboards) {
                eprintln!("accept: round {round} of {rounds}: dashboards, {server:?}");
                match in_folder(&args.work, |folder| dashboards::run(judge, *server, folder, args.quick)) {
                    Ok(figures) => report.take(*server, |by| match by {
                        By::Dashboards(shown) => Some(figures.of(*shown)),
                        _ => None,
                    }),
                    Err(why) => eprintln!("accept: NOTICE: {why}"),
                }
            }
            if long {
                eprintln!("accept: round {round} of {rounds}: long times, {server:?}");
                match in_folder(&args.work, |folder| long::run(*server, folder, args.quick)) {
                    Ok(figures) => report.take(*server, |by| match by {
                        By::Long(span) => figures.iter().find(|(its, _)| its == span).map(|(_, ms)| *ms),
                        _ => None,
                    }),
                    Err(why) => eprintln!("accept: NOTICE: {why}"),
                }
            }
        }
    }
    if kills {
        let times = if args.quick { 10 } else { 50 };
        // A server that does not come up panics in there; the other rows are still worth printing.
        match std::thread::spawn(move || kills::lost(times)).join() {
            Ok(lost) => report.take(Server::Larum, |by| matches!(by, By::Kills).then_some(lost as f64)),
            Err(_) => eprintln!("accept: NOTICE: the kills ended early, see above"),
        }
    }
    Ok(())
}

/// Runs `measure` with a folder of its own. A server that does not do what it must panics in there; the other
/// rows are still worth printing.
fn in_folder<T>(work: &Path, measure: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    let folder = tempfile::Builder::new().prefix("accept-").tempdir_in(work);
    let folder = folder.map_err(|e| format!("no temporary folder in {}: {e}", work.display()))?;
    let measured = catch_unwind(AssertUnwindSafe(|| measure(folder.path())));
    measured.unwrap_or_else(|_| Err("it ended early, see above".to_owned()))
}
