//! Promise: identity is made once, by rule, and whatever a client sends either is exactly that id or
//! is refused by name.

use proptest::prelude::*;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use ws_manager_pool::id::{
    IdError, IdGenerator, IsolationKey, RequestId, RunId, ThreadId, UserContextIds, UserExecutionContext,
    UserId,
};

const HEX: &str = "0123456789abcdef0123456789abcdef";
const MEGABYTE: usize = 1 << 20;

fn fresh_ids() -> UserContextIds {
    IdGenerator::user_context_ids("ada", "chat")
}

fn context(user: &str, thread: &str) -> UserExecutionContext {
    let ids = fresh_ids().with_client_thread(thread).expect("a valid thread");
    UserExecutionContext::from_websocket_request(user, ids).expect("a valid user")
}

fn key(user: &str, thread: &str) -> IsolationKey {
    context(user, thread).isolation_key()
}

// User ids

#[test]
fn an_empty_user_id_is_refused_and_named() {
    let refusal = UserExecutionContext::from_websocket_request("", fresh_ids()).expect_err("empty");
    assert_eq!(refusal, IdError::UserIdEmpty);
    assert_eq!(refusal.part(), "user_id");
    assert_eq!(refusal.to_string(), "user_id is empty: send 1 to 128 bytes");
}

#[test]
fn a_user_id_has_at_most_128_bytes() {
    assert_eq!(UserId::new("u".repeat(128)).map(|user| user.as_str().len()), Ok(128));
    assert_eq!(UserId::new("u".repeat(129)), Err(IdError::UserIdTooLong { bytes: 129 }));
}

#[test]
fn the_length_of_a_user_id_is_measured_in_bytes_not_characters() {
    // 4 bytes each: 32 fit, the 33rd does not.
    assert!(UserId::new("🦀".repeat(32)).is_ok());
    assert_eq!(UserId::new("🦀".repeat(33)), Err(IdError::UserIdTooLong { bytes: 132 }));
    // 2 bytes each, with one byte to shift the boundary into the middle of a character.
    assert!(UserId::new("é".repeat(64)).is_ok());
    assert_eq!(UserId::new(format!("u{}", "é".repeat(64))), Err(IdError::UserIdTooLong { bytes: 129 }));
}

#[test]
fn a_user_id_of_a_megabyte_is_refused_without_repeating_it() {
    let refusal = UserId::new("x".repeat(MEGABYTE)).expect_err("too long");
    assert_eq!(refusal, IdError::UserIdTooLong { bytes: MEGABYTE });
    assert!(refusal.to_string().starts_with("user_id has 1048576 bytes: send 1 to 128 bytes"));
    assert!(refusal.to_string().len() < 200);
}

#[test]
fn every_control_character_in_a_user_id_is_refused_and_shown_as_its_code() {
    let c0_del_c1 = ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}');
    for character in c0_del_c1 {
        let refusal = UserId::new(format!("é{character}b")).expect_err("control character");
        assert_eq!(refusal, IdError::UserIdControlCharacter { character, at: 2 });
        let shown = refusal.to_string();
        assert!(shown.contains(&format!("U+{:04X} at byte 2", u32::from(character))), "{shown}");
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
}

#[test]
fn a_control_character_is_found_at_either_end_of_a_user_id() {
    let at = |at, character| Err(IdError::UserIdControlCharacter { character, at });
    assert_eq!(UserId::new("\nada"), at(0, '\n'));
    assert_eq!(UserId::new("ada\0"), at(3, '\0'));
    assert_eq!(UserId::new("\u{7f}"), at(0, '\u{7f}'));
    assert_eq!(UserId::new(format!("{}\r", "u".repeat(127))), at(127, '\r'));
}

#[test]
fn a_user_id_may_be_of_any_script_and_is_kept_as_it_came() {
    let ids = [
        "ada",
        "مريم",
        "用户七",
        "ユーザー",
        "Ωμέγα",
        "👩‍👩‍👧",
        "e\u{301}",
        " ",
        " ada ",
        "a:b",
        ":",
        "::",
        "%00",
        "%",
        "a%3Ab",
        "../../etc/passwd",
        "'; DROP TABLE users; --",
        "<script>",
        "{\"a\":1}",
        "\u{202e}ada",
        "\u{200b}",
        "\u{feff}ada",
        "\u{fffd}",
        "\u{10ffff}",
    ];
    for id in ids {
        let user = UserId::new(id).expect(id);
        assert_eq!(user.as_str(), id);
        assert_eq!(user.to_string(), id);
        assert_eq!(id.parse(), Ok(user));
    }
    let distinct: HashSet<_> = ids.iter().map(|id| UserId::new(id).expect(id)).collect();
    assert_eq!(distinct.len(), ids.len());
}

#[test]
fn user_ids_are_never_folded_trimmed_or_normalised() {
    for (one, other) in
        [("ada", "Ada"), ("ada", "ada "), ("\u{e9}", "e\u{301}"), ("a:b", "a%3Ab"), ("ß", "ss")]
    {
        assert_ne!(UserId::new(one), UserId::new(other), "{one} {other}");
    }
}

#[test]
fn user_ids_compare_by_content_wherever_they_are_stored() {
    let hasher = RandomState::new();
    // Inline up to 40 bytes, shared from 41.
    for length in [1, 39, 40, 41, 42, 127, 128] {
        let text = "u".repeat(length);
        let (one, other) = (UserId::new(&text).expect("valid"), UserId::new(&text).expect("valid"));
        assert_eq!(one, other);
        assert_eq!(one, one.clone());
        assert_eq!(hasher.hash_one(&one), hasher.hash_one(&other));
        assert_eq!(one.as_str(), text);
    }
    let mut sorted: Vec<_> =
        ["b", "a:b", "a", &"a".repeat(49)].iter().map(|id| UserId::new(id).expect("valid")).collect();
    sorted.sort();
    let texts: Vec<_> = sorted.iter().map(UserId::as_str).collect();
    assert_eq!(texts, ["a", "a:b", &"a".repeat(49), "b"]);
}

#[test]
fn different_ids_hash_apart() {
    let hasher = RandomState::new();
    let hash = |number: usize| hasher.hash_one(key(&format!("user {number}"), &format!("thread_{number}")));
    let hashes: HashSet<_> = (0..1_000).map(hash).collect();
    // 64 bits each: a single collision among a thousand would already be one chance in 10^13.
    assert!(hashes.len() >= 999, "{} of 1000", hashes.len());
}

// Thread ids

#[test]
fn a_thread_id_without_its_prefix_is_refused_and_named() {
    for text in
        ["", "7", "thread", "thread-7", "Thread_7", "THREAD_7", " thread_7", "xthread_7", "\0thread_7", HEX]
    {
        let refusal = ThreadId::from_client(text).expect_err(text);
        assert_eq!(refusal, IdError::ThreadIdPrefix, "{text:?}");
        assert_eq!(refusal.part(), "thread_id");
        assert!(refusal.to_string().starts_with("thread_id does not start with `thread_`"), "{refusal}");
        assert!(refusal.to_string().contains("1 to 120 of [A-Za-z0-9_.-]"), "{refusal}");
    }
}

#[test]
fn a_thread_id_that_is_only_its_prefix_is_refused() {
    let refusal = ThreadId::from_client("thread_").expect_err("nothing after the prefix");
    assert_eq!(refusal, IdError::ThreadIdEmpty);
    assert!(refusal.to_string().starts_with("thread_id has nothing after `thread_`"), "{refusal}");
}

#[test]
fn at_most_120_bytes_follow_the_prefix_of_a_thread_id() {
    let of = |length| ThreadId::from_client(&format!("thread_{}", "t".repeat(length)));
    assert!(of(1).is_ok());
    assert_eq!(of(120).map(|thread| thread.to_string().len()), Ok(127));
    assert_eq!(of(121), Err(IdError::ThreadIdTooLong { bytes: 121 }));
    let wide = ThreadId::from_client(&format!("thread_{}", "é".repeat(61)));
    assert_eq!(wide, Err(IdError::ThreadIdTooLong { bytes: 122 }));
}

#[test]
fn a_thread_id_of_a_megabyte_is_refused_without_repeating_it() {
    let refusal = ThreadId::from_client(&format!("thread_{}", "x".repeat(MEGABYTE))).expect_err("too long");
    assert_eq!(refusal, IdError::ThreadIdTooLong { bytes: MEGABYTE });
    assert!(refusal.to_string().len() < 250);
    assert_eq!(ThreadId::from_client(&"x".repeat(MEGABYTE)), Err(IdError::ThreadIdPrefix));
}

#[test]
fn a_thread_id_is_made_of_ascii_letters_digits_underscore_dot_and_hyphen() {
    for character in ('\0'..='\u{ff}').chain(['٣', '七', 'é', '🦀', '\u{301}', 'Ａ', '\u{202e}', '\u{200b}'])
    {
        let text = format!("thread_a{character}b");
        let allowed = matches!(character, 'A'..='Z' | 'a'..='z' | '0'..='9' | '_' | '.' | '-');
        match ThreadId::from_client(&text) {
            Ok(thread) => {
                assert!(allowed, "{character:?} was accepted");
                assert_eq!(thread.to_string(), text);
            }
            Err(refusal) => {
                assert!(!allowed, "{character:?} was refused");
                assert_eq!(refusal, IdError::ThreadIdCharacter { character, at: 8 });
                let shown = refusal.to_string();
                assert!(shown.contains(&format!("U+{:04X} at byte 8", u32::from(character))), "{shown}");
                assert!(shown.is_ascii() && !shown.contains(char::is_control), "{shown:?}");
            }
        }
    }
}

#[test]
fn a_thread_id_holds_no_path_query_or_escape() {
    for (text, character, at) in [
        ("thread_../../etc/passwd", '/', 9),
        ("thread_..\\..\\boot.ini", '\\', 9),
        ("thread_%2e%2e%2f", '%', 7),
        ("thread_7%00", '%', 8),
        ("thread_7&user=eve", '&', 8),
        ("thread_7:thread_8", ':', 8),
        ("thread_7\r\nx-user: eve", '\r', 8),
        ("thread_7 ", ' ', 8),
    ] {
        assert_eq!(
            ThreadId::from_client(text),
            Err(IdError::ThreadIdCharacter { character, at }),
            "{text:?}"
        );
    }
}

#[test]
fn a_generated_thread_that_a_client_brings_back_is_that_very_thread() {
    let ids = fresh_ids();
    let generated = ids.thread_id();
    let brought = ThreadId::from_client(&generated.to_string()).expect("what we gave");
    assert_eq!(&brought, generated);
    let hasher = RandomState::new();
    assert_eq!(hasher.hash_one(&brought), hasher.hash_one(generated));
    assert!(HashSet::from([brought]).contains(generated));
}

#[test]
fn a_thread_id_that_only_resembles_a_generated_one_is_another_thread() {
    let generated = ThreadId::from_client(&format!("thread_{HEX}")).expect("valid");
    let digits = HEX.trim_start_matches('0');
    for name in
        [HEX.to_uppercase(), digits.to_owned(), format!("0{HEX}"), format!("_{digits}"), format!("-{digits}")]
    {
        let text = format!("thread_{name}");
        let thread = ThreadId::from_client(&text).expect("valid");
        assert_ne!(thread, generated);
        assert_eq!(thread.to_string(), text);
    }
}

#[test]
fn thread_ids_compare_by_content_wherever_they_are_stored() {
    let hasher = RandomState::new();
    for length in [1, 40, 41, 42, 120] {
        let text = format!("thread_{}", "t".repeat(length));
        let (one, other) = (ThreadId::from_client(&text), text.parse());
        assert_eq!(one, other);
        assert_eq!(hasher.hash_one(one.expect("valid")), hasher.hash_one(other.expect("valid")));
    }
}

// Run and request ids

#[test]
fn run_and_request_ids_are_read_back_from_exactly_what_they_show() {
    let ids = fresh_ids();
    assert_eq!(ids.run_id().to_string().parse(), Ok(ids.run_id()));
    assert_eq!(ids.request_id().to_string().parse(), Ok(ids.request_id()));
    for text in [HEX, "00000000000000000000000000000000", "ffffffffffffffffffffffffffffffff"] {
        assert_eq!(text.parse::<RunId>().map(|run| run.to_string()).as_deref(), Ok(text));
        assert_eq!(text.parse::<RequestId>().map(|request| request.to_string()).as_deref(), Ok(text));
    }
}

#[test]
fn anything_but_32_lower_case_hex_digits_is_no_run_or_request_id() {
    let megabyte = "0".repeat(MEGABYTE);
    let refused = [
        "",
        "0",
        &HEX[1..],
        "0123456789abcdef0123456789abcdef0",
        "0123456789ABCDEF0123456789ABCDEF",
        "+123456789abcdef0123456789abcdef",
        "-123456789abcdef0123456789abcdef",
        "0x23456789abcdef0123456789abcdef",
        "01234567-89ab-cdef-0123-456789ab",
        " 123456789abcdef0123456789abcde ",
        "g123456789abcdef0123456789abcdef",
        "٣٣٣٣٣٣٣٣٣٣٣٣٣٣٣٣",
        &megabyte,
    ];
    for text in refused {
        assert_eq!(text.parse::<RunId>(), Err(IdError::RunIdFormat));
        assert_eq!(text.parse::<RequestId>(), Err(IdError::RequestIdFormat));
    }
    assert_eq!(IdError::RunIdFormat.to_string(), "run_id is malformed: send 32 lower-case hex digits");
    assert_eq!(
        IdError::RequestIdFormat.to_string(),
        "request_id is malformed: send 32 lower-case hex digits"
    );
}

// The generator

#[test]
fn a_generated_thread_id_is_the_prefix_and_its_run_id() {
    let ids = fresh_ids();
    let run = ids.run_id().to_string();
    assert_eq!(run.len(), 32);
    assert!(run.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{run}");
    assert_eq!(ids.thread_id().to_string(), format!("thread_{run}"));
}

#[test]
fn generated_ids_are_unique_over_100_000_on_two_threads() {
    const EACH: usize = 50_000;
    let make = || (0..EACH).map(|_| fresh_ids()).collect::<Vec<_>>();
    let made: Vec<_> = std::thread::scope(|scope| {
        let makers = [scope.spawn(make), scope.spawn(make)];
        makers.into_iter().flat_map(|maker| maker.join().expect("no panic")).collect()
    });
    // Runs and requests together: neither repeats, and no request is a run.
    let bits: HashSet<_> =
        made.iter().flat_map(|ids| [ids.run_id().to_string(), ids.request_id().to_string()]).collect();
    assert_eq!(bits.len(), 4 * EACH);
    let threads: HashSet<_> = made.iter().map(UserContextIds::thread_id).collect();
    assert_eq!(threads.len(), 2 * EACH);
}

#[test]
fn user_and_operation_are_part_of_no_id() {
    for (user, operation) in [("zulu", "quux"), ("", ""), ("a:b\0", "close\n"), ("thread_", "\u{202e}")] {
        let ids = IdGenerator::user_context_ids(user, operation);
        assert_eq!(ids.thread_id().to_string(), format!("thread_{}", ids.run_id()));
        assert_eq!(ids.request_id().to_string().len(), 32);
    }
}

#[test]
fn a_reconnecting_client_keeps_its_thread_and_gets_a_fresh_run() {
    let first = UserExecutionContext::from_websocket_request("ada", fresh_ids()).expect("valid");
    let thread = first.thread_id().to_string();

    let ids = IdGenerator::user_context_ids("ada", "reconnect");
    let (run, request) = (ids.run_id(), ids.request_id());
    let ids = ids.with_client_thread(&thread).expect("what we gave");
    let second = UserExecutionContext::from_websocket_request("ada", ids).expect("valid");

    assert_eq!(second.thread_id(), first.thread_id());
    assert_eq!(second.isolation_key(), first.isolation_key());
    assert_eq!((second.run_id(), second.request_id()), (run, request));
    assert_ne!(second.run_id(), first.run_id());
    assert_ne!(second.request_id(), first.request_id());
}

#[test]
fn a_refused_client_thread_is_an_error_and_no_fallback() {
    assert_eq!(fresh_ids().with_client_thread(""), Err(IdError::ThreadIdPrefix));
    assert_eq!(fresh_ids().with_client_thread("thread_"), Err(IdError::ThreadIdEmpty));
    let refusal = fresh_ids().with_client_thread("thread_a/b");
    assert_eq!(refusal, Err(IdError::ThreadIdCharacter { character: '/', at: 8 }));
}

// The context and its isolation key

#[test]
fn a_context_shows_what_it_was_made_of() {
    let ids = fresh_ids();
    let (thread, run, request) = (ids.thread_id().clone(), ids.run_id(), ids.request_id());
    let context = UserExecutionContext::from_websocket_request("用户:7", ids).expect("valid");
    assert_eq!(context.user_id().as_str(), "用户:7");
    assert_eq!(context.thread_id(), &thread);
    assert_eq!((context.run_id(), context.request_id()), (run, request));
    assert_eq!(context.isolation_key(), IsolationKey::new(context.user_id().clone(), thread));
    assert_eq!(context.clone(), context);
}

#[test]
fn an_isolation_key_is_shown_as_user_and_thread() {
    let key = key("ada", "thread_7");
    assert_eq!(key.to_string(), "ada:thread_7");
    assert_eq!(key.user_id().as_str(), "ada");
    assert_eq!(key.thread_id().to_string(), "thread_7");
}

#[test]
fn an_isolation_key_holds_neither_run_nor_request() {
    let (one, other) = (context("ada", "thread_7"), context("ada", "thread_7"));
    assert_ne!(one.run_id(), other.run_id());
    assert_eq!(one.isolation_key(), other.isolation_key());
    let hasher = RandomState::new();
    assert_eq!(hasher.hash_one(one.isolation_key()), hasher.hash_one(other.isolation_key()));
}

#[test]
fn users_with_a_colon_never_meet_users_without() {
    let users =
        ["a", "a:", ":a", "a:b", "b", "a:b:", "a:thread_b", "a:thread_b:thread_b", "thread_b", "thread_b:a"];
    let threads = ["thread_b", "thread_a", "thread_thread_b", "thread_b-a"];
    let keys: HashSet<_> =
        users.iter().flat_map(|user| threads.iter().map(|thread| key(user, thread))).collect();
    assert_eq!(keys.len(), users.len() * threads.len());
}

#[test]
fn two_users_with_the_same_thread_have_different_keys() {
    assert_ne!(key("ada", "thread_7"), key("eve", "thread_7"));
    assert_ne!(key("ada", "thread_7"), key("ada", "thread_8"));
    assert_ne!(key("ada", "thread_7"), key("ADA", "thread_7"));
}

// Errors and output

#[test]
fn an_error_is_small_copyable_and_says_what_to_send() {
    fn is_an_error<E: std::error::Error + Copy + Send + Sync + 'static>(_: E) {}
    is_an_error(IdError::UserIdEmpty);
    assert!(size_of::<IdError>() <= 16);
    for error in [
        IdError::UserIdEmpty,
        IdError::UserIdTooLong { bytes: usize::MAX },
        IdError::UserIdControlCharacter { character: '\0', at: 127 },
        IdError::ThreadIdPrefix,
        IdError::ThreadIdEmpty,
        IdError::ThreadIdTooLong { bytes: usize::MAX },
        IdError::ThreadIdCharacter { character: char::MAX, at: 126 },
        IdError::RunIdFormat,
        IdError::RequestIdFormat,
    ] {
        let shown = error.to_string();
        assert!(shown.starts_with(error.part()) && shown.contains(": send "), "{shown}");
        assert!(shown.is_ascii() && shown.len() < 250, "{shown}");
    }
}

#[test]
fn ids_are_compact() {
    assert!(size_of::<UserId>() <= 48);
    assert!(size_of::<ThreadId>() <= 48);
    assert_eq!((size_of::<RunId>(), size_of::<RequestId>()), (16, 16));
    assert!(size_of::<UserExecutionContext>() <= 128);
}

#[cfg(feature = "serde")]
#[test]
fn ids_are_serialised_as_the_text_they_show() {
    let context = context("a:\"b\"", "thread_7");
    let run = context.run_id();
    let value = serde_json::json!({
        "user": context.user_id(),
        "thread": context.thread_id(),
        "run": run,
        "request": context.request_id(),
        "key": context.isolation_key(),
        "generated": fresh_ids().with_client_thread(&format!("thread_{HEX}")).expect("valid").thread_id(),
    });
    assert_eq!(
        value,
        serde_json::json!({
            "user": "a:\"b\"",
            "thread": "thread_7",
            "run": run.to_string(),
            "request": context.request_id().to_string(),
            "key": "a:\"b\":thread_7",
            "generated": format!("thread_{HEX}"),
        })
    );
}

// Any text

/// Up to 160 characters of any kind, control characters included.
fn any_text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..160).prop_map(String::from_iter)
}

/// Mostly what a thread id may hold, so that a good share is accepted.
fn nearly_a_thread() -> impl Strategy<Value = String> {
    let allowed =
        proptest::sample::select(('a'..='z').chain('0'..='9').chain("AZ_.-".chars()).collect::<Vec<_>>());
    let name = proptest::collection::vec(prop_oneof![200 => allowed, 1 => any::<char>()], 0..130);
    name.prop_map(|name| format!("thread_{}", String::from_iter(name)))
}

proptest! {
    #[test]
    fn any_text_is_exactly_a_user_id_or_an_error(text in any_text()) {
        let is_valid = (1..=128).contains(&text.len()) && !text.contains(char::is_control);
        match UserId::new(&text) {
            Ok(user) => {
                prop_assert!(is_valid);
                prop_assert_eq!(user.as_str(), &text);
                prop_assert_eq!(user.to_string(), text);
            }
            Err(refusal) => {
                prop_assert!(!is_valid);
                prop_assert!(refusal.to_string().is_ascii());
            }
        }
    }

    #[test]
    fn any_text_is_exactly_a_thread_id_or_an_error(text in prop_oneof![any_text(), nearly_a_thread()]) {
        let is_valid = text.strip_prefix("thread_").is_some_and(|name| {
            (1..=120).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        });
        match text.parse::<ThreadId>() {
            Ok(thread) => {
                prop_assert!(is_valid);
                prop_assert_eq!(thread.to_string(), text);
            }
            Err(refusal) => {
                prop_assert!(!is_valid);
                prop_assert!(refusal.to_string().is_ascii());
            }
        }
    }

    #[test]
    fn thread_ids_are_equal_exactly_when_their_texts_are(
        bits in any::<u128>(), other_bits in any::<u128>(), name in "[a-f0-9]{1,40}",
    ) {
        let texts = [format!("{bits:032x}"), format!("{other_bits:032x}"), format!("{bits:032X}"), name]
            .map(|name| format!("thread_{name}"));
        for one in &texts {
            for other in &texts {
                prop_assert_eq!(one == other, ThreadId::from_client(one) == ThreadId::from_client(other));
            }
        }
    }

    #[test]
    fn any_text_is_a_run_id_or_an_error(text in prop_oneof![any_text(), "[a-f0-9]{31,33}", "[A-Fa-f0-9+-]{32}"]) {
        let is_valid = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text.parse::<RunId>() {
            Ok(run) => {
                prop_assert!(is_valid);
                prop_assert_eq!(run.to_string(), text);
            }
            Err(_) => prop_assert!(!is_valid),
        }
    }
}
