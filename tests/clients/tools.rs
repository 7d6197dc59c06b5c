//! Where the other languages' clients are. `.ci/clients` installs them.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What is missing, for a person to read.
pub(crate) type Missing = &'static str;

pub(crate) fn python() -> Result<PathBuf, Missing> {
    let installed = folder().join("venv/installed.txt");
    let python = folder().join("venv/bin/python");
    if installed.exists() { Ok(python) } else { Err("Python's websockets") }
}

/// `node`, and the folder with its packages.
pub(crate) fn node() -> Result<(PathBuf, PathBuf), Missing> {
    let packages = folder().join("node");
    let node = on_path("node").ok_or("node")?;
    if packages.join("installed.json").exists() { Ok((node, packages)) } else { Err("Node's ws") }
}

pub(crate) fn chromium() -> Result<PathBuf, Missing> {
    let named = env::var("CHROMIUM").ok().filter(|name| !name.is_empty());
    let names = named.iter().map(String::as_str).chain(["chromium", "chromium-browser", "google-chrome"]);
    names.filter_map(on_path).next().ok_or("chromium")
}

/// The script of that name, beside this file.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// The tool, or a line that says what is not tested and how to have it tested.
///
/// # Panics
///
/// If it is missing where it must not be.
pub(crate) fn or_skip<T>(tool: Result<T, Missing>) -> Option<T> {
    static TOLD: Mutex<BTreeSet<Missing>> = Mutex::new(BTreeSet::new());
    let missing = match tool {
        Ok(tool) => return Some(tool),
        Err(missing) => missing,
    };
    let must = env::var("CI_CLIENTS").is_ok_and(|value| value == "1");
    assert!(!must, "{missing} is missing: run .ci/clients, which installs it");
    if TOLD.lock().insert(missing) {
        // Not `eprintln!`, which nobody sees of a test that passes.
        let line = format!("SKIPPED: every test that needs {missing}; .ci/clients installs it\n");
        let _ = io::stderr().write_all(line.as_bytes());
    }
    None
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients")
}

fn on_path(name: &str) -> Option<PathBuf> {
    // A name with a slash is a path, and `join` leaves an absolute one as it is.
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
