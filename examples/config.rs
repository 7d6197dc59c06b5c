//! The configuration that the layers come to, with the layer that each value came from:
//! `cargo run --example config --features config -- --file docs/pool.toml`.

use lexopt::prelude::*;
use std::process::ExitCode;
use ws_manager_pool::{ConfigLayers, Environment};

const HELP: &str = "\
Prints the effective configuration as TOML, and behind each value where it came from.

Usage: config [OPTIONS]

  --file <path>           a file of TOML; may be given again, the last is the strongest
  --optional-file <path>  the same, but it may be missing
  --environment <name>    production, staging, development or ci, where no layer names one [production]
  --prefix <text>         what the environment variables' names begin with [WS_POOL]
  --help                  this text

A mistake ends with exit code 2 and says what, where, and what is allowed.
";

fn main() -> ExitCode {
    match run() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<String, Box<dyn std::error::Error>> {
    let mut layers = ConfigLayers::new();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        layers = match argument {
            Long("file") => layers.file(arguments.value()?),
            Long("optional-file") => layers.optional_file(arguments.value()?),
            Long("environment") => layers.environment(environment(&arguments.value()?.string()?)?),
            Long("prefix") => layers.env_prefix(arguments.value()?.string()?),
            Short('h') | Long("help") => return Ok(HELP.to_owned()),
            _ => return Err(argument.unexpected().into()),
        };
    }
    Ok(layers.resolve()?.to_string())
}

fn environment(name: &str) -> Result<Environment, String> {
    match name {
        "production" => Ok(Environment::Production),
        "staging" => Ok(Environment::Staging),
        "development" => Ok(Environment::Development),
        "ci" => Ok(Environment::Ci),
        _ => Err(format!("--environment {name}: that is none of production, staging, development, ci")),
    }
}
