//! What was sent and what was heard, written down on both sides, and compared at the end.
//!
//! Every act takes a number from one counter before and after. So of two acts it is known that one
//! was over before the other began, or that they overlapped. A send that was made while a connection
//! was certainly open has to be in its queue; what overlapped with its beginning or its end may be.

use crate::letter::{Address, Letter, Sender, Whose};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use ws_manager_pool::serve::CloseReport;
use ws_manager_pool::{EndReason, ManagerKey, Pool, SendOutcome, SendReport, Session};

/// A place in the order of all acts.
pub(crate) type Moment = u64;

/// Not yet, or never.
pub(crate) const NEVER: Moment = u64::MAX;

#[derive(Default)]
pub(crate) struct Log {
    moments: AtomicU64,
    senders: AtomicU64,
    sent: Mutex<Vec<Sent>>,
    /// Messages that are no letters: welcomes, answers, the last one.
    also_queued: AtomicU64,
    also_refused: AtomicU64,
    served: Mutex<HashMap<ManagerKey, Served>>,
    lived: Mutex<Vec<Lived>>,
}

/// What became of a letter, by the pool's own word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) queued: usize,
    pub(crate) stale: usize,
    /// Of the keys that it was addressed to, those that were over.
    stale_keys: Vec<ManagerKey>,
    /// Not taken, for whatever reason that the pool gave.
    pub(crate) refused: usize,
    /// Of these, the connections that were about to close.
    pub(crate) closing: usize,
    /// Of these, the connections that ended by it.
    pub(crate) ended: usize,
    /// Older messages that made room for it.
    pub(crate) displaced: usize,
}

struct Sent {
    letter: Letter,
    begun: Moment,
    done: Moment,
    outcome: Outcome,
}

/// A connection as its server sees it.
struct Served {
    opening: Moment,
    opened: Moment,
    gone: Moment,
    reason: EndReason,
    messages_out: u64,
}

/// How a connection went, as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stayed until nobody sent any more, and heard the last message of all.
    Stayed,
    /// The server ended it, after everything that was queued.
    LastWords,
    /// It ended in the middle.
    Cut,
}

/// A connection as its client sees it.
pub(crate) struct Lived {
    pub(crate) whose: Whose,
    pub(crate) fate: Fate,
    /// Before anything was done that would end it.
    pub(crate) leaving: Moment,
    pub(crate) letters: Vec<(Sender, u64)>,
    /// Other messages that it heard.
    pub(crate) others: u64,
}

impl Lived {
    pub(crate) fn new(whose: Whose) -> Self {
        Self { whose, fate: Fate::Cut, leaving: NEVER, letters: Vec::new(), others: 0 }
    }

    /// Takes down what was heard. A letter for somebody else ends the test.
    pub(crate) fn hear(&mut self, text: &str) {
        let Ok(letter) = text.parse::<Letter>() else {
            self.others += 1;
            return;
        };
        assert!(letter.to.names(&self.whose), "at a wrong one: {letter} came to {:?}", self.whose);
        self.letters.push((letter.from, letter.order));
    }
}

impl Log {
    pub(crate) fn moment(&self) -> Moment {
        self.moments.fetch_add(1, SeqCst)
    }

    pub(crate) fn new_sender(&self) -> Sender {
        self.senders.fetch_add(1, SeqCst)
    }

    /// Sends a letter of at least `size` bytes, and takes down what became of it.
    pub(crate) fn send<S: Session>(&self, pool: &Pool<S>, letter: Letter, size: usize) -> Outcome {
        let message = letter.seal(size);
        let begun = self.moment();
        let outcome = match &letter.to {
            Address::Keys { keys, .. } if keys.len() == 1 => to_one(keys[0], &pool.send(keys[0], message)),
            Address::Keys { keys, .. } => {
                let report = pool.send_many(keys, message);
                Outcome { stale_keys: report.stale_keys, ..reported(report.sum) }
            }
            Address::Thread { user, thread } => {
                reported(pool.send_to_thread(&crate::isolation_key(*user, *thread), message))
            }
            Address::User { user } => reported(pool.send_to_user(&crate::user_id(*user), message)),
            Address::All => reported(pool.broadcast(message)),
        };
        let done = self.moment();
        self.sent.lock().push(Sent { letter, begun, done, outcome: outcome.clone() });
        outcome
    }

    /// Takes down a message that is no letter.
    pub(crate) fn also_sent(&self, outcome: &SendOutcome) {
        match outcome {
            SendOutcome::Stale => {}
            outcome if outcome.is_queued() => self.also_broadcast(1),
            _ => _ = self.also_refused.fetch_add(1, SeqCst),
        }
    }

    /// Takes down a message that is no letter and is in so many queues.
    pub(crate) fn also_broadcast(&self, queued: usize) {
        self.also_queued.fetch_add(queued as u64, SeqCst);
    }

    pub(crate) fn opened(&self, key: ManagerKey, opening: Moment) {
        let reason = EndReason::Unknown;
        let opened = self.moment();
        let served = Served { opening, opened, gone: NEVER, reason, messages_out: 0 };
        assert!(self.served.lock().insert(key, served).is_none(), "{key} was somebody else's before");
    }

    pub(crate) fn over(&self, report: &CloseReport) {
        let gone = self.moment();
        let mut served = self.served.lock();
        let served = served.get_mut(&report.key).expect("it was opened");
        (served.gone, served.reason) = (gone.min(served.gone), report.reason);
        served.messages_out = report.messages_out;
    }

    /// The lease is over from now on, though its task may not know.
    pub(crate) fn evicted(&self, key: ManagerKey) {
        let gone = self.moment();
        self.served.lock().get_mut(&key).expect("it was opened").gone = gone;
    }

    pub(crate) fn lived(&self, life: Lived) {
        self.lived.lock().push(life);
    }

    /// Compares both sides, letter by letter and connection by connection, and both with the pool's own
    /// account.
    pub(crate) fn verify<S: Session>(&self, pool: &Pool<S>) -> Figures {
        let (sent, served, lived) = (self.sent.lock(), self.served.lock(), self.lived.lock());
        assert_eq!(lived.len(), served.len(), "every connection has two sides");
        let mut figures = Figures::of(&lived);
        let numbers: HashMap<_, _> =
            sent.iter().enumerate().map(|(at, sent)| ((sent.letter.from, sent.letter.order), at)).collect();
        let mut by_user: HashMap<_, Vec<_>> = HashMap::new();
        for (at, sent) in sent.iter().enumerate() {
            by_user.entry(sent.letter.to.user()).or_default().push(at);
        }
        let mut tallies = vec![Tally::default(); sent.len()];
        for life in lived.iter() {
            let side = &served[&life.whose.key];
            let heard = in_order(life);
            // Whatever was over before this began was in the queue before this.
            let newest = heard.iter().map(|id| sent[numbers[id]].begun).max().unwrap_or(0);
            let own = by_user.get(&Some(life.whose.user)).into_iter().chain(by_user.get(&None)).flatten();
            for &at in own.filter(|&&at| sent[at].letter.to.names(&life.whose)) {
                let (sent, tally) = (&sent[at], &mut tallies[at]);
                let is_heard = heard.contains(&(sent.letter.from, sent.letter.order));
                sent.compare(life, side, is_heard, newest);
                tally.heard += usize::from(is_heard);
                tally.may_be_lost += usize::from(!is_heard && sent.may_be_lost(life, side, newest));
            }
            let all = life.letters.len() as u64 + life.others;
            let handed = side.messages_out;
            match life.fate {
                // Its end could be waited for: what was handed to the socket has arrived.
                Fate::Stayed | Fate::LastWords => {
                    assert_eq!(all, handed, "{:?}", life.whose);
                    let is_told = matches!(side.reason, EndReason::Closed | EndReason::HandlerError);
                    assert!(is_told, "{:?} ended by {}", life.whose, side.reason);
                }
                Fate::Cut => assert!(all <= handed, "{:?}: {all} of {handed}", life.whose),
            }
            figures.heard += all;
            figures.handed += handed;
        }
        for (sent, tally) in sent.iter().zip(&tallies) {
            let queued = sent.outcome.queued;
            let possible = tally.heard..=tally.heard + tally.may_be_lost;
            assert!(possible.contains(&queued), "{}: {queued} queued, {possible:?} possible", sent.letter);
            figures.exact += usize::from(tally.may_be_lost == 0);
        }
        figures.sum(&sent);
        figures.queued += self.also_queued.load(SeqCst);
        let refused = figures.refused as u64 + self.also_refused.load(SeqCst);
        figures.assert_books(pool, refused);
        figures
    }

    /// Compares both sides where queues give up their oldest letters: all together heard as many as were
    /// queued for them and not displaced, and each the newest of all. Every connection stayed.
    pub(crate) fn verify_displaced<S: Session>(&self, pool: &Pool<S>) -> Figures {
        let (sent, served, lived) = (self.sent.lock(), self.served.lock(), self.lived.lock());
        let mut figures = Figures::of(&lived);
        for life in lived.iter() {
            assert_eq!(life.fate, Fate::Stayed, "{:?}", life.whose);
            let heard = in_order(life);
            let own = || sent.iter().filter(|sent| sent.letter.to.names(&life.whose));
            let newest = own().max_by_key(|sent| sent.done).expect("somebody wrote to it");
            // Of two that overlapped, nobody knows which one was queued first.
            let is_last = own().filter(|sent| sent.done > newest.begun).count() == 1;
            let id = (newest.letter.from, newest.letter.order);
            assert!(!is_last || heard.contains(&id), "{:?} did not hear the newest", life.whose);
            figures.heard += heard.len() as u64 + life.others;
            figures.handed += served[&life.whose.key].messages_out;
        }
        figures.sum(&sent);
        figures.queued += self.also_queued.load(SeqCst);
        assert_eq!(figures.heard + figures.displaced, figures.queued, "{figures}");
        figures.assert_books(pool, figures.refused as u64);
        figures
    }
}

fn to_one(key: ManagerKey, outcome: &SendOutcome) -> Outcome {
    let one = |is_so: bool| usize::from(is_so);
    let is_stale = *outcome == SendOutcome::Stale;
    Outcome {
        queued: one(outcome.is_queued()),
        stale: one(is_stale),
        stale_keys: if is_stale { vec![key] } else { Vec::new() },
        refused: one(!is_stale && !outcome.is_queued()),
        closing: one(*outcome == SendOutcome::Dropped),
        ended: one(matches!(outcome, SendOutcome::Ended(_))),
        displaced: if let SendOutcome::Displaced(n) = outcome { *n } else { 0 },
    }
}

fn reported(report: SendReport) -> Outcome {
    let SendReport { queued, stale, ended, displaced, .. } = report;
    let closing = report.dropped;
    let refused = report.full + closing + ended;
    assert_eq!(report.addressed(), queued + stale + refused);
    Outcome { queued, stale, stale_keys: Vec::new(), refused, closing, ended, displaced }
}

/// What a connection heard: each letter once, those of each sender in their order.
fn in_order(life: &Lived) -> HashSet<(Sender, u64)> {
    let mut last = HashMap::new();
    for &(from, order) in &life.letters {
        let before = last.insert(from, order);
        assert!(before < Some(order), "{:?}: {order} of {from} came after {before:?}", life.whose);
    }
    life.letters.iter().copied().collect()
}

impl Sent {
    /// Was it certainly put into the queue of a life that it is addressed to?
    fn is_certain(&self, life: &Lived, side: &Served) -> bool {
        match &self.letter.to {
            Address::Keys { keys, .. } if keys.len() == 1 => self.outcome.queued == 1,
            _ if self.outcome.refused > 0 => false, // nobody knows for whom
            Address::Keys { .. } => !self.was_stale_for(life),
            _ => self.begun > side.opened && self.done < life.leaving,
        }
    }

    fn was_stale_for(&self, life: &Lived) -> bool {
        self.outcome.stale_keys.contains(&life.whose.key)
    }

    fn compare(&self, life: &Lived, side: &Served, is_heard: bool, newest: Moment) {
        let (letter, whose) = (&self.letter, &life.whose);
        if is_heard {
            assert!(self.outcome.queued > 0, "{letter}: heard by {whose:?}, and not queued");
            assert!(!self.was_stale_for(life), "{letter}: heard by {whose:?}, and stale");
            assert!(self.begun < side.gone, "{letter}: sent after the end of {whose:?}");
        } else if self.is_certain(life, side) {
            assert_eq!(life.fate, Fate::Cut, "{letter}: lost for {whose:?}");
            assert!(self.done >= newest, "{letter}: a hole in what {whose:?} heard");
        }
        if matches!(letter.to, Address::Keys { .. }) && self.begun > side.gone {
            assert!(self.was_stale_for(life), "{letter}: taken after the end of {whose:?}");
        }
    }

    /// Not heard: could it have been queued for this life all the same?
    fn may_be_lost(&self, life: &Lived, side: &Served, newest: Moment) -> bool {
        let overlaps = self.begun < side.gone && self.done > side.opening && !self.was_stale_for(life);
        life.fate == Fate::Cut && overlaps && self.done >= newest
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    heard: usize,
    may_be_lost: usize,
}

/// The account of a test, in messages unless it says something else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) lives: usize,
    pub(crate) stayed: usize,
    pub(crate) last_words: usize,
    /// Slots that they had.
    pub(crate) slots: usize,
    /// Slots that went from one user to another.
    pub(crate) inherited: usize,
    pub(crate) sends: usize,
    /// Sends of which what was queued is what was heard, without any doubt.
    pub(crate) exact: usize,
    pub(crate) queued: u64,
    pub(crate) handed: u64,
    pub(crate) heard: u64,
    pub(crate) stale: usize,
    pub(crate) refused: usize,
    /// Of these, to connections that were about to close.
    pub(crate) closing: usize,
    /// Of these, to connections that ended by it.
    pub(crate) ended: usize,
    pub(crate) displaced: u64,
}

impl Figures {
    fn of(lived: &[Lived]) -> Self {
        let with = |fate| lived.iter().filter(|life| life.fate == fate).count();
        let mut users: HashMap<u32, HashSet<usize>> = HashMap::new();
        for Whose { user, key, .. } in lived.iter().map(|life| life.whose) {
            users.entry(key.index()).or_default().insert(user);
        }
        Self {
            lives: lived.len(),
            stayed: with(Fate::Stayed),
            last_words: with(Fate::LastWords),
            slots: users.len(),
            inherited: users.values().filter(|users| users.len() > 1).count(),
            ..Self::default()
        }
    }

    fn sum(&mut self, sent: &[Sent]) {
        self.sends = sent.len();
        for Sent { outcome, .. } in sent {
            self.queued += outcome.queued as u64;
            self.stale += outcome.stale;
            self.refused += outcome.refused;
            self.closing += outcome.closing;
            self.ended += outcome.ended;
            self.displaced += outcome.displaced as u64;
        }
    }

    /// What was queued was handed to a socket, displaced, or cleared at an end, and the pool says the same.
    fn assert_books<S: Session>(&self, pool: &Pool<S>, refused: u64) {
        let books = pool.snapshot().delivery;
        let Self { queued, handed, displaced, .. } = *self;
        assert_eq!((books.accepted, books.delivered), (queued, handed), "{books:?}: {self}");
        assert_eq!(
            (books.displaced, books.refused, books.gaps),
            (displaced, refused, 0),
            "{books:?}: {self}"
        );
        assert_eq!(books.unsent + handed + displaced, queued, "{books:?}: {self}");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lives, stayed, last_words, slots, inherited, sends, exact, .. } = self;
        let Self { queued, handed, heard, stale, refused, closing, ended, displaced, .. } = self;
        let on_the_way = handed.saturating_sub(*heard);
        let cleared = queued.saturating_sub(handed + displaced);
        write!(
            f,
            "{lives} connections in {slots} slots ({inherited} went from user to user), {stayed} to the end, \
             {last_words} with last words; {sends} sends, {exact} of them exact; {queued} queued = {heard} \
             heard + {on_the_way} on the way + {cleared} in the queue at an end + {displaced} displaced; \
             {stale} stale, {refused} refused ({closing} about to close, {ended} ended by it)"
        )
    }
}
