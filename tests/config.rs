//! The configuration comes from its layers as they say, each mistake is refused with its name and its
//! place, and no field is forgotten.

use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use ws_manager_pool::{
    AtLimit, Config, ConfigError, ConfigLayers, ConfigOrigin, Environment, Pool, ResolvedConfig,
};

#[path = "../fuzz/scenarios/config.rs"]
mod scenario;

/// (field, values that it may have, as a file writes them, values that it may not have). The first differ
/// from production's.
type Example = (&'static str, &'static [&'static str], &'static [&'static str]);

const TIMES: &[&str] = &["\"1ms\"", "\"1min 1s\"", "\"0.5s\""];
const NO_TIMES: &[&str] =
    &["20", "\"20\"", "\"0s\"", "\"999us\"", "\"-1s\"", "\"\"", "\"off\"", "\"soon\"", "true"];
const SLOTS: &[&str] = &["1", "2_147_483_648", "0x10"];
const NO_SLOTS: &[&str] = &["0", "2147483649", "-1", "1.0", "\"5\"", "[5]", "99999999999999999999999999"];
const BYTES: &[&str] = &["1", "9223372036854775807"];
const NO_BYTES: &[&str] = &["-1", "9223372036854775808", "\"1KiB\"", "1e3"];

const NO_BYTES_OR_NONE: &[&str] = &["0", "-1", "9223372036854775808", "\"1KiB\"", "1e3"];

const EXAMPLES: &[Example] = &[
    ("environment", &["\"ci\"", "\"staging\"", "\"development\""], &["\"CI\"", "\"\"", "1", "\"live\""]),
    ("capacity", SLOTS, NO_SLOTS),
    ("max_managers_per_user", SLOTS, NO_SLOTS),
    ("duplicates", &["\"reject\"", "\"allow\""], &["\"evict_oldest\"", "1"]),
    ("at_limit", &["\"evict_oldest\"", "\"evict_idlest\""], &["\"EvictOldest\"", "false"]),
    ("outbound_messages", &["0", "65", "2147483648"], &["-1", "2147483649", "\"64\""]),
    ("outbound_bytes", &["0", "1", "9223372036854775807"], NO_BYTES),
    ("outbound_message_bytes", BYTES, NO_BYTES),
    ("outbound_overflow", &["\"drop_oldest\"", "\"disconnect\""], &["\"drop\"", "\"Disconnect\"", "0"]),
    ("outbound_high_water", &["1", "0.26"], &["0", "1.1", "nan", "0.25"]),
    ("outbound_low_water", &["0", "0.74"], &["-0.1", "0.75", "1", "nan"]),
    ("outbound_pool_bytes", BYTES, NO_BYTES_OR_NONE),
    ("inbound_message_bytes", BYTES, NO_BYTES_OR_NONE),
    ("inbound_frame_bytes", BYTES, NO_BYTES_OR_NONE),
    ("inbound_pool_bytes", BYTES, NO_BYTES_OR_NONE),
    ("replay_events", &["1", "2147483648"], &["-1", "2147483649", "\"64\"", "\"off\""]),
    ("replay_bytes", BYTES, NO_BYTES_OR_NONE),
    ("replay_age", TIMES, NO_TIMES),
    ("replay_pool_bytes", BYTES, NO_BYTES_OR_NONE),
    ("max_unauthenticated", SLOTS, NO_SLOTS),
    ("reservation_deadline", TIMES, NO_TIMES),
    ("heartbeat_interval", TIMES, NO_TIMES),
    ("heartbeat_timeout", TIMES, NO_TIMES),
    ("message_timeout", TIMES, NO_TIMES),
    ("close_timeout", TIMES, NO_TIMES),
    ("drain_timeout", TIMES, NO_TIMES),
    ("drain_rate", SLOTS, NO_SLOTS),
    ("max_lifetime", &["\"1ms\"", "\"12h\""], &["\"Off\"", "false", "300", "\"0s\""]),
    ("deadline_jitter", &["0", "0.99"], &["-0.1", "1", "nan"]),
    ("proactive_threshold", &["1", "0.01", "1e-3"], &["0", "-0.5", "1.01", "nan", "inf", "\"0.5\""]),
    ("idle_background", &["\"off\"", "\"5min\"", "\"30days\""], &["\"Off\"", "false", "300", "\"0s\""]),
    ("idle_proactive", &["\"1ms\"", "\"10min\""], NO_TIMES),
    ("idle_emergency", &["\"1ms\"", "\"10min\""], NO_TIMES),
    ("errored_after", TIMES, NO_TIMES),
    ("run_limit", TIMES, &["\"1801s\"", "\"0s\"", "1800"]),
    ("background_interval", &["\"1ms\"", "\"1h\""], NO_TIMES),
    ("background_budget", TIMES, NO_TIMES),
    ("emergency_budget", TIMES, NO_TIMES),
    ("emergency_attempts", &["1", "2"], &["0", "4", "-1", "\"3\""]),
    ("emergency_forced", &["0", "4"], &["6", "-1", "2.0"]),
    ("sample_interval", TIMES, NO_TIMES),
    ("level_info", &["0.1", "0.59"], &["0", "-1", "1.1", "nan", "\"low\""]),
    ("level_warning", &["0.41", "0.79"], &["0", "1.1", "nan", "0.4", "0.8"]),
    ("level_critical", &["0.61", "0.89"], &["0", "1.1", "nan", "0.6", "0.9"]),
    ("level_emergency", &["0.81", "1"], &["0", "1.1", "nan", "0.8"]),
    ("level_hysteresis", &["0", "0.39"], &["-0.1", "0.4", "1", "nan"]),
    ("shrink_target", &["1", "0.01"], &["0", "1.1", "-inf"]),
    ("suspect_age", TIMES, NO_TIMES),
    ("suspect_silence", &["\"1ms\"", "\"1h\""], NO_TIMES),
];

const CHOICES: &[&str] = &["environment", "duplicates", "at_limit", "outbound_overflow"];

fn file(text: impl Into<String>) -> ConfigLayers {
    layers(text, &[])
}

fn layers(text: impl Into<String>, variables: &[(&str, &str)]) -> ConfigLayers {
    ConfigLayers::new().toml("pool.toml", text).variables(variables.iter().copied())
}

fn resolved(layers: ConfigLayers) -> ResolvedConfig {
    layers.resolve().unwrap_or_else(|error| panic!("{error}"))
}

fn refused(layers: ConfigLayers) -> ConfigError {
    layers.load().expect_err("it is refused")
}

fn variable(field: &str) -> String {
    format!("WS_POOL_{}", field.to_uppercase())
}

/// As a variable writes it: without the quotes, and in decimal.
fn bare(value: &str) -> &str {
    if value == "0x10" { "16" } else { value.trim_matches('"') }
}

/// The fields of the struct itself, those of its `outbound` in one row with them.
fn serialized(config: &Config) -> BTreeMap<String, Value> {
    let Value::Object(fields) = serde_json::to_value(config).unwrap() else { panic!("a struct") };
    let flat = fields.into_iter().flat_map(|(name, value)| match value {
        Value::Object(inner) if name == "outbound" => {
            inner.into_iter().map(|(field, value)| (format!("outbound_{field}"), value)).collect()
        }
        value => vec![(name, value)],
    });
    flat.collect()
}

fn changed(config: &Config) -> Vec<String> {
    let preset = serialized(&Config::preset(config.environment));
    let fields = serialized(config).into_iter().filter(|(name, value)| preset[name] != *value);
    fields.map(|(name, _)| name).collect()
}

#[test]
fn no_field_of_the_configuration_is_forgotten() {
    let of_the_struct: BTreeSet<_> =
        serialized(&Config::preset(Environment::Production)).into_keys().collect();
    let preset = resolved(file(""));
    let of_the_layers: BTreeSet<_> = preset.fields().map(|(field, ..)| field.to_owned()).collect();
    assert_eq!(of_the_layers, of_the_struct);
    let of_the_examples: BTreeSet<_> = EXAMPLES.iter().map(|(field, ..)| (*field).to_owned()).collect();
    assert_eq!(of_the_examples, of_the_struct);
}

#[test]
fn each_field_is_set_by_a_file_and_by_a_variable() {
    for (field, values, _) in EXAMPLES {
        for value in *values {
            let by_file = resolved(file(format!("# first\n{field} = {value}")));
            let path = PathBuf::from("pool.toml");
            assert_eq!(by_file.origin(field), Some(ConfigOrigin::File { path, line: 2 }));

            let name = variable(field);
            let by_variable = resolved(layers("", &[(&name, bare(value))]));
            assert_eq!(by_variable.origin(field), Some(ConfigOrigin::Variable(name)));
            assert_eq!(by_file.config(), by_variable.config(), "{field} = {value}");

            if CHOICES.contains(field) {
                assert_eq!(serialized(by_file.config())[*field], bare(value), "as serde writes it");
            }
            // The whole preset changes with its environment.
            let alone = if *field == "environment" { vec![] } else { vec![*field] };
            assert_eq!(changed(by_file.config()), alone, "{field} = {value}");
        }
    }
}

#[test]
fn each_value_that_is_not_allowed_is_refused_with_its_name_and_place() {
    for (field, _, values) in EXAMPLES {
        for value in *values {
            let error = refused(file(format!("\n\n{field} = {value}")));
            let text = error.to_string();
            // A level beyond its neighbour's may be named as either of the two.
            assert!(error.field() == *field || text.contains(field), "{text}");
            assert!(text.contains("(pool.toml, line 3)"), "{field} = {value}: {text}");
            assert!(text.contains("set it to "), "{text}");
        }
    }
}

#[test]
fn a_variable_that_is_not_allowed_is_refused_with_its_name() {
    for (field, _, values) in EXAMPLES {
        // Only text tells a variable's number from its text: 5 and "5" are one there.
        let values =
            values.iter().map(|value| bare(value)).filter(|value| !["5", "64", "3", "0.5"].contains(value));
        for value in values.chain(["", " ", "\u{0}", "a value"]) {
            let name = variable(field);
            let error = refused(layers("", &[(&name, value)]));
            assert!(error.to_string().contains(&format!("({name})")), "{field}={value:?}: {error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![b'5', 0xFF]);
    let error = refused(ConfigLayers::new().variables([("WS_POOL_CAPACITY", value)]));
    assert_eq!(error.field(), "capacity");
    assert_eq!(error.origin(), Some(&ConfigOrigin::Variable("WS_POOL_CAPACITY".to_owned())));
}

#[test]
fn the_texts_say_what_where_and_what_is_allowed() {
    let text = |layers: ConfigLayers| refused(layers).to_string();
    assert_eq!(
        text(file("capacity = 0")),
        "capacity is 0 (pool.toml, line 1): set it to a whole number from 1 to 2147483648"
    );
    assert_eq!(
        text(layers("", &[("WS_POOL_HEARTBEAT_INTERVAL", "20")])),
        "heartbeat_interval is \"20\" (WS_POOL_HEARTBEAT_INTERVAL): set it to a time such as \"20s\", at least 1 ms"
    );
    assert_eq!(
        text(file("at_limit = [1, 2]")),
        "at_limit is an array (pool.toml, line 1): set it to one of reject, evict_oldest, evict_idlest"
    );
    assert_eq!(
        text(file("capacity = 5\nmax_manager_per_user = 5")),
        "\"max_manager_per_user\" (pool.toml, line 2) is no field of the configuration: the nearest is \
         max_managers_per_user"
    );
    assert_eq!(
        text(layers("", &[("WS_POOL_CAPCITY", "5")])),
        "\"WS_POOL_CAPCITY\" is no field of the configuration: the nearest is WS_POOL_CAPACITY"
    );
    assert_eq!(
        text(layers("idle_proactive = \"2min\"", &[("WS_POOL_IDLE_BACKGROUND", "60s")])),
        "idle_proactive is 120s (pool.toml, line 1): set it to at most idle_background, which is 60s \
         (WS_POOL_IDLE_BACKGROUND)"
    );
    assert_eq!(
        text(file("level_info = 0.7")),
        "level_warning is 0.6 (preset of production): set it to more than level_info, which is 0.7 \
         (pool.toml, line 1)"
    );
    let syntax = refused(file("capacity = 5\ncapacity 6\n"));
    assert!(
        syntax.to_string().starts_with("the configuration (pool.toml, line 2) is no valid TOML: "),
        "{syntax}"
    );
    assert_eq!(syntax.field(), "");
}

#[test]
fn a_stronger_layer_wins_and_the_rest_is_the_preset_of_the_named_environment() {
    let layers = ConfigLayers::new()
        .environment(Environment::Development)
        .toml(
            "first.toml",
            "environment = \"staging\"\ncapacity = 1\nmax_managers_per_user = 2\nat_limit = \"evict_oldest\"",
        )
        .toml("second.toml", "environment = \"ci\"\ncapacity = 3")
        .variables([("WS_POOL_MAX_MANAGERS_PER_USER", "4")]);
    let resolved = resolved(layers);
    let mut expected = Config::preset(Environment::Ci);
    (expected.capacity, expected.max_managers_per_user, expected.at_limit) = (3, 4, AtLimit::EvictOldest);
    assert_eq!(resolved.config(), &expected);
    let place = |path: &str, line| Some(ConfigOrigin::File { path: path.into(), line });
    assert_eq!(resolved.origin("environment"), place("second.toml", 1));
    assert_eq!(resolved.origin("capacity"), place("second.toml", 2));
    assert_eq!(resolved.origin("at_limit"), place("first.toml", 4));
    assert_eq!(resolved.origin("close_timeout"), Some(ConfigOrigin::Preset(Environment::Ci)));
    assert_eq!(resolved.origin("no_such_field"), None);
}

#[test]
fn code_is_the_strongest_layer() {
    let config =
        layers("capacity = 7\nmax_managers_per_user = 3", &[("WS_POOL_CAPACITY", "8")]).load().unwrap();
    let pool: Pool =
        Pool::builder().name("config-code").config(config).max_managers_per_user(2).build().unwrap();
    assert_eq!((pool.config().capacity, pool.config().max_managers_per_user), (8, 2));
}

#[test]
fn the_environment_given_in_code_yields_to_a_variable() {
    let none: [(&str, &str); 0] = [];
    let layers = ConfigLayers::new().environment(Environment::Ci);
    assert_eq!(layers.clone().variables(none).load(), Ok(Config::preset(Environment::Ci)));
    let layers = layers.variables([("WS_POOL_ENVIRONMENT", "staging")]);
    assert_eq!(layers.load(), Ok(Config::preset(Environment::Staging)));
}

#[test]
fn a_mistake_is_found_where_a_stronger_layer_covers_it() {
    let error = refused(layers("capacity = 0", &[("WS_POOL_CAPACITY", "5")]));
    assert_eq!((error.field(), error.to_string().contains("pool.toml, line 1")), ("capacity", true));
    let error = refused(layers("environment = \"live\"", &[("WS_POOL_ENVIRONMENT", "ci")]));
    assert_eq!(error.field(), "environment");
}

#[test]
fn an_idle_time_that_nobody_set_is_shortened_with_the_background_s() {
    let minute = Duration::from_secs(60);
    let shortened = resolved(layers("", &[("WS_POOL_IDLE_BACKGROUND", "60s")]));
    let config = shortened.config();
    assert_eq!((config.idle_proactive, config.idle_emergency), (minute, minute));
    let origin = Some(ConfigOrigin::Variable("WS_POOL_IDLE_BACKGROUND".to_owned()));
    assert_eq!(shortened.origin("idle_proactive"), origin);

    let partly = resolved(file("idle_background = \"4min\"\nidle_proactive = \"1min\""));
    let config = partly.config();
    assert_eq!((config.idle_proactive, config.idle_emergency), (minute, 4 * minute));

    let longer = resolved(file("idle_background = \"1h\""));
    assert_eq!(changed(longer.config()), ["idle_background"], "nothing is made longer");
}

#[test]
fn two_spellings_of_one_variable_are_a_mistake() {
    let either = resolved(layers("", &[("ws_pool_Capacity", "5")]));
    assert_eq!(either.config().capacity, 5);
    for pair in [["WS_POOL_CAPACITY", "ws_pool_capacity"], ["WS_POOL_CAPACITY", "WS_POOL_CAPACITY"]] {
        let error = refused(layers("", &pair.map(|name| (name, "5"))));
        let expected = format!("capacity is set twice, by {} and by {}: keep one", pair[0], pair[1]);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn only_variables_with_the_prefix_count() {
    let others =
        [("PATH", "/bin"), ("WS_POOLS_CAPACITY", "x"), ("WS_POOL", "x"), ("CAPACITY", "x"), ("ä", "x")];
    assert_eq!(layers("", &others).load(), Ok(Config::preset(Environment::Production)));
    let chat = [("CHAT_CAPACITY", "5"), ("WS_POOL_CAPACITY", "x")];
    for prefix in ["CHAT", "CHAT_", "chat"] {
        assert_eq!(layers("", &chat).env_prefix(prefix).load().unwrap().capacity, 5);
    }
    assert_eq!(layers("", &chat).env_prefix("").load().unwrap().capacity, 100_000);
}

#[test]
fn a_key_is_a_name_and_no_path() {
    for key in ["\"capacity[4000000000]\"", "capacity.value", "\"outbound.messages\"", "\"Capacity\"", "\"\""]
    {
        let error = refused(file(format!("{key} = 1")));
        assert!(error.to_string().contains("pool.toml, line 1"), "{key}: {error}");
    }
    assert!(refused(file("[outbound]\nmessages = 1")).to_string().contains("the nearest is outbound_"));
}

#[test]
fn a_time_too_long_for_its_parser_is_refused() {
    for time in ["18446744073709551615s 1000ms", "584554049253y 3158815s 1000ms", "9 9 9 9 9 9 9 9 9 9 9 9 s"]
    {
        assert_eq!(refused(file(format!("suspect_age = \"{time}\""))).field(), "suspect_age");
    }
    let config = file("suspect_age = \"99999999999y\"").load().unwrap();
    assert_eq!(config.suspect_age.as_secs(), 99_999_999_999 * 31_557_600);
}

#[test]
fn a_mistake_in_a_long_file_makes_a_short_error() {
    let long = "x".repeat(100_000);
    for text in [format!("{long} = 1"), format!("capacity = \"{long}\""), format!("at_limit = \"\\n{long}\"")]
    {
        let error = refused(file(text)).to_string();
        assert!(error.len() < 400 && !error.contains('\n'), "{error}");
    }
}

#[test]
fn debug_shows_no_variable() {
    let layers = ConfigLayers::new().variables([("DATABASE_PASSWORD", "secret")]);
    assert!(!format!("{layers:?}").contains("secret"));
}

#[test]
fn the_reference_is_the_preset_of_production_with_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pool.toml");
    let none: [(&str, &str); 0] = [];
    let reference = resolved(ConfigLayers::new().file(&path).variables(none));
    assert_eq!(reference.config(), &Config::preset(Environment::Production));
    for (field, _, origin) in reference.fields() {
        assert!(matches!(origin, ConfigOrigin::File { .. }), "{field} is missing");
    }
}

/// A file of this test's own, deleted at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}-{}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let none: [(&str, &str); 0] = [];
    let layers = || ConfigLayers::new().variables(none);
    assert_eq!(
        refused(layers().file("no/such.toml")).to_string(),
        "the file no/such.toml cannot be read: there is none"
    );
    assert_eq!(layers().optional_file("no/such.toml").load(), Ok(Config::preset(Environment::Production)));

    let folder = env!("CARGO_TARGET_TMPDIR");
    assert!(
        refused(layers().optional_file(folder)).to_string().contains(folder),
        "it is there, and is no file"
    );
    let binary = Scratch::new("binary", [b'a', 0xFF]);
    assert!(refused(layers().file(&binary.0)).to_string().contains("utf-8"));
    let long = Scratch::new("long", vec![b'\n'; (1 << 20) + 1]);
    assert!(refused(layers().optional_file(&long.0)).to_string().ends_with("it is longer than 1 MiB"));
    let short = Scratch::new("short", "capacity = 9");
    assert_eq!(layers().file(&short.0).load().unwrap().capacity, 9);
}

#[cfg(target_os = "linux")]
#[test]
fn an_endless_file_is_not_read_to_its_end() {
    assert!(refused(ConfigLayers::new().file("/dev/zero")).to_string().ends_with("it is longer than 1 MiB"));
}

/// The example, with these variables and no others of ours.
fn example(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().parent().unwrap().join("examples/config");
    assert!(
        example.with_extension(std::env::consts::EXE_EXTENSION).is_file(),
        "{} is missing: build it with `cargo build --example config --features config`, or run all tests",
        example.display()
    );
    let mut command = Command::new(example);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().to_uppercase().starts_with("WS_POOL") {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn the_example_shows_each_value_with_its_layer_and_ends_with_2_at_a_mistake() {
    let shown = example(&["--file", "docs/pool.toml"], &[("WS_POOL_CAPACITY", "5")]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success());
    assert!(text.contains("\ncapacity = 5 # WS_POOL_CAPACITY\n"), "{text}");
    assert!(text.contains("\nclose_timeout = \"5s\" # docs/pool.toml, line "), "{text}");

    let mistake = example(&[], &[("WS_POOL_CAPACITY", "0")]);
    assert_eq!(mistake.status.code(), Some(2));
    assert!(String::from_utf8(mistake.stderr).unwrap().starts_with("capacity is \"0\" (WS_POOL_CAPACITY): "));
    let unknown = example(&["--fil", "x"], &[]);
    assert_eq!(unknown.status.code(), Some(2));
}

/// For each field: what the file says and what a variable says, if anything.
fn settings() -> impl Strategy<Value = Vec<(usize, Option<usize>, Option<usize>)>> {
    let said = prop::option::of(0..3_usize);
    proptest::sample::subsequence((0..EXAMPLES.len()).collect::<Vec<_>>(), 0..=EXAMPLES.len()).prop_flat_map(
        move |fields| {
            let says = (said.clone(), said.clone());
            let count = fields.len();
            (Just(fields), prop::collection::vec(says, count)).prop_map(|(fields, says)| {
                fields.into_iter().zip(says).map(|(f, (a, b))| (f, a, b)).collect()
            })
        },
    )
}

proptest! {
    /// A variable over a file over the preset, each field by itself.
    #[test]
    fn each_field_comes_from_its_strongest_layer(settings in settings()) {
        let (mut text, mut variables) = (String::new(), Vec::new());
        let mut expected: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
        for (field, in_file, in_variable) in settings {
            let (field, values, _) = EXAMPLES[field];
            let value = |which: usize| values.get(which).copied();
            if let Some(value) = in_file.and_then(value) {
                text += &format!("{field} = {value}\n");
                expected.insert(field, (value, false));
            }
            if let Some(value) = in_variable.and_then(value) {
                variables.push((variable(field), bare(value).to_owned()));
                expected.insert(field, (value, true));
            }
        }
        let layers = ConfigLayers::new().toml("pool.toml", text).variables(variables);
        match layers.resolve() {
            Ok(resolved) => {
                prop_assert_eq!(resolved.config().validate(), Ok(()));
                for (field, value, origin) in resolved.fields() {
                    let Some((said, by_variable)) = expected.get(field) else { continue };
                    let alone = file(format!("{field} = {said}")).resolve().unwrap();
                    let (_, expected, _) = alone.fields().find(|(name, ..)| *name == field).unwrap();
                    prop_assert_eq!(value, expected);
                    prop_assert_eq!(matches!(origin, ConfigOrigin::Variable(_)), *by_variable);
                }
                // What is shown is the same again.
                let again = file(resolved.to_string()).load();
                prop_assert_eq!(again.as_ref(), Ok(resolved.config()));
            }
            // Values that are each in their range may not go together.
            Err(error) => prop_assert!(error.to_string().contains(", which is "), "{error}"),
        }
    }

    #[test]
    fn any_bytes_are_a_valid_configuration_or_an_error(data in prop::collection::vec(any::<u8>(), 0..400)) {
        scenario::run(&data);
    }

    /// Lines that are nearly right.
    #[test]
    fn nearly_right_lines_are_a_valid_configuration_or_an_error(
        lines in prop::collection::vec((0..EXAMPLES.len(), "[ =]{1,2}", "[0-9\\[\\]{}'\"._a-z -]{0,12}"), 0..6),
        in_file in 0..6_usize,
    ) {
        let mut data = String::new();
        for (number, (field, sign, value)) in lines.iter().enumerate() {
            if number == in_file {
                data += "\n---\n";
            }
            data += &format!("{}{sign}{value}\n", EXAMPLES[*field].0);
        }
        scenario::run(data.as_bytes());
    }

    /// Any time that can be said is read as it was shown.
    #[test]
    fn a_time_is_read_as_it_is_shown(seconds in 0..4_000_000_000_u64, millis in 1..1_000_u64) {
        let span = Duration::from_secs(seconds) + Duration::from_millis(millis);
        let text = format!("suspect_age = \"{seconds}s {millis}ms\"");
        let first = file(text).resolve().unwrap();
        prop_assert_eq!(first.config().suspect_age, span);
        prop_assert_eq!(file(first.to_string()).load().unwrap().suspect_age, span);
    }
}
