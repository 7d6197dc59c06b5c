use super::fields::{FIELDS, Kind};
use super::{Config, Environment};
use std::collections::BTreeSet;
use std::time::Duration;

const ENVIRONMENTS: [Environment; 4] =
    [Environment::Production, Environment::Staging, Environment::Development, Environment::Ci];

#[test]
fn every_preset_is_valid() {
    for environment in ENVIRONMENTS {
        assert_eq!(Config::preset(environment).validate(), Ok(()));
        assert_eq!(Config::preset(environment).environment, environment);
    }
}

#[test]
fn the_presets_hold_the_numbers_of_the_specification() {
    let all = ENVIRONMENTS.map(Config::preset);
    assert_eq!(all.each_ref().map(|it| it.max_managers_per_user), [20, 10, 20, 5]);
    assert_eq!(all.each_ref().map(|it| it.capacity), [100_000, 10_000, 10_000, 1_000]);
    assert_eq!(all.each_ref().map(|it| it.proactive_threshold), [0.6, 0.5, 0.4, 0.4]);
    let seconds = |of: fn(&Config) -> Duration| all.each_ref().map(|it| of(it).as_secs());
    assert_eq!(seconds(|it| it.emergency_budget), [10, 5, 2, 1]);
    assert_eq!(seconds(|it| it.background_interval), [60, 30, 15, 5]);
    assert_eq!(seconds(|it| it.idle_background.unwrap()), [600, 300, 120, 120]);
    assert_eq!(seconds(|it| it.idle_proactive), [180, 180, 120, 120], "never longer than the background's");
    assert_eq!(seconds(|it| it.idle_emergency), [300, 300, 120, 120], "never longer than the background's");
    assert_eq!(seconds(|it| it.errored_after), [300; 4]);
    assert_eq!(seconds(|it| it.run_limit), [1_800; 4]);
    assert_eq!(seconds(|it| it.heartbeat_interval), [20, 20, 20, 1]);
    assert_eq!(seconds(|it| it.heartbeat_timeout), [10, 10, 10, 1]);
    assert_eq!(seconds(|it| it.reservation_deadline), [10, 10, 10, 1]);
    assert_eq!(seconds(|it| it.message_timeout), [60, 60, 60, 60]);
    assert_eq!(seconds(|it| it.close_timeout), [5, 5, 5, 1]);
    assert_eq!(seconds(|it| it.drain_timeout), [30, 30, 30, 5]);
    assert_eq!(seconds(|it| it.sample_interval), [5; 4]);
    for it in all {
        let outbound = it.outbound;
        assert_eq!(
            (outbound.messages(), outbound.bytes(), outbound.message_bytes()),
            (64, 256 << 10, 1 << 20)
        );
        assert_eq!((it.outbound_pool_bytes, it.inbound_pool_bytes), (256 << 20, 64 << 20));
        assert_eq!(
            [it.level_info, it.level_warning, it.level_critical, it.level_emergency],
            [0.4, 0.6, 0.8, 0.9]
        );
        assert_eq!((it.level_hysteresis, it.shrink_target), (0.05, 0.5));
        assert_eq!((it.emergency_attempts, it.emergency_forced), (3, 5));
    }
}

/// A change that puts one field, named beside it, out of its range.
type Fault = (&'static str, fn(&mut Config));

const FAULTS: &[Fault] = &[
    ("capacity", |it| it.capacity = 0),
    ("capacity", |it| it.capacity = (1 << 31) + 1),
    ("max_managers_per_user", |it| it.max_managers_per_user = 0),
    ("max_managers_per_user", |it| it.max_managers_per_user = usize::MAX),
    ("outbound_messages", |it| it.outbound = it.outbound.with_messages((1 << 31) + 1)),
    ("outbound_bytes", |it| it.outbound = it.outbound.with_bytes(usize::MAX)),
    ("outbound_message_bytes", |it| it.outbound = it.outbound.with_message_bytes(0)),
    ("outbound_message_bytes", |it| it.outbound = it.outbound.with_message_bytes(usize::MAX)),
    ("outbound_pool_bytes", |it| it.outbound_pool_bytes = 0),
    ("outbound_pool_bytes", |it| it.outbound_pool_bytes = usize::MAX),
    ("outbound_high_water", |it| it.outbound = it.outbound.with_high_water(0.0)),
    ("outbound_high_water", |it| it.outbound = it.outbound.with_high_water(f64::NAN)),
    ("outbound_low_water", |it| it.outbound = it.outbound.with_low_water(-0.1)),
    ("outbound_low_water", |it| it.outbound = it.outbound.with_high_water(0.5).with_low_water(0.5)),
    ("inbound_message_bytes", |it| it.inbound_message_bytes = 0),
    ("inbound_frame_bytes", |it| it.inbound_frame_bytes = 0),
    ("inbound_pool_bytes", |it| it.inbound_pool_bytes = 0),
    ("inbound_pool_bytes", |it| it.inbound_pool_bytes = usize::MAX),
    ("replay_events", |it| it.replay_events = (1 << 31) + 1),
    ("replay_bytes", |it| it.replay_bytes = 0),
    ("replay_age", |it| it.replay_age = Duration::ZERO),
    ("replay_pool_bytes", |it| it.replay_pool_bytes = 0),
    ("max_unauthenticated", |it| it.max_unauthenticated = 0),
    ("drain_rate", |it| it.drain_rate = 0),
    ("max_lifetime", |it| it.max_lifetime = Some(Duration::ZERO)),
    ("deadline_jitter", |it| it.deadline_jitter = 1.0),
    ("reservation_deadline", |it| it.reservation_deadline = Duration::ZERO),
    ("heartbeat_interval", |it| it.heartbeat_interval = Duration::from_micros(999)),
    ("heartbeat_timeout", |it| it.heartbeat_timeout = Duration::ZERO),
    ("message_timeout", |it| it.message_timeout = Duration::ZERO),
    ("close_timeout", |it| it.close_timeout = Duration::ZERO),
    ("drain_timeout", |it| it.drain_timeout = Duration::ZERO),
    ("proactive_threshold", |it| it.proactive_threshold = 0.0),
    ("proactive_threshold", |it| it.proactive_threshold = 1.001),
    ("proactive_threshold", |it| it.proactive_threshold = f64::NAN),
    ("idle_background", |it| it.idle_background = Some(Duration::ZERO)),
    ("idle_proactive", |it| it.idle_proactive = Duration::ZERO),
    ("idle_proactive", |it| it.idle_proactive = Duration::from_secs(601)),
    ("idle_emergency", |it| it.idle_emergency = Duration::ZERO),
    ("idle_emergency", |it| it.idle_emergency = Duration::from_secs(601)),
    ("errored_after", |it| it.errored_after = Duration::ZERO),
    ("run_limit", |it| it.run_limit = Duration::ZERO),
    ("run_limit", |it| it.run_limit = Duration::from_secs(1_801)),
    ("background_interval", |it| it.background_interval = Duration::ZERO),
    ("background_budget", |it| it.background_budget = Duration::ZERO),
    ("emergency_budget", |it| it.emergency_budget = Duration::ZERO),
    ("emergency_attempts", |it| it.emergency_attempts = 0),
    ("emergency_attempts", |it| it.emergency_attempts = 4),
    ("emergency_forced", |it| it.emergency_forced = 6),
    ("sample_interval", |it| it.sample_interval = Duration::ZERO),
    ("level_info", |it| it.level_info = 0.0),
    ("level_info", |it| it.level_info = f64::NAN),
    ("level_warning", |it| it.level_warning = it.level_info),
    ("level_warning", |it| it.level_warning = -0.1),
    ("level_critical", |it| it.level_critical = 0.5),
    ("level_emergency", |it| it.level_emergency = 1.1),
    ("level_emergency", |it| it.level_emergency = f64::INFINITY),
    ("level_hysteresis", |it| it.level_hysteresis = -0.01),
    ("level_hysteresis", |it| it.level_hysteresis = it.level_info),
    ("level_hysteresis", |it| it.level_hysteresis = f64::NAN),
    ("shrink_target", |it| it.shrink_target = 0.0),
    ("suspect_age", |it| it.suspect_age = Duration::ZERO),
    ("suspect_silence", |it| it.suspect_silence = Duration::ZERO),
];

#[test]
fn a_value_out_of_its_range_is_refused_by_its_name() {
    for (field, spoil) in FAULTS {
        let mut config = Config::preset(Environment::Production);
        spoil(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.field(), *field, "{error}");
        assert!(error.to_string().starts_with(&format!("{field} is ")), "{error}");
        assert_eq!(error.origin(), None, "code has set it");
    }
}

#[test]
fn no_number_is_without_a_range() {
    let numbers = FIELDS.iter().filter(|field| !matches!(field.kind, Kind::Word(..)));
    let known: BTreeSet<_> = numbers.map(|field| field.name).collect();
    assert_eq!(FAULTS.iter().map(|(field, _)| *field).collect::<BTreeSet<_>>(), known);
}

#[test]
fn an_error_says_what_is_allowed() {
    let text = |spoil: fn(&mut Config)| {
        let mut config = Config::preset(Environment::Production);
        spoil(&mut config);
        config.validate().unwrap_err().to_string()
    };
    assert_eq!(text(|it| it.capacity = 0), "capacity is 0: set it to a whole number from 1 to 2147483648");
    assert_eq!(
        text(|it| it.close_timeout = Duration::ZERO),
        "close_timeout is 0ns: set it to a time such as \"20s\", at least 1 ms"
    );
    assert_eq!(
        text(|it| it.idle_background = Some(Duration::from_secs(60))),
        "idle_proactive is 180s: set it to at most idle_background, which is 60s"
    );
    assert_eq!(
        text(|it| it.level_info = 0.7),
        "level_warning is 0.6: set it to more than level_info, which is 0.7"
    );
}

#[test]
fn idleness_that_is_off_bounds_nothing() {
    let mut config = Config::preset(Environment::Production);
    config.idle_background = None;
    config.idle_proactive = Duration::from_secs(86_400);
    assert_eq!(config.validate(), Ok(()));
}

/// Above each field of the reference stands what it may hold.
#[test]
fn the_reference_names_every_field_with_its_range() {
    let reference = include_str!("../../docs/pool.toml");
    for field in FIELDS {
        let (before, _) = reference
            .split_once(&format!("\n{} = ", field.name))
            .unwrap_or_else(|| panic!("docs/pool.toml lacks {}", field.name));
        let comment: Vec<_> = before.lines().rev().take_while(|line| line.starts_with('#')).collect();
        let comment: Vec<_> = comment.iter().rev().map(|line| line.trim_start_matches(['#', ' '])).collect();
        let comment = comment.join(" ");
        assert!(
            comment.contains(&field.allowed()),
            "{}: {comment:?} lacks {:?}",
            field.name,
            field.allowed()
        );
    }
}
