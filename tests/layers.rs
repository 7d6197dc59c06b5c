//! The rooms of the crate call downwards only, and what is dangerous comes in by one door each.

mod source;

use source::Source;
use std::collections::BTreeMap;
use syn::{Item, UseTree};

/// From the bottom up: a room may use those that stand before it.
///
/// Against the design's sketch, `config` and `error` stand above `manager` and `slab`, whose limits and
/// refusals they carry; `reason` is what all of them may say to a peer; and `control`, which only
/// decides, stands below `pool`, which asks it and acts.
const ROOMS: &[&str] = &[
    "fault", "sync", "clock", "id", "reason", "slab", "manager", "config", "error", "control", "pool",
    "engine", "serve", "observe", "cluster", "testing",
];

/// Rooms that keep to fewer than stand below them.
const KEEPS_TO: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("reason", &[]),
    ("slab", &["sync"]),
    ("manager", &["sync", "clock", "id", "slab"]),
    ("control", &["clock", "id", "reason", "manager", "config"]),
    ("engine", &["reason"]),
];

#[test]
fn a_room_uses_only_rooms_below_it() {
    let files = source::all();
    let exported = exports(&files);
    let mut upward = Vec::new();
    for file in files.iter().filter(|file| file.path != "lib.rs") {
        let room = room(file);
        let height = ROOMS.iter().position(|&known| known == room);
        let height = height.unwrap_or_else(|| panic!("{} is in no known room: give it its place", file.path));
        let keeps_to = KEEPS_TO.iter().find(|(name, _)| *name == room).map(|(_, rooms)| *rooms);
        for used in rooms_used(file, &exported) {
            let is_below = ROOMS[..height].contains(&used.as_str());
            let is_allowed = keeps_to.is_none_or(|rooms| rooms.contains(&used.as_str()));
            if used != room && !(is_below && is_allowed) {
                upward.push(format!("{} uses {used}", file.path));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

/// Every room that the file names, whether by `crate::room`, by what `lib.rs` re-exports of it, or by
/// climbing out with `super`.
fn rooms_used(file: &Source, exported: &BTreeMap<String, String>) -> Vec<String> {
    // How many `super` lead from the file's own module to the crate's root.
    let depth = file.path.trim_end_matches("/mod.rs").split('/').count();
    let mut used = Vec::new();
    for path in paths(file) {
        let climbs = path.iter().take_while(|segment| *segment == "super").count();
        let first = match path[0].as_str() {
            "crate" => path.get(1),
            "super" if climbs >= depth => path.get(climbs),
            _ => None,
        };
        let Some(first) = first else { continue };
        if ROOMS.contains(&first.as_str()) {
            used.push(first.clone());
        } else if let Some(room) = exported.get(first) {
            used.push(room.clone());
        } else if path[0] == "crate" {
            panic!("{} names crate::{first}, which is neither a room nor re-exported", file.path);
        }
    }
    used.sort();
    used.dedup();
    used
}

/// What `lib.rs` re-exports, and from which room.
fn exports(files: &[Source]) -> BTreeMap<String, String> {
    let lib = files.iter().find(|file| file.path == "lib.rs").expect("a lib.rs");
    let mut exported = BTreeMap::new();
    for item in lib.items() {
        if let Item::Use(item) = item
            && let UseTree::Path(room) = &item.tree
        {
            names(&room.tree, &room.ident.to_string(), &mut exported);
        }
    }
    exported
}

fn names(tree: &UseTree, room: &str, exported: &mut BTreeMap<String, String>) {
    match tree {
        UseTree::Name(name) => drop(exported.insert(name.ident.to_string(), room.to_owned())),
        UseTree::Rename(name) => drop(exported.insert(name.rename.to_string(), room.to_owned())),
        UseTree::Group(group) => group.items.iter().for_each(|tree| names(tree, room, exported)),
        UseTree::Path(path) => names(&path.tree, room, exported),
        UseTree::Glob(_) => panic!("lib.rs re-exports all of {room}: name what it is"),
    }
}

/// (what, where it may be, why there).
type Door = (&'static str, &'static [&'static str], &'static str);

const DOORS: &[Door] = &[
    ("std::sync::atomic", &["sync.rs"], "atomics are loom's in a model"),
    ("core::sync::atomic", &["sync.rs"], "atomics are loom's in a model"),
    ("std::sync::Mutex", &["sync.rs"], "locks are loom's in a model"),
    ("std::sync::RwLock", &["sync.rs"], "locks are loom's in a model"),
    ("std::sync::Condvar", &["sync.rs"], "nothing in the crate may block for long"),
    ("parking_lot", &["sync.rs"], "locks are loom's in a model"),
    ("loom", &["sync.rs"], "the one place that knows of models"),
    ("shuttle", &["sync.rs"], "the one place that knows of models"),
    ("atomic_waker", &["sync.rs"], "the waker is loom's in a model"),
    ("crossbeam_epoch", &["sync.rs"], "epochs are a stand-in in a model"),
    ("std::cell::UnsafeCell", &["sync.rs"], "cells are loom's in a model"),
];

#[test]
fn what_is_dangerous_comes_in_by_one_door() {
    let mut found = Vec::new();
    for file in source::all() {
        for path in paths(&file) {
            let path = path.join("::");
            for (what, places, why) in DOORS {
                let is_it = path == *what || path.starts_with(&format!("{what}::"));
                if is_it && !places.contains(&file.path.as_str()) {
                    found.push(format!("{}: {path} ({why})", file.path));
                }
            }
            if (path.ends_with("Instant::now") || path.ends_with("SystemTime::now"))
                && file.path != "clock.rs"
            {
                found.push(format!("{}: {path} (time is a value that is passed in)", file.path));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unsafe_code_is_in_the_slab_only() {
    // The stand-in for an epoch in a model has the signature of the real one, and no unsafe operation.
    let may = |file: &Source| room(file) == "slab" || file.path == "sync.rs";
    let files = source::all();
    let with_unsafe = files.iter().filter(|file| file.words().iter().any(|word| word == "unsafe"));
    let elsewhere: Vec<_> = with_unsafe.filter(|file| !may(file)).map(|file| &file.path).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    let doors = files.iter().find(|file| file.path == "sync.rs").expect("a sync.rs").words();
    assert_eq!(doors.iter().filter(|word| *word == "unsafe").count(), 1, "only the stand-in");
}

#[test]
fn a_file_past_600_lines_is_two_rooms() {
    let long: Vec<_> = source::all()
        .into_iter()
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > 600)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

/// The first part of the path: the room that the file belongs to.
fn room(file: &Source) -> &str {
    let first = file.path.split('/').next().unwrap_or_default();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Every path of at least two segments, `use` trees spelled out: `std::sync::{Arc, Weak}` is two.
fn paths(file: &Source) -> Vec<Vec<String>> {
    let words = file.words();
    let mut found = Vec::new();
    for at in 0..words.len() {
        let begins = is_name(&words[at]) && words.get(at + 1).is_some_and(|word| word == "::");
        if begins && (at == 0 || words[at - 1] != "::") {
            spell_out(&words, at, &mut Vec::new(), &mut found);
        }
    }
    found
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Spells out the path or use tree at `at`, after `prefix`. Returns where it ends.
fn spell_out(
    words: &[String],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let before = prefix.len();
    while words.get(at).is_some_and(|word| is_name(word)) {
        prefix.push(words[at].clone());
        at += 1;
        if words.get(at).is_none_or(|word| word != "::") {
            break;
        }
        at += 1;
    }
    if words.get(at).is_some_and(|word| word == "{") && words[at - 1] == "::" {
        at += 1;
        while words.get(at).is_some_and(|word| word != "}") {
            let end = spell_out(words, at, prefix, found);
            at = end.max(at + 1);
        }
        at += 1;
    } else if prefix.len() > before {
        found.push(prefix.clone());
    }
    prefix.truncate(before);
    at
}
