//! What may be done in a random run.

use crate::support::user;
use proptest::prelude::*;
use std::time::Duration;
use ws_manager_pool::{
    AgentEvent, AtLimit, Config, DuplicatePolicy, EndReason, Environment, IdGenerator, IsolationKey,
    OutboundLimits, OverflowPolicy, Scope, SweepPolicy, ThreadId, UserExecutionContext, UserId,
};

/// One step of a random run. Numbers choose among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Reserve(UserExecutionContext),
    Wait(UserExecutionContext),
    PollWait(usize),
    DropWait(usize),
    Open(usize),
    GiveBack(usize),
    Forget(usize),
    Connected(usize),
    Errored(usize),
    Disconnected(usize),
    BeginRun(usize),
    EndRun(usize),
    Close(usize),
    Evict(usize),
    Send(u8, u8),
    SendToUser(u8, usize),
    SendMany(Vec<usize>, usize),
    Broadcast(usize),
    Next(usize),
    Poll(usize),
    ReadAll(usize),
    Received(usize),
    Sweep(On, SweepPolicy),
    EvictOldest(On, usize),
    ShrinkTo(On, usize),
    CleanUp(UserExecutionContext),
    CleanUpAll(u8),
    SetLimit(u8, Option<usize>),
    SetPolicy(u8, Option<AtLimit>),
    Reconfigure(Numbers),
    RollBack,
    Rest,
    Drain,
    Resume(usize, After),
    Reconnect(UserExecutionContext, After),
    StartRun(UserExecutionContext),
    Say(usize, AgentEvent, usize),
    Complete(usize),
    Abort(usize),
}

/// What a client that comes back says it had last.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    Nothing,
    /// One of the last that were seen on its thread.
    Own(usize),
    /// The same, without the numbering.
    OwnNumber(usize),
    /// One of the last that were seen on whichever thread.
    Any(usize),
    Number(u64),
    /// In a numbering that nobody has.
    Foreign(u64),
}

/// A scope.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    Pool,
    User(u8),
    Thread(u8, u8),
}

/// What no configuration changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    pub(crate) capacity: usize,
    pub(crate) duplicates: DuplicatePolicy,
    pub(crate) replay_pool_bytes: usize,
}

/// What a new configuration changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    per_user: usize,
    at_limit: AtLimit,
    idle_ticks: u32,
    sample_ticks: u32,
    background_ticks: u32,
    forced: u32,
    proactive: bool,
    outbound: OutboundLimits,
    replay_events: usize,
    replay_bytes: usize,
    replay_ticks: u32,
}

pub(crate) const TICK: Duration = Duration::from_millis(100);
/// A reservation lasts so long, and everything else that has to wait is due within a rest.
pub(crate) const TICKS: u32 = 15;
pub(crate) const USERS: u8 = 3;
pub(crate) const THREADS: u8 = 5;

pub(crate) fn context(user: u8, thread: u8) -> UserExecutionContext {
    let (user, thread) = (format!("user{user}"), format!("thread_{thread}"));
    let ids = IdGenerator::user_context_ids(&user, "test").with_client_thread(&thread).unwrap();
    UserExecutionContext::from_websocket_request(&user, ids).unwrap()
}

pub(crate) fn numbered(number: u8) -> UserId {
    user(&format!("user{number}"))
}

pub(crate) fn thread(of: u8, thread: u8) -> IsolationKey {
    IsolationKey::new(numbered(of), ThreadId::from_client(&format!("thread_{thread}")).unwrap())
}

pub(crate) fn config(fixed: Fixed, numbers: Numbers) -> Config {
    let mut config = Config::preset(Environment::Ci);
    config.capacity = fixed.capacity;
    config.duplicates = fixed.duplicates;
    config.replay_pool_bytes = fixed.replay_pool_bytes;
    config.reservation_deadline = TICK * TICKS;
    config.sample_interval = TICK * numbers.sample_ticks;
    config.background_interval = TICK * numbers.background_ticks;
    config.errored_after = TICK * (numbers.idle_ticks + 2);
    config.run_limit = TICK * 25;
    config.suspect_silence = TICK * 20;
    config.suspect_age = TICK * 40;
    config.emergency_forced = numbers.forced;
    // Low, so that a few managers go through all levels, with room within each.
    config.level_info = 0.2;
    config.level_warning = 0.3;
    config.level_critical = 0.5;
    config.level_emergency = 0.7;
    config.max_managers_per_user = numbers.per_user;
    config.at_limit = numbers.at_limit;
    config.idle_proactive = TICK * numbers.idle_ticks;
    config.idle_emergency = TICK * (numbers.idle_ticks + 3);
    config.idle_background = Some(TICK * (numbers.idle_ticks + 20));
    config.proactive_threshold = if numbers.proactive { 0.4 } else { 1.0 };
    config.outbound = numbers.outbound;
    config.replay_events = numbers.replay_events;
    config.replay_bytes = numbers.replay_bytes;
    config.replay_age = TICK * numbers.replay_ticks;
    config
}

fn at_limits() -> impl Strategy<Value = AtLimit> {
    prop_oneof![Just(AtLimit::Reject), Just(AtLimit::EvictOldest), Just(AtLimit::EvictIdlest)]
}

pub(crate) fn numbers() -> impl Strategy<Value = Numbers> {
    // Sampled often, nobody is at the limit for long where the policy forces somebody out.
    let sample_ticks = prop_oneof![Just(4), Just(20), Just(80)];
    let background_ticks = prop_oneof![Just(3), Just(9), Just(40)];
    let ticks = (8..25_u32, sample_ticks, background_ticks);
    let per_user = prop_oneof![2..4_usize, 4..9_usize];
    let queue = (outbounds(), replays());
    let numbers = (per_user, at_limits(), ticks, 0..3_u32, any::<bool>(), queue);
    numbers.prop_map(|(per_user, at_limit, ticks, forced, proactive, (outbound, replay))| Numbers {
        per_user,
        at_limit,
        idle_ticks: ticks.0,
        sample_ticks: ticks.1,
        background_ticks: ticks.2,
        forced,
        proactive,
        outbound,
        replay_events: replay.0,
        replay_bytes: replay.1,
        replay_ticks: replay.2,
    })
}

/// An event is of 150 to 250 bytes.
fn outbounds() -> impl Strategy<Value = OutboundLimits> {
    let policy = prop_oneof![
        Just(OverflowPolicy::DropNewest),
        Just(OverflowPolicy::DropOldest),
        Just(OverflowPolicy::Disconnect),
    ];
    let messages = prop_oneof![1 => 0..2_usize, 6 => 2..6_usize, 2 => Just(64)];
    let bytes = prop_oneof![2 => 200..1_000_usize, 1 => Just(64 * 1024)];
    let message_bytes = prop_oneof![1 => 100..250_usize, 4 => Just(4_096)];
    (policy, messages, bytes, message_bytes).prop_map(|(policy, messages, bytes, message_bytes)| {
        OutboundLimits::default()
            .with_overflow(policy)
            .with_messages(messages)
            .with_bytes(bytes)
            .with_message_bytes(message_bytes)
    })
}

/// Events, bytes and ticks.
fn replays() -> impl Strategy<Value = (usize, usize, u32)> {
    let events = prop_oneof![1 => Just(0), 3 => 1..5_usize, 4 => Just(64)];
    let bytes = prop_oneof![1 => 100..1_000_usize, 2 => Just(64 * 1024)];
    let ticks = prop_oneof![2 => 3..30_u32, 3 => 60..200_u32];
    (events, bytes, ticks)
}

pub(crate) fn fixed() -> impl Strategy<Value = Fixed> {
    let duplicates = prop_oneof![
        Just(DuplicatePolicy::Replace),
        Just(DuplicatePolicy::Reject),
        Just(DuplicatePolicy::Allow)
    ];
    let bytes = prop_oneof![1 => 200..3_000_usize, 2 => Just(1 << 20)];
    (4..14_usize, duplicates, bytes).prop_map(|(capacity, duplicates, replay_pool_bytes)| Fixed {
        capacity,
        duplicates,
        replay_pool_bytes,
    })
}

fn afters() -> impl Strategy<Value = After> {
    prop_oneof![
        2 => Just(After::Nothing),
        6 => (0..6_usize).prop_map(After::Own),
        2 => (0..6_usize).prop_map(After::OwnNumber),
        1 => (0..6_usize).prop_map(After::Any),
        2 => (0..12_u64).prop_map(After::Number),
        1 => (0..12_u64).prop_map(After::Foreign),
    ]
}

fn events() -> impl Strategy<Value = AgentEvent> {
    prop_oneof![Just(AgentEvent::Thinking), Just(AgentEvent::ToolExecuting), Just(AgentEvent::ToolCompleted)]
}

fn policies() -> impl Strategy<Value = SweepPolicy> {
    prop_oneof![
        2 => Just(SweepPolicy::Proactive),
        3 => Just(SweepPolicy::Emergency),
        2 => Just(SweepPolicy::Background),
        1 => Just(SweepPolicy::Operator(EndReason::Heartbeat)),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || prop_oneof![3 => Just(0), 2 => 1..USERS];
    let nth = || 0..8_usize;
    let contexts = || (who(), 0..THREADS).prop_map(|(user, thread)| context(user, thread));
    let scope = || {
        prop_oneof![
            Just(On::Pool),
            who().prop_map(On::User),
            (who(), 0..THREADS).prop_map(|(user, thread)| On::Thread(user, thread)),
        ]
    };
    let places = prop_oneof![
        10 => contexts().prop_map(Step::Reserve),
        3 => contexts().prop_map(Step::Wait),
        3 => nth().prop_map(Step::PollWait),
        1 => nth().prop_map(Step::DropWait),
        12 => nth().prop_map(Step::Open),
        2 => nth().prop_map(Step::GiveBack),
        1 => nth().prop_map(Step::Forget),
        2 => nth().prop_map(Step::Close),
        1 => nth().prop_map(Step::Evict),
    ];
    let lives = prop_oneof![
        2 => nth().prop_map(Step::Connected),
        2 => nth().prop_map(Step::Errored),
        6 => (0..3_usize).prop_map(Step::Disconnected),
        4 => (0..4_usize).prop_map(Step::BeginRun),
        1 => nth().prop_map(Step::EndRun),
        2 => (who(), 0..THREADS).prop_map(|(user, thread)| Step::Send(user, thread)),
        2 => nth().prop_map(Step::Next),
        2 => nth().prop_map(Step::Received),
    ];
    let size = || prop_oneof![3 => 0..50_usize, 1 => 50..600_usize];
    let agents = prop_oneof![
        6 => contexts().prop_map(Step::StartRun),
        12 => (0..4_usize, events(), size()).prop_map(|(nth, event, size)| Step::Say(nth, event, size)),
        2 => nth().prop_map(Step::Complete),
        1 => nth().prop_map(Step::Abort),
        4 => (nth(), afters()).prop_map(|(nth, after)| Step::Resume(nth, after)),
        6 => (contexts(), afters()).prop_map(|(context, after)| Step::Reconnect(context, after)),
        4 => nth().prop_map(Step::Poll),
        4 => nth().prop_map(Step::ReadAll),
        1 => (who(), size()).prop_map(|(user, size)| Step::SendToUser(user, size)),
        1 => (prop::collection::vec(nth(), 0..6), size()).prop_map(|(to, size)| Step::SendMany(to, size)),
        1 => size().prop_map(Step::Broadcast),
    ];
    let cleaning = prop_oneof![
        4 => (scope(), policies()).prop_map(|(scope, policy)| Step::Sweep(scope, policy)),
        1 => (scope(), 0..3_usize).prop_map(|(scope, n)| Step::EvictOldest(scope, n)),
        1 => (scope(), 0..4_usize).prop_map(|(scope, n)| Step::ShrinkTo(scope, n)),
        1 => contexts().prop_map(Step::CleanUp),
        1 => who().prop_map(Step::CleanUpAll),
        8 => Just(Step::Rest),
    ];
    let settings = prop_oneof![
        2 => (who(), prop::option::of(1..9_usize)).prop_map(|(user, limit)| Step::SetLimit(user, limit)),
        2 => (who(), prop::option::of(at_limits())).prop_map(|(user, policy)| Step::SetPolicy(user, policy)),
        1 => numbers().prop_map(Step::Reconfigure),
        1 => Just(Step::RollBack),
    ];
    let step = prop_oneof![35 => places, 14 => lives, 30 => agents, 12 => cleaning, 4 => settings];
    (prop::collection::vec(step, 1..120), prop::bool::weighted(0.1)).prop_map(|(mut steps, drains)| {
        if drains {
            steps.insert(steps.len() / 2, Step::Drain);
        }
        steps
    })
}

impl On {
    pub(crate) fn scope<T>(self, f: impl FnOnce(Scope<'_>) -> T) -> T {
        match self {
            Self::Pool => f(Scope::Pool),
            Self::User(number) => f(Scope::User(&numbered(number))),
            Self::Thread(number, of) => f(Scope::Thread(&thread(number, of))),
        }
    }
}
