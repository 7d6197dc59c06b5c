//! There is one source of truth about who is connected. One test for each way in which a second one
//! could arise.

mod source;

use source::Source;
use std::collections::BTreeSet;
use syn::{
    GenericArgument, ImplItem, ImplItemFn, Item, PathArguments, ReceiverKind, ReturnType, TraitItem, Type,
    UseTree, Visibility,
};
#[cfg(feature = "testing")]
use ws_manager_pool::testing::FakePool;
use ws_manager_pool::{
    BuildError, DuplicatePolicy, Environment, IdGenerator, IsolationKey, ManagerLease, ManagerPool,
    ManagerReservation, Message, Pool, UserExecutionContext,
};

const MANAGER: &str = "PooledWebSocketManager";

#[test]
fn one_type_is_called_manager() {
    let mut found = BTreeSet::new();
    for file in source::all() {
        for item in file.items() {
            for name in public_names(item) {
                if name.ends_with("Manager") {
                    found.insert(format!("{name} in {}", file.path));
                }
            }
        }
    }
    // Once where it is, once where the crate shows it.
    let expected = ["manager/mod.rs", "lib.rs"].map(|path| format!("{MANAGER} in {path}"));
    assert_eq!(found, expected.into());
}

/// That no struct expression makes one is shown by an example that does not compile, at the type.
#[test]
fn a_manager_is_made_by_the_pool_only() {
    const FROM_NOTHING: [&str; 3] = ["Default", "Clone", "From"];
    for file in source::all() {
        for item in file.items() {
            match item {
                Item::Struct(item) if item.ident == MANAGER => {
                    assert!(item.fields.iter().all(|field| !is_public(&field.vis)), "a public field");
                    assert!(item.attrs.iter().all(|attr| !attr.path().is_ident("derive")), "derived");
                }
                Item::Impl(block) if names(&block.self_ty).contains(MANAGER) => {
                    let of = block.trait_.as_ref().map(|(path, _)| last(path)).unwrap_or_default();
                    assert!(!FROM_NOTHING.contains(&of.as_str()), "{}: {MANAGER} is {of}", file.path);
                }
                _ => {}
            }
        }
        for (subject, function) in functions(&file).filter(|(_, function)| is_public(&function.vis)) {
            let returned = returned(&function);
            let gives = returned.contains(MANAGER) || (subject == MANAGER && returned.contains("Self"));
            assert!(!gives, "{}: {subject}::{} gives a manager away", file.path, function.sig.ident);
        }
    }
}

#[test]
fn a_second_pool_of_the_same_name_is_refused_and_told_where_the_first_is() {
    let build = || Pool::<()>::builder().environment(Environment::Ci).name("one-source").build();
    let (line, pool) = (line!(), build_here());
    let Err(error) = build() else { panic!("two pools of one name") };
    let BuildError::NameTaken { first, .. } = &error else { panic!("{error}") };
    assert_eq!((first.file(), first.line()), (file!(), line));
    assert!(error.to_string().contains(&format!("one_source.rs:{line}")), "{error}");
    drop(pool);
    assert!(build().is_ok(), "the name is free again");
}

#[track_caller]
fn build_here() -> Pool {
    Pool::builder().environment(Environment::Ci).name("one-source").build().unwrap()
}

/// That no field can be reached is shown by examples that do not compile, at the types.
#[test]
fn a_context_can_not_change() {
    const IMMUTABLE: [&str; 3] = ["UserExecutionContext", "UserContextIds", "IsolationKey"];
    let mut seen = BTreeSet::new();
    for file in source::all() {
        for item in file.items() {
            match item {
                Item::Struct(item) if IMMUTABLE.contains(&item.ident.to_string().as_str()) => {
                    assert!(item.fields.iter().all(|field| !is_public(&field.vis)), "{}", item.ident);
                    seen.insert(item.ident.to_string());
                }
                Item::Impl(block) if IMMUTABLE.iter().any(|name| names(&block.self_ty).contains(*name)) => {
                    let of = block.trait_.as_ref().map(|(path, _)| last(path)).unwrap_or_default();
                    assert!(!of.ends_with("Mut"), "{}: a context is {of}", file.path);
                }
                _ => {}
            }
        }
        for (subject, function) in functions(&file).filter(|(of, _)| IMMUTABLE.contains(&of.as_str())) {
            let name = &function.sig.ident;
            let kind = function.sig.receiver().map(|receiver| &receiver.kind);
            let changes =
                matches!(kind, Some(ReceiverKind::Reference(_, _, Some(_)) | ReceiverKind::Typed(..)));
            assert!(!changes, "{subject}::{name} borrows itself to change it");
            assert!(!returned(&function).contains("&mut"), "{subject}::{name} lends a field to be changed");
        }
    }
    assert_eq!(seen, IMMUTABLE.map(str::to_owned).into(), "the scan sees the types");
}

/// (file, name, why it is not a second source).
const STATICS: &[(&str, &str, &str)] = &[
    ("clock.rs", "ORIGIN", "a moment, on systems without a coarse clock"),
    ("pool/builder.rs", "NAMES", "names and places, so that there is no second pool of a name"),
    ("pool/send.rs", "SCRATCH", "an emptied list, for the next send of the thread"),
    ("slab/cells.rs", "NUMBERS", "numbers of threads"),
    ("fault.rs", "CHOSEN", "the one planted bug of a process; in builds with `fault = \"any\"` only"),
    ("manager/bytes/on.rs", "OWN", "the buffer that this thread reads into, empty to whoever takes it"),
    ("serve/own/inbound.rs", "SPARE", "an inbox that nobody uses, cleared"),
    ("serve/own/outbound.rs", "SPARE", "an outbox that nobody uses, cleared"),
    ("slab/cells.rs", "MINE", "the number of this thread"),
    ("slab/cells.rs", "KNOWN", "the same, as it is read"),
    ("slab/hints.rs", "MAGAZINES", "hints, which the header has to confirm"),
    ("slab/mod.rs", "IDS", "the next slab's number"),
    ("sync.rs", "COLLECTOR", "pages on their way to the allocator, which no slot refers to"),
    ("sync.rs", "HANDLE", "this thread's place in that collector"),
];

#[test]
fn nothing_global_and_nothing_by_thread_holds_a_pool_or_a_manager() {
    let mut found = BTreeSet::new();
    for file in source::all() {
        let words = file.words();
        for at in (0..words.len()).filter(|&at| words[at] == "static") {
            let name_at = if words[at + 1] == "mut" { at + 2 } else { at + 1 };
            if words.get(name_at + 1).is_some_and(|word| word == ":") {
                found.insert((file.path.clone(), words[name_at].clone()));
            }
        }
        for (subject, function) in functions(&file).filter(|(_, function)| is_public(&function.vis)) {
            let name = function.sig.ident.to_string();
            let is_ambient =
                ["global", "instance", "current", "shared"].iter().any(|word| name.contains(word));
            assert!(!is_ambient, "{}: {subject}::{name} reaches for something ambient", file.path);
        }
    }
    let expected: BTreeSet<_> =
        STATICS.iter().map(|(file, name, _)| ((*file).to_owned(), (*name).to_owned())).collect();
    assert_eq!(found, expected, "a new static needs a reason here; one that is gone has to leave");
}

/// (type, method, why the trait has no such verb).
const NOT_VERBS: &[(&str, &str, &str)] = &[
    ("Pool", "builder", "makes a pool: the double is made otherwise"),
    ("Pool", "drain_progress", "of a server's drain: the double serves nobody"),
    ("Pool", "unauthenticated", "of a server's porch: the double serves nobody"),
];

#[test]
fn the_traits_list_every_verb_and_no_other() {
    let files = source::all();
    for (subject, listing) in [
        ("Pool", "ManagerPool"),
        ("Reservation", "ManagerReservation"),
        ("Lease", "ManagerLease"),
        ("Run", "ManagerRun"),
    ] {
        let mut verbs: BTreeSet<String> = files
            .iter()
            .filter(|file| file.path.starts_with("pool/"))
            .flat_map(functions)
            .filter(|(of, function)| of == subject && is_public(&function.vis))
            .map(|(_, function)| function.sig.ident.to_string())
            .collect();
        for (of, name, _) in NOT_VERBS.iter().filter(|(of, ..)| *of == subject) {
            assert!(verbs.remove(*name), "{of}::{name} is gone: take it off the list");
        }
        let mut listed = BTreeSet::new();
        for item in files.iter().flat_map(Source::items) {
            let Item::Trait(item) = item else { continue };
            for method in item.items.iter().filter(|_| item.ident == listing) {
                let TraitItem::Fn(method) = method else { continue };
                let name = method.sig.ident.to_string();
                assert!(method.default.is_none(), "{listing}::{name}: a double could miss a default body");
                listed.insert(name);
            }
        }
        assert_eq!(listed, verbs, "{listing} against {subject}");
    }
}

#[test]
fn an_event_never_reaches_another_user() {
    let named = |name: &str| Pool::<()>::builder().environment(Environment::Ci).capacity(12).name(name);
    users_with_the_same_thread_never_meet(&named("event-at-a-wrong-user").build().unwrap());
    #[cfg(feature = "testing")]
    users_with_the_same_thread_never_meet::<FakePool>(
        &named("event-at-a-wrong-double").build_fake().unwrap(),
    );
}

/// Users whose names are prefixes of each other, or look like another's isolation key, on one thread;
/// the connections come and go, so that slots are used again with messages still waiting.
fn users_with_the_same_thread_never_meet<P: ManagerPool>(pool: &P) {
    const USERS: [&str; 6] = ["a", "a:thread_1", "a:b", "aa", "A", "b"];
    const THREADS: [&str; 2] = ["thread_1", "thread_2"];
    assert_eq!(pool.config().duplicates, DuplicatePolicy::Replace);
    for round in 0..20 {
        let mut leases = Vec::new();
        for user in USERS {
            for thread in THREADS {
                let ids = IdGenerator::user_context_ids(user, "test").with_client_thread(thread).unwrap();
                let context = UserExecutionContext::from_websocket_request(user, ids).unwrap();
                leases.push((context.isolation_key(), pool.reserve(&context).unwrap().open().unwrap()));
            }
        }
        for (to, _) in &leases {
            assert_eq!(pool.send_to_thread(to, Message::text(format!("{round} thread {to}"))).queued, 1);
        }
        for user in leases.iter().step_by(THREADS.len()).map(|(key, _)| key.user_id()) {
            let report = pool.send_to_user(user, Message::text(format!("{round} user {user}")));
            assert_eq!(report.queued, THREADS.len());
        }
        let stranger = IsolationKey::new("c".parse().unwrap(), THREADS[0].parse().unwrap());
        assert!(pool.send_to_thread(&stranger, Message::from("nobody's")).is_nobody);
        for (whose, lease) in &mut leases {
            // Every other connection is closed with its messages unread.
            if (lease.key().index() + round) % 2 == 0 {
                let read = [lease.next_message(), lease.next_message(), lease.next_message()];
                let expected =
                    [format!("{round} thread {whose}"), format!("{round} user {}", whose.user_id())];
                let [first, second] = expected.map(|text| Ok(Some(Message::text(text))));
                assert_eq!(read, [first, second, Ok(None)], "of {whose}");
            }
        }
        // Slots go back in another order than they were taken.
        leases.rotate_left(round as usize % 5);
    }
    assert_eq!(pool.snapshot().outbound_bytes, 0);
}

/// All functions of inherent `impl` blocks, with the name of their type.
fn functions(file: &Source) -> impl Iterator<Item = (String, ImplItemFn)> {
    let blocks = file.items().into_iter().filter_map(|item| match item {
        Item::Impl(block) if block.trait_.is_none() => Some(block),
        _ => None,
    });
    let found = blocks.flat_map(|block| {
        let subject = match &*block.self_ty {
            Type::Path(path) => last(&path.path),
            _ => String::new(),
        };
        block.items.iter().filter_map(move |item| match item {
            ImplItem::Fn(function) => Some((subject.clone(), function.clone())),
            _ => None,
        })
    });
    found.collect::<Vec<_>>().into_iter()
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// The names that an item gives to the outside: its own, an alias, or what it re-exports.
fn public_names(item: &Item) -> Vec<String> {
    let (visibility, name) = match item {
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Union(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Use(item) if is_public(&item.vis) => {
            let mut found = Vec::new();
            imported(&item.tree, &mut found);
            return found;
        }
        _ => return Vec::new(),
    };
    if is_public(visibility) { vec![name.to_string()] } else { Vec::new() }
}

fn imported(tree: &UseTree, found: &mut Vec<String>) {
    match tree {
        UseTree::Path(path) => imported(&path.tree, found),
        UseTree::Name(name) => found.push(name.ident.to_string()),
        // Under another name it is a second one.
        UseTree::Rename(name) if name.ident == MANAGER => {
            found.push(format!("{} alias Manager", name.rename))
        }
        UseTree::Rename(name) => found.push(name.rename.to_string()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| imported(tree, found)),
        UseTree::Glob(_) => {}
    }
}

fn last(path: &syn::Path) -> String {
    path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn returned(function: &ImplItemFn) -> BTreeSet<String> {
    match &function.sig.output {
        ReturnType::Type(_, kind) => names(kind),
        ReturnType::Default => BTreeSet::new(),
    }
}

/// Every name in a type, at any depth, and `&mut` for a reference that can be written through.
fn names(kind: &Type) -> BTreeSet<String> {
    match kind {
        Type::Path(path) => path
            .path
            .segments
            .iter()
            .flat_map(|segment| {
                let mut found = BTreeSet::from([segment.ident.to_string()]);
                if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                    for argument in &arguments.args {
                        if let GenericArgument::Type(kind) = argument {
                            found.extend(names(kind));
                        }
                    }
                }
                found
            })
            .collect(),
        Type::Reference(to) => {
            let mut found = names(&to.elem);
            found.extend(to.mutability.map(|_| "&mut".to_owned()));
            found
        }
        Type::Tuple(tuple) => tuple.elems.iter().flat_map(names).collect(),
        Type::Array(array) => names(&array.elem),
        Type::Slice(slice) => names(&slice.elem),
        Type::Paren(paren) => names(&paren.elem),
        _ => BTreeSet::new(),
    }
}
