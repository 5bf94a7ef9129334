//! The thin binary: arguments, configuration, run.

use larum::server::args::Args;
use larum::server::run;
use std::process::ExitCode;

fn main() -> ExitCode {
    run::main(Args::from_command_line())
}
