//! Runs one hot path, for `--bench instructions` to count under Valgrind.

use std::env::args;
use std::process::ExitCode;
use ws_manager_pool_peers::measure::instructions;

fn main() -> ExitCode {
    if args().nth(1).is_some_and(|name| instructions::run(&name)) {
        return ExitCode::SUCCESS;
    }
    eprintln!("started by `--bench instructions`, with the name of a path");
    ExitCode::FAILURE
}
