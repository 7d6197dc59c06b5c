//! The whole comparison in one table:
//!
//! ```text
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench table                  # some two minutes
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench table -- --full        # an idle machine, please
//! cargo bench --manifest-path benches/peers/Cargo.toml --bench table -- --json FILE --markdown FILE
//! ```
//!
//! Says which goals are met and which are missed. It fails only if it can't measure or write.

use lexopt::{Arg, Parser, ValueExt};
use std::error::Error;
use std::fs::write;
use std::path::{Path, PathBuf};
use ws_manager_pool_peers::machine::exit_on_panic;
use ws_manager_pool_peers::measure::Effort;
use ws_manager_pool_peers::report::Report;

fn main() -> Result<(), Box<dyn Error>> {
    exit_on_panic();
    let (mut json, mut markdown) = (None::<PathBuf>, None::<PathBuf>);
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("json") => json = Some(arguments.value()?.parse()?),
            Arg::Long("markdown") => markdown = Some(arguments.value()?.parse()?),
            Arg::Long("bench" | "full") => {}
            unknown => return Err(unknown.unexpected().into()),
        }
    }
    let (counting, hot) = (env!("CARGO_BIN_EXE_memory"), env!("CARGO_BIN_EXE_hot"));
    let report = Report::measure(Effort::of_arguments(), Path::new(counting), Path::new(hot));
    print!("{report}");
    if let Some(path) = json {
        write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = markdown {
        write(path, report.to_string())?;
    }
    Ok(())
}
