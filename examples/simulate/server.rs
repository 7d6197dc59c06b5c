//! The server's side: the real pool, and the tasks that own its leases. A task does in virtual time what
//! `serve` does; some tasks hang, as tasks do: they hold their lease and never look at it again.

use super::judge::{Books, Connection, Doing, Run};
use super::queue::{MINUTE, Millis};
use super::witness::Witness;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use ws_manager_pool::{
    Clock, Config, EndReason, IdGenerator, Lease, ManagerKey, ManualClock, Message, OpenError, Pool,
    PoolSnapshot, Reservation, ReserveError, UserExecutionContext, Verdict,
};

/// A task whose lease was ended notices it so late, and closes then what is not its own any more.
const LATE_BY: Millis = MINUTE;

const ANSWER: &str = "an answer of a few words, as they are most of the time";

pub(crate) struct Server {
    pool: Pool,
    hand: ManualClock,
    config: Config,
    witness: Witness,
    pub(crate) books: Books,
    /// Tasks that hang in a handshake, until its deadline.
    hung: VecDeque<(Millis, u32, Reservation)>,
    late: VecDeque<(Millis, Lease)>,
    /// Clients whose connection the pool has ended, and that nobody has told yet.
    lost: Vec<(u32, ManagerKey)>,
    text: String,
}

impl Server {
    pub(crate) fn new(config: Config, users: u32) -> Self {
        // Two live pools never have the same name.
        static POOLS: AtomicU64 = AtomicU64::new(0);
        let name = format!("simulation-{}", POOLS.fetch_add(1, Ordering::Relaxed));
        let (clock, hand) = Clock::manual();
        let witness = Witness::default();
        let builder =
            Pool::builder().name(name).config(config.clone()).clock(clock).observer(witness.clone());
        Self {
            pool: builder.build().expect("a valid configuration, and a name of its own"),
            hand,
            witness,
            books: Books::new(&config, users),
            config,
            hung: VecDeque::new(),
            late: VecDeque::new(),
            lost: Vec::new(),
            text: String::new(),
        }
    }

    pub(crate) fn now(&self) -> Millis {
        self.books.now
    }

    pub(crate) fn advance(&mut self, to: Millis) {
        self.hand.advance(Duration::from_millis(to - self.books.now));
        self.books.now = to;
    }

    /// The handshake begins. Every refusal is in the books.
    pub(crate) fn reserve(&mut self, user: u32, thread: u32) -> Result<Reservation, ReserveError> {
        let context = self.context(user, thread);
        let reserved = self.pool.reserve(&context);
        self.attend(Doing::Cleaning);
        match reserved {
            Ok(_) => self.books.place_taken(user),
            Err(ReserveError::UserFull { .. }) => self.books.hit_limit(user),
            Err(_) => self.books.other_refusals += 1,
        }
        reserved
    }

    /// The handshake failed.
    pub(crate) fn give_back(&mut self, user: u32, reservation: Reservation) {
        drop(reservation);
        self.books.place_left(user);
    }

    /// The handshake's task hangs: the pool takes the place back at the deadline.
    pub(crate) fn forget(&mut self, user: u32, reservation: Reservation) {
        let deadline = self.now() + millis(self.config.reservation_deadline);
        self.books.forgotten_reservations += 1;
        self.hung.push_back((deadline, user, reservation));
    }

    pub(crate) fn open(
        &mut self,
        user: u32,
        thread: u32,
        reservation: Reservation,
    ) -> Result<ManagerKey, OpenError> {
        let opened = reservation.open();
        self.attend(Doing::Opening { user, thread });
        self.books.place_left(user);
        let lease = opened.inspect_err(|_| self.books.failed_opens += 1)?;
        let key = lease.key();
        lease.connected().expect("it has just been opened");
        self.books.opened(Connection::new(lease, user, thread, self.now()));
        Ok(key)
    }

    /// A new connection has come on its thread: this one is over, whatever its task does.
    pub(crate) fn must_be_over(&mut self, key: ManagerKey) {
        if let Some(Connection { user, .. }) = self.books.connection(key) {
            let what = format!("user {user} came back, and its old connection stayed");
            self.books.wrong(what);
        }
    }

    /// A message from the client, and an answer through the pool.
    pub(crate) fn chat(&mut self, key: ManagerKey, bytes: usize) {
        let now = self.now();
        let Some(connection) = self.books.connection(key) else { return };
        let is_queued = connection.lease.received(bytes).is_ok()
            && self.pool.send(key, Message::from(ANSWER)).is_queued();
        let answer = connection.lease.next_message();
        let is_answered = matches!(answer, Ok(Some(answer)) if answer.as_text() == Some(ANSWER));
        connection.heard(now);
        self.books.delivered(1, is_queued && is_answered);
    }

    /// An agent begins to work. `false`: the connection is over, or one works already.
    pub(crate) fn begin_run(&mut self, key: ManagerKey) -> bool {
        let now = self.now();
        let Some(connection) = self.books.connection(key) else { return false };
        if connection.run.is_some() || connection.lease.received(200).is_err() {
            return false;
        }
        connection.heard(now);
        let Ok(guard) = connection.lease.begin_run() else { return false };
        connection.run = Some(Run { began: now, _guard: guard });
        self.tell(key, &["agent_started", "agent_thinking"]);
        true
    }

    pub(crate) fn end_run(&mut self, key: ManagerKey) {
        self.tell(key, &["tool_executing", "tool_completed", "agent_completed"]);
        let now = self.now();
        if let Some(connection) = self.books.connection(key) {
            connection.end_run(now);
        }
    }

    /// Events for the connection's thread, which has no other connection. A task without a client
    /// writes into a socket that nobody reads, unless it hangs.
    fn tell(&mut self, key: ManagerKey, events: &'static [&'static str]) {
        let now = self.now();
        let Some(connection) = self.books.connection(key) else { return };
        if connection.is_hung {
            return;
        }
        let Ok(thread) = connection.lease.with(|manager| manager.context().isolation_key()) else { return };
        let mut is_delivered = true;
        for &event in events {
            is_delivered &= self.pool.send_to_thread(&thread, Message::from(event)).is_complete();
        }
        for &event in events {
            let told = connection.lease.next_message();
            is_delivered &= matches!(told, Ok(Some(told)) if told.as_text() == Some(event));
        }
        connection.last_activity = now;
        self.books.delivered(events.len() as u64, is_delivered);
    }

    /// The client is gone without a word. Returns when the server will know, if its task is one that
    /// asks.
    pub(crate) fn vanish(&mut self, key: ManagerKey) -> Option<Millis> {
        let (now, interval) = (self.now(), millis(self.config.heartbeat_interval));
        let connection = self.books.connection(key)?;
        connection.is_client_there = false;
        // It has answered each ping until now, and each answer began a new interval.
        let last_frame = now - (now - connection.last_frame) % interval;
        Some(last_frame + interval + millis(self.config.heartbeat_timeout))
    }

    /// The task will never look at its lease again, whatever becomes of it.
    pub(crate) fn hang(&mut self, key: ManagerKey) {
        if let Some(connection) = self.books.connection(key) {
            connection.is_client_there = false;
            connection.is_hung = true;
        }
    }

    /// The task has closed the socket, and hangs.
    pub(crate) fn hang_closing(&mut self, key: ManagerKey) {
        let now = self.now();
        let Some(connection) = self.books.connection(key) else { return };
        let is_disconnected = connection.lease.closing().is_ok() && connection.lease.disconnected().is_ok();
        connection.disconnected_at = is_disconnected.then_some(now);
        self.hang(key);
    }

    /// The task has met an error, and hangs.
    pub(crate) fn hang_errored(&mut self, key: ManagerKey) {
        let now = self.now();
        let Some(connection) = self.books.connection(key) else { return };
        connection.errored_at = connection.lease.errored().is_ok().then_some(now);
        self.hang(key);
    }

    /// The connection's own task ends it; [`EndReason::Dropped`]: by a panic. Nothing happens if it is
    /// over already.
    pub(crate) fn close(&mut self, key: ManagerKey, reason: EndReason) {
        let Some(connection) = self.books.take(key) else { return };
        drop(connection.run);
        let is_late = match reason {
            EndReason::Dropped => {
                drop(connection.lease);
                false
            }
            _ => connection.lease.close(reason).is_err(),
        };
        let announced = self.witness.take();
        if is_late || announced != [(key, reason)] {
            self.books.wrong(format!("closing a connection of user {} ended {announced:?}", connection.user));
        }
        self.books.count_end(reason);
    }

    /// Once a second.
    pub(crate) fn maintain(&mut self) {
        let done = self.pool.maintain(self.pool.clock().now());
        self.attend(Doing::Cleaning);
        if done.is_busy || done.panics > 0 {
            self.books.wrong(format!("maintenance: {done:?}"));
        }
        let now = self.now();
        while let Some((_, user, reservation)) = self.hung.pop_front_if(|(deadline, ..)| *deadline <= now) {
            self.books.place_left(user);
            if !matches!(reservation.open(), Err(OpenError::Expired)) {
                self.books.wrong(format!("user {user} opened a reservation after its deadline"));
            }
        }
        while let Some((_, lease)) = self.late.pop_front_if(|(at, _)| *at <= now) {
            self.books.late_closes += 1;
            if lease.close(EndReason::Closed).is_ok() {
                self.books.wrong("a late close ended another connection".to_owned());
            }
        }
    }

    /// The pool's figures, and whether they agree with each other and with our own books.
    pub(crate) fn audit(&mut self) -> (PoolSnapshot, bool) {
        let snapshot = self.pool.snapshot();
        let is_balanced = snapshot.ledger.balanced
            && self.pool.check() == Verdict::Balanced
            && snapshot.live == self.books.open
            && snapshot.ledger.tally.opened == self.books.connections_made;
        (snapshot, is_balanced)
    }

    pub(crate) fn alerts(&self) -> [u64; 5] {
        self.witness.alerts()
    }

    /// The next client whose connection the pool has ended.
    pub(crate) fn next_lost(&mut self) -> Option<(u32, ManagerKey)> {
        self.lost.pop()
    }

    /// Looks at every end that has just been told of.
    fn attend(&mut self, doing: Doing) {
        let ends = self.witness.take();
        if ends.is_empty() {
            return;
        }
        // First all verdicts, since each depends on how many the user had.
        for &(key, reason) in &ends {
            self.books.judge(key, reason, doing);
        }
        for (key, reason) in ends {
            let Some(connection) = self.books.take(key) else { continue };
            self.books.count_end(reason);
            if connection.is_client_there {
                self.lost.push((connection.user, key));
            }
            self.late.push_back((self.now() + LATE_BY, connection.lease));
        }
    }

    fn context(&mut self, user: u32, thread: u32) -> UserExecutionContext {
        self.text.clear();
        write!(self.text, "user-{user}thread_{thread}").expect("a string takes it");
        let (user, thread) = self.text.split_at(self.text.len() - "thread_".len() - digits(thread));
        let ids = IdGenerator::user_context_ids(user, "simulate").with_client_thread(thread);
        UserExecutionContext::from_websocket_request(user, ids.expect("a valid thread"))
            .expect("a valid user")
    }
}

fn digits(number: u32) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn millis(span: Duration) -> Millis {
    span.as_millis() as Millis
}
