//! Any bytes as a script of what servers do with a pool: the account is balanced after each step, limits
//! hold, and no byte of one user reaches another.

use std::sync::atomic::{AtomicUsize, Ordering};
use ws_manager_pool::{
    DuplicatePolicy, EndReason, Environment, IdGenerator, Lease, ManagerKey, Message, Pool, Session,
    Timestamp, UserExecutionContext, UserId,
};

/// Three bytes each: what, and two numbers.
pub(crate) fn run(data: &[u8]) {
    let mut world = World::new();
    for chunk in data.chunks_exact(3) {
        let (user, thread) = (usize::from(chunk[1]) % USERS.len(), usize::from(chunk[2]) % THREADS.len());
        let number = usize::from(chunk[1]);
        world.apply(&match chunk[0] % 13 {
            0 | 1 => Op::Connect { user, thread },
            2 => Op::Close(number),
            3 => Op::Evict(number),
            4 => Op::SendToKey(number),
            5 => Op::SendToKeys(vec![number, usize::from(chunk[2])]),
            6 => Op::SendToUser(user),
            7 => Op::SendToThread { user, thread },
            8 => Op::Run { user, thread },
            9 => Op::Resume { user, thread },
            10 => Op::WriteState(number),
            11 => Op::Read(number),
            _ => Op::Shrink,
        });
    }
    world.end();
}

/// Names of which one is a prefix of another, or looks like an isolation key.
pub(crate) const USERS: [&str; 4] = ["a", "a:b", "b", "a:thread_x"];
/// Everybody has threads of the same names.
pub(crate) const THREADS: [&str; 2] = ["thread_x", "thread_y"];
const CAPACITY: usize = 4;
const PER_USER: usize = 3;

/// Numbers choose among what there is, modulo its count.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Connect {
        user: usize,
        thread: usize,
    },
    Close(usize),
    Evict(usize),
    /// To any key that there ever was.
    SendToKey(usize),
    SendToKeys(Vec<usize>),
    SendToUser(usize),
    SendToThread {
        user: usize,
        thread: usize,
    },
    /// A whole run of an agent, whose events name the user.
    Run {
        user: usize,
        thread: usize,
    },
    Resume {
        user: usize,
        thread: usize,
    },
    WriteState(usize),
    Read(usize),
    Shrink,
}

/// What the application keeps: whose it is.
#[derive(Debug, Default)]
pub(crate) struct Diary(Vec<u8>);

impl Session for Diary {
    fn reset(&mut self) {
        self.0.clear();
    }
}

pub(crate) struct World {
    pool: Pool<Diary>,
    live: Vec<(usize, Lease<Diary>)>,
    /// Every key that there ever was, and whose it was.
    keys: Vec<(ManagerKey, usize)>,
    pub(crate) heard: usize,
}

/// A text that names its addressee in a way that no other name is part of.
fn letter(user: usize) -> String {
    format!("for <{}>", USERS[user])
}

fn context(user: usize, thread: usize) -> UserExecutionContext {
    let ids = IdGenerator::user_context_ids(USERS[user], "script").with_client_thread(THREADS[thread]);
    UserExecutionContext::from_websocket_request(USERS[user], ids.expect("a valid thread"))
        .expect("a valid user")
}

impl World {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let pool = Pool::builder()
            .name(format!("script-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
            .environment(Environment::Ci)
            .capacity(CAPACITY)
            .max_managers_per_user(PER_USER)
            .duplicates(DuplicatePolicy::Replace)
            .replay_events(8)
            .build()
            .expect("a valid configuration");
        Self { pool, live: Vec::new(), keys: Vec::new(), heard: 0 }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        self.act(op);
        let ledger = self.pool.ledger();
        assert!(ledger.balanced, "after {op:?}: {ledger:#?}");
        assert!(ledger.occupied_slots <= CAPACITY, "after {op:?}: {ledger:#?}");
        for name in USERS {
            let user = UserId::new(name).expect("a valid user");
            assert!(self.pool.check_user(&user).manager_count <= PER_USER, "after {op:?}: {name}");
        }
    }

    /// Everything that waits is read, and everybody leaves.
    pub(crate) fn end(&mut self) {
        for at in 0..self.live.len() {
            self.read(at);
        }
        self.live.clear();
        let ledger = self.pool.ledger();
        assert!(ledger.balanced && ledger.occupied_slots == 0, "{ledger:#?}");
    }

    /// What was sent may find nobody: then it reaches nobody.
    fn act(&mut self, op: &Op) {
        match *op {
            Op::Connect { user, thread } => self.connect(user, thread, None),
            Op::Resume { user, thread } => self.connect(user, thread, Some("0")),
            Op::Close(number) if !self.live.is_empty() => {
                let at = number % self.live.len();
                drop(self.live.swap_remove(at));
            }
            Op::Evict(number) if !self.keys.is_empty() => {
                // Stale: it ends nobody.
                let _ = self.pool.evict(self.keys[number % self.keys.len()].0, EndReason::Operator);
            }
            Op::SendToKey(number) if !self.keys.is_empty() => {
                let (key, user) = self.keys[number % self.keys.len()];
                let _ = self.pool.send(key, Message::from(letter(user)));
            }
            Op::SendToKeys(ref numbers) if !self.keys.is_empty() => {
                let first = numbers.first().map_or(0, |number| number % self.keys.len());
                let user = self.keys[first].1;
                let of_user =
                    |number: &usize| Some(self.keys[number % self.keys.len()]).filter(|key| key.1 == user);
                let keys: Vec<_> = numbers.iter().filter_map(of_user).map(|(key, _)| key).collect();
                let _ = self.pool.send_many(&keys, Message::from(letter(user)));
            }
            Op::SendToUser(user) => {
                let _ = self.pool.send_to_user(context(user, 0).user_id(), Message::from(letter(user)));
            }
            Op::SendToThread { user, thread } => {
                let key = context(user, thread).isolation_key();
                let _ = self.pool.send_to_thread(&key, Message::from(letter(user)));
            }
            Op::Run { user, thread } => {
                let mut run = self.pool.start_run(&context(user, thread), letter(user).as_str());
                let _ = run.thinking(letter(user).as_str());
                let _ = run.complete(letter(user).as_str());
            }
            Op::WriteState(number) if !self.live.is_empty() => {
                let at = number % self.live.len();
                let (user, lease) = &mut self.live[at];
                // Revoked: whoever has the slot now writes for himself.
                let _ = lease.with_session(|diary| diary.0.extend(letter(*user).as_bytes()));
            }
            Op::Read(number) if !self.live.is_empty() => {
                let at = number % self.live.len();
                self.read(at);
            }
            Op::Shrink => {
                self.pool.maintain(Timestamp::ZERO);
            }
            _ => {}
        }
    }

    fn connect(&mut self, user: usize, thread: usize, after: Option<&str>) {
        let Ok(mut place) = self.pool.reserve(&context(user, thread)) else { return };
        if let Some(after) = after {
            place.resume_after(after.parse().expect("an id"));
        }
        let Ok(mut lease) = place.open() else { return };
        assert!(lease.with_session(|diary| diary.0.is_empty()).unwrap(), "a state from before");
        let name = lease.with(|manager| manager.user_id().as_str().to_owned());
        assert_eq!(name.as_deref(), Ok(USERS[user]));
        self.keys.push((lease.key(), user));
        self.live.push((user, lease));
    }

    /// All that waits, and the state: it names its owner and nobody else.
    fn read(&mut self, at: usize) {
        let (user, lease) = &mut self.live[at];
        while let Ok(Some(message)) = lease.next_message() {
            let text = message.as_text().expect("a text");
            self.heard += 1;
            assert!(text.contains(&letter(*user)) || is_a_gap(text), "{} heard {text:?}", USERS[*user]);
            let names_another = |other: usize| other != *user && text.contains(&letter(other));
            assert!(!(0..USERS.len()).any(names_another), "{} heard {text:?}", USERS[*user]);
        }
        let state = lease.with_session(|diary| String::from_utf8(diary.0.clone()).unwrap());
        if let Ok(state) = state {
            assert_eq!(state.replace(&letter(*user), ""), "", "the state of {}", USERS[*user]);
        }
    }
}

fn is_a_gap(text: &str) -> bool {
    text.contains(r#""type":"gap""#)
}
