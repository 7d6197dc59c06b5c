//! Instructions of the hot paths, counted under Valgrind:
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench instructions`.

use std::path::Path;
use std::process::ExitCode;
use ws_manager_pool_peers::measure::instructions;

fn main() -> ExitCode {
    match instructions::count(Path::new(env!("CARGO_BIN_EXE_hot"))) {
        Ok(counts) => {
            for path in counts {
                println!("{:<44} {:>8.1} instructions", path.what, path.each);
            }
            ExitCode::SUCCESS
        }
        Err(missing) => {
            eprintln!("nothing was counted: {missing}");
            ExitCode::FAILURE
        }
    }
}
