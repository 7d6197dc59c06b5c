//! Every send is addressed: by key, by user, by user and thread, or to all. That is how it is built,
//! and this reads the source to see that it stays so.

use crate::source::{self, Source};
use std::collections::{BTreeMap, BTreeSet};
use syn::{
    FnArg, GenericArgument, ImplItem, Item, Pat, PathArguments, Signature, TraitItem, Type, Visibility,
};

/// Who has verbs that send, with their traits.
const SENDERS: [&str; 7] =
    ["Pool", "ManagerPool", "Connection", "Lease", "ManagerLease", "Run", "ManagerRun"];

/// A verb of such a name sends, whatever it takes.
const SENDING: [&str; 7] = ["send", "broadcast", "notify", "emit", "publish", "deliver", "push"];

/// A verb that takes one of these sends, whatever it is called.
const CONTENT: [&str; 4] = ["Message", "AgentEvent", "EventData", "Received"];

/// What names a connection, a thread (a context does, too) or a user: for ever, or never again.
const ADDRESSES: [&str; 4] = ["Key", "IsolationKey", "UserExecutionContext", "UserId"];

/// What would name whoever happens to be there.
const POSITIONS: [&str; 8] = ["usize", "u64", "u32", "u16", "isize", "i64", "i32", "Range"];
const POSITION_NAMES: [&str; 7] = ["index", "position", "slot", "place", "seat", "nth", "number"];

#[test]
fn every_send_is_addressed_by_key_user_or_thread_or_goes_to_all() {
    let mut seen: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in source::all() {
        for (subject, verb) in public_verbs(&file) {
            let name = verb.ident.to_string();
            let verb_name = format!("{subject}::{name}");
            let taken: Vec<_> = verb.inputs.iter().filter_map(parameter).collect();
            let is_content = |(_, kinds): &&(String, BTreeSet<String>)| has_any(kinds, &CONTENT);
            if !SENDING.iter().any(|word| name.starts_with(word)) && taken.iter().all(|p| !is_content(&p)) {
                continue;
            }
            for (parameter, kinds) in &taken {
                assert!(!has_any(kinds, &POSITIONS), "{verb_name} sends by position: {parameter}");
                let is_position = POSITION_NAMES.contains(&parameter.as_str());
                assert!(!is_position, "{verb_name} sends by position: {parameter}");
            }
            let addresses = taken.iter().filter(|(_, kinds)| has_any(kinds, &ADDRESSES)).count();
            let expected = match &*subject {
                // To all.
                "Pool" | "ManagerPool" if name.starts_with("broadcast") => 0,
                "Pool" | "ManagerPool" => 1,
                // Its own connection, its own thread: nobody else can be named.
                _ => 0,
            };
            assert_eq!(addresses, expected, "{verb_name} does not say once whom it sends to");
            seen.entry(subject).or_default().insert(name);
        }
    }
    let known = ["broadcast", "send", "send_many", "send_to_thread", "send_to_user", "start_run"];
    for subject in ["Pool", "ManagerPool"] {
        let missing: Vec<_> = known.iter().filter(|verb| !seen[subject].contains(**verb)).collect();
        assert!(missing.is_empty(), "the scan does not see {missing:?} of {subject}");
    }
    for (subject, verb) in [("Connection", "send"), ("Run", "thinking"), ("Run", "complete")] {
        assert!(seen[subject].contains(verb), "the scan does not see {subject}::{verb}");
    }
}

/// A slot's index alone leads to nobody: only the slab, which knows the generation, makes keys.
#[test]
fn nobody_makes_a_key_of_an_index() {
    let makes_keys = |file: &Source| {
        let words = file.words();
        words.windows(3).any(|words| words[0] == "Key" && words[1] == "::" && words[2] == "new")
    };
    let makers: BTreeSet<_> = source::all().iter().filter(|file| makes_keys(file)).map(house).collect();
    assert_eq!(makers, ["slab".to_owned()].into());
    for file in source::all() {
        for (subject, verb) in public_verbs_of(&file, |subject| subject == "Key" || subject == "Pool") {
            let gives_key = matches!(&verb.output, syn::ReturnType::Type(_, kind)
                if has_any(&names(kind), &["Key"]) || (subject == "Key" && has_any(&names(kind), &["Self"])));
            let taken: Vec<_> = verb.inputs.iter().filter_map(parameter).collect();
            let by_number = taken.iter().any(|(_, kinds)| has_any(kinds, &POSITIONS));
            // With the generation in it; a made-up one is stale.
            let is_whole = verb.ident == "from_bits";
            assert!(!gives_key || !by_number || is_whole, "{subject}::{} finds by position", verb.ident);
        }
    }
}

fn house(file: &Source) -> String {
    file.path.split('/').next().unwrap_or_default().to_owned()
}

fn public_verbs(file: &Source) -> Vec<(String, Signature)> {
    public_verbs_of(file, |subject| SENDERS.contains(&subject))
}

/// The public functions of a type, and all of a trait.
fn public_verbs_of(file: &Source, is_wanted: impl Fn(&str) -> bool) -> Vec<(String, Signature)> {
    let mut found = Vec::new();
    for item in file.items() {
        match item {
            Item::Impl(block) if block.trait_.is_none() => {
                let Type::Path(path) = &*block.self_ty else { continue };
                let subject =
                    path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
                for function in &block.items {
                    if let ImplItem::Fn(function) = function
                        && matches!(function.vis, Visibility::Public(_))
                        && is_wanted(&subject)
                    {
                        found.push((subject.clone(), function.sig.clone()));
                    }
                }
            }
            Item::Trait(item) if is_wanted(&item.ident.to_string()) => {
                for function in &item.items {
                    if let TraitItem::Fn(function) = function {
                        found.push((item.ident.to_string(), function.sig.clone()));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

/// A parameter's name, and every name in its type. `None` for `self`.
fn parameter(argument: &FnArg) -> Option<(String, BTreeSet<String>)> {
    let FnArg::Typed(argument) = argument else { return None };
    let name = match &*argument.pat {
        Pat::Ident(name) => name.ident.to_string(),
        _ => String::new(),
    };
    Some((name, names(&argument.ty)))
}

fn has_any(kinds: &BTreeSet<String>, wanted: &[&str]) -> bool {
    wanted.iter().any(|kind| kinds.contains(*kind))
}

fn names(kind: &Type) -> BTreeSet<String> {
    let of_path = |path: &syn::Path| {
        let mut found = BTreeSet::new();
        for segment in &path.segments {
            found.insert(segment.ident.to_string());
            if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                for argument in &arguments.args {
                    if let GenericArgument::Type(kind) = argument {
                        found.extend(names(kind));
                    }
                }
            }
        }
        found
    };
    match kind {
        Type::Path(path) => of_path(&path.path),
        Type::Reference(to) => names(&to.elem),
        Type::Tuple(tuple) => tuple.elems.iter().flat_map(names).collect(),
        Type::Array(array) => names(&array.elem),
        Type::Slice(slice) => names(&slice.elem),
        Type::Paren(paren) => names(&paren.elem),
        Type::ImplTrait(bounds) => {
            let paths = bounds.bounds.iter().filter_map(|bound| match bound {
                syn::TypeParamBound::Trait(bound) => Some(of_path(&bound.path)),
                _ => None,
            });
            paths.flatten().collect()
        }
        _ => BTreeSet::new(),
    }
}
