//! Replays the fuzz corpora, so that what was found once stays found. `fuzz/` has the targets.

use std::path::Path;

#[cfg(feature = "config")]
#[path = "../fuzz/scenarios/config.rs"]
mod config;
#[cfg(all(feature = "axum", feature = "serde"))]
#[allow(dead_code)] // the server uses the rest
#[path = "../fuzz/scenarios/endpoints.rs"]
mod endpoints;
#[cfg(feature = "engine")]
#[path = "../fuzz/scenarios/engine.rs"]
mod engine;
#[cfg(feature = "engine")]
#[path = "../fuzz/scenarios/handshake.rs"]
mod handshake;
#[path = "../fuzz/scenarios/ids.rs"]
mod ids;
#[allow(dead_code)] // only what a script does is used
#[path = "../fuzz/scenarios/pool.rs"]
mod pool;
#[path = "../fuzz/scenarios/slab.rs"]
mod slab;

fn replay(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> = std::fs::read_dir(&folder).expect("the corpus is there").collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        let path = file.expect("the folder can be read").path();
        println!("{}", path.display());
        run(&std::fs::read(&path).expect("the file can be read"));
    }
}

#[cfg(feature = "config")]
#[test]
fn the_corpus_of_configurations_passes() {
    replay("config", config::run);
}

#[cfg(feature = "engine")]
#[test]
fn the_corpus_of_frames_passes() {
    replay("engine", engine::run);
}

#[cfg(feature = "engine")]
#[test]
fn the_corpus_of_handshakes_passes() {
    replay("handshake", handshake::run);
}

#[test]
fn the_corpus_of_ids_passes() {
    replay("ids", ids::run);
}

#[test]
fn the_corpus_of_slab_scripts_passes() {
    replay("slab", slab::run);
}

#[test]
fn the_corpus_of_pool_scripts_passes() {
    replay("pool", pool::run);
}

#[cfg(all(feature = "axum", feature = "serde"))]
#[test]
fn the_corpus_of_addresses_and_texts_passes() {
    replay("endpoints", endpoints::run);
}
