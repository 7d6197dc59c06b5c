//! Replays the fuzz corpora, so that what was found once stays found. `fuzz/` has the targets.

use std::path::Path;

#[cfg(feature = "config")]
#[path = "../fuzz/scenarios/config.rs"]
mod config;
#[path = "../fuzz/scenarios/ids.rs"]
mod ids;
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

#[test]
fn the_corpus_of_ids_passes() {
    replay("ids", ids::run);
}

#[test]
fn the_corpus_of_slab_scripts_passes() {
    replay("slab", slab::run);
}
