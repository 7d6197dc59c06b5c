//! The clients' side: users, their tabs, and what they do to the server.

use super::chance::Chance;
use super::habits::{self, Act, Habits, Outage, REGIONS};
use super::queue::{Event, Millis, Queue};
use super::server::Server;
use ws_manager_pool::{EndReason, ManagerKey, Reservation, ReserveError};

pub(crate) struct Traffic {
    pub(crate) server: Server,
    queue: Queue,
    users: Vec<User>,
    outages: Vec<Outage>,
    /// Outages under way, by region.
    dark: [u32; REGIONS],
    /// A server without heartbeats finds out by sweeps alone who is gone.
    has_heartbeats: bool,
    /// Nothing fails any more: what is left behind is to be found.
    pub(crate) is_calm: bool,
    pub(crate) lockouts: u64,
    pub(crate) outages_seen: u64,
}

struct User {
    chance: Chance,
    habits: Habits,
    /// The date that counts; others were called off.
    turn: u32,
    last_turn: u32,
    next_thread: u32,
    is_here: bool,
    /// How long the network holds, for one that flaps.
    flap: Option<Millis>,
    tabs: Vec<Tab>,
}

struct Tab {
    thread: u32,
    /// The date that counts; others were called off.
    turn: u32,
    /// Refusals in a row.
    tries: u32,
    link: Link,
    /// Its connection before, which vanished on the same thread.
    before: Option<ManagerKey>,
}

enum Link {
    /// Not connected, and about to dial.
    Off,
    /// In a box, so that looking through a user's tabs does not wade through reservations.
    Handshake(Box<Reservation>),
    On(ManagerKey),
}

impl Traffic {
    pub(crate) fn new(server: Server, users: u32, seed: u64, end: Millis, is_leaky: bool) -> Self {
        let mut chance = Chance::new(seed, u64::MAX);
        let outages = habits::outages(&mut chance, end);
        let mut queue = Queue::default();
        queue.plan(habits::MORNING, Event::Morning);
        for (outage, planned) in outages.iter().enumerate() {
            queue.plan(planned.begins, Event::OutageBegins { outage });
            queue.plan(planned.ends, Event::OutageEnds { outage });
        }
        let flapping_per_mille = if is_leaky { habits::FLAPPING } else { 0 };
        let draw = |user| {
            let mut chance = Chance::new(seed, u64::from(user));
            let habits = Habits::draw(&mut chance, flapping_per_mille);
            let absence = chance.within(0..habits::ABSENCE.end);
            queue.plan(absence, Event::User { user, turn: 0 });
            let tabs = Vec::new();
            User { chance, habits, turn: 0, last_turn: 0, next_thread: 0, is_here: false, flap: None, tabs }
        };
        let users = (0..users).map(draw).collect();
        Self {
            server,
            queue,
            users,
            outages,
            dark: [0; REGIONS],
            has_heartbeats: !is_leaky,
            is_calm: false,
            lockouts: 0,
            outages_seen: 0,
        }
    }

    /// Everything up to that moment, which is the present one then.
    pub(crate) fn run_until(&mut self, until: Millis) {
        while let Some((at, event)) = self.queue.next_before(until) {
            self.server.advance(at);
            self.happen(event);
            self.tell_the_lost();
        }
        self.server.advance(until);
        self.server.maintain();
        self.tell_the_lost();
    }

    /// Users with a tab.
    pub(crate) fn users_here(&self) -> usize {
        self.users.iter().filter(|user| user.is_here).count()
    }

    /// Closes every tab.
    pub(crate) fn close_all(&mut self) {
        for id in 0..self.users.len() {
            for tab in std::mem::take(&mut self.users[id].tabs) {
                match tab.link {
                    Link::Off => {}
                    Link::Handshake(reservation) => self.server.give_back(id as u32, *reservation),
                    Link::On(key) => self.server.close(key, EndReason::Closed),
                }
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::User { user: id, turn } => match self.users[id as usize] {
                User { turn: planned, .. } if planned != turn => {}
                User { is_here: true, .. } => self.leave(id),
                User { .. } => self.think_of_coming(id),
            },
            Event::Tab { user: id, turn } => {
                let is_due = |tab: &Tab| tab.turn == turn;
                if let Some(at) = self.users[id as usize].tabs.iter().position(is_due) {
                    self.tab_is_due(id, at);
                }
            }
            Event::Silence(key) => self.server.close(key, EndReason::Heartbeat),
            Event::RunEnds(key) => self.server.end_run(key),
            Event::Morning => self.morning(),
            Event::OutageBegins { outage } => self.outage_begins(outage),
            Event::OutageEnds { outage } => self.outage_ends(outage),
        }
    }

    fn think_of_coming(&mut self, id: u32) {
        let now = self.server.now();
        let user = &mut self.users[id as usize];
        if !habits::comes(&mut user.chance, now) {
            let absence = user.chance.within(habits::ABSENCE);
            return self.plan_user(id, absence);
        }
        self.come(id);
    }

    fn come(&mut self, id: u32) {
        let user = &mut self.users[id as usize];
        user.is_here = true;
        let visit = user.chance.within(habits::VISIT);
        let mut tabs = habits::tabs_at_first(&mut user.chance, user.habits.most_tabs);
        if user.habits.flaps {
            user.flap = Some(user.chance.within(habits::FLAP));
            tabs = 1;
        }
        self.plan_user(id, visit);
        for _ in 0..tabs {
            self.open_tab(id);
        }
    }

    fn leave(&mut self, id: u32) {
        let user = &mut self.users[id as usize];
        let is_lid = user.chance.hits(habits::LIDS) && !self.is_calm;
        let absence = user.chance.within(habits::ABSENCE);
        user.is_here = false;
        for tab in std::mem::take(&mut user.tabs) {
            match tab.link {
                Link::Off => {}
                Link::Handshake(reservation) => self.server.give_back(id, *reservation),
                Link::On(key) if is_lid => self.vanish(key),
                Link::On(key) => self.server.close(key, EndReason::Closed),
            }
        }
        self.plan_user(id, absence);
    }

    fn open_tab(&mut self, id: u32) {
        let user = &mut self.users[id as usize];
        user.next_thread += 1;
        let wait = user.chance.within(habits::HANDSHAKE);
        user.tabs.push(Tab { thread: user.next_thread, turn: 0, tries: 0, link: Link::Off, before: None });
        let at = user.tabs.len() - 1;
        self.plan_tab(id, at, wait);
    }

    fn tab_is_due(&mut self, id: u32, at: usize) {
        let link = std::mem::replace(&mut self.users[id as usize].tabs[at].link, Link::Off);
        match link {
            Link::Off => self.dial(id, at),
            Link::Handshake(reservation) => self.enter(id, at, *reservation),
            Link::On(key) => {
                self.users[id as usize].tabs[at].link = Link::On(key);
                self.act(id, at, key);
            }
        }
    }

    fn dial(&mut self, id: u32, at: usize) {
        let user = &mut self.users[id as usize];
        if self.dark[user.habits.region] > 0 {
            return self.call_off(id, at); // the end of the outage plans anew
        }
        let reserved = self.server.reserve(id, user.tabs[at].thread);
        let chance = &mut user.chance;
        let tab = &mut user.tabs[at];
        let wait = match reserved {
            Ok(reservation) => {
                tab.tries = 0;
                let luck = chance.within(0..1_000);
                if luck < habits::FAILED_HANDSHAKES {
                    self.server.give_back(id, reservation);
                    habits::RETRY
                } else if luck < habits::FAILED_HANDSHAKES + habits::HUNG_HANDSHAKES && !self.is_calm {
                    self.server.forget(id, reservation);
                    habits::RETRY
                } else {
                    tab.link = Link::Handshake(Box::new(reservation));
                    chance.within(habits::HANDSHAKE)
                }
            }
            Err(refusal) => {
                tab.tries += 1;
                if tab.tries == 1 && matches!(refusal, ReserveError::UserFull { .. }) {
                    self.lockouts += 1;
                }
                if tab.tries == habits::MOST_TRIES && user.flap.is_none() {
                    user.tabs.swap_remove(at);
                    return;
                }
                habits::RETRY
            }
        };
        self.plan_tab(id, at, wait);
    }

    fn enter(&mut self, id: u32, at: usize, reservation: Reservation) {
        let user = &mut self.users[id as usize];
        let tab = &mut user.tabs[at];
        let wait = match self.server.open(id, tab.thread, reservation) {
            Ok(key) => {
                tab.link = Link::On(key);
                if let Some(before) = tab.before.take() {
                    self.server.must_be_over(before);
                }
                match user.flap {
                    Some(flap) => user.chance.within(flap / 2..flap * 3 / 2),
                    None => habits::pause(&mut user.chance),
                }
            }
            Err(_) => habits::RETRY,
        };
        self.plan_tab(id, at, wait);
    }

    fn act(&mut self, id: u32, at: usize, key: ManagerKey) {
        let now = self.server.now();
        let user = &mut self.users[id as usize];
        if user.flap.is_some() && !self.is_calm {
            return self.flap(id, at, key);
        }
        let chance = &mut user.chance;
        let mut act = Act::next(chance);
        if self.is_calm && act.is_failure() {
            act = Act::Chat;
        }
        let mut wait = habits::pause(chance);
        match act {
            Act::Chat => self.server.chat(key, chance.within(1..2_000) as usize),
            Act::Run | Act::LongRun => {
                let takes = if act == Act::Run { habits::SHORT_RUN } else { habits::LONG_RUN };
                let takes = chance.within(takes);
                if self.server.begin_run(key) {
                    self.queue.plan(now + takes, Event::RunEnds(key));
                    wait += takes;
                }
            }
            Act::Away => wait = chance.within(habits::AWAY),
            Act::OpenTab => {
                if user.tabs.len() < user.habits.most_tabs {
                    self.open_tab(id);
                }
            }
            Act::CloseTab if user.tabs.len() == 1 => {}
            Act::CloseTab => {
                user.tabs.swap_remove(at);
                return self.server.close(key, EndReason::Closed);
            }
            Act::Crash => {
                user.tabs.swap_remove(at);
                return self.vanish(key);
            }
            Act::Blip => {
                wait = chance.within(habits::BLIP);
                user.tabs[at].link = Link::Off;
                user.tabs[at].before = Some(key);
                self.vanish(key);
            }
            Act::HangClosing | Act::HangErrored => {
                wait = chance.within(habits::RELOAD);
                user.tabs[at].link = Link::Off;
                // A hung task is found by its thread too; this one is to be found by a sweep.
                user.next_thread += 1;
                user.tabs[at].thread = user.next_thread;
                user.tabs[at].before = None;
                if act == Act::HangClosing {
                    self.server.hang_closing(key);
                } else {
                    self.server.hang_errored(key);
                }
            }
            Act::Reload | Act::Reset | Act::Panic => {
                wait = chance.within(habits::RELOAD);
                user.tabs[at].link = Link::Off;
                self.server.close(
                    key,
                    match act {
                        Act::Reset => EndReason::SocketError,
                        Act::Panic => EndReason::Dropped,
                        _ => EndReason::Closed,
                    },
                );
            }
        }
        self.plan_tab(id, at, wait);
    }

    /// Says a word, loses the network, and comes back as somebody new.
    fn flap(&mut self, id: u32, at: usize, key: ManagerKey) {
        let user = &mut self.users[id as usize];
        self.server.chat(key, 100);
        user.next_thread += 1;
        let tab = &mut user.tabs[at];
        tab.thread = user.next_thread;
        (tab.link, tab.before) = (Link::Off, None);
        let wait = user.chance.within(habits::RELOAD);
        self.vanish(key);
        self.plan_tab(id, at, wait);
    }

    fn vanish(&mut self, key: ManagerKey) {
        if !self.has_heartbeats {
            self.server.hang(key);
        } else if let Some(at) = self.server.vanish(key) {
            self.queue.plan(at, Event::Silence(key));
        }
    }

    /// Whoever is not there yet comes, within seconds.
    fn morning(&mut self) {
        for id in 0..self.users.len() as u32 {
            let user = &mut self.users[id as usize];
            if user.habits.is_early && !user.is_here {
                let wait = user.chance.within(habits::MORNING_TAKES);
                self.plan_user(id, wait);
            }
        }
    }

    fn outage_begins(&mut self, outage: usize) {
        self.outages_seen += 1;
        for region in self.outages[outage].regions() {
            self.dark[region] += 1;
        }
        let is_hit = |user: &User| self.dark[user.habits.region] > 0;
        let hit: Vec<u32> =
            (0..self.users.len() as u32).filter(|&id| is_hit(&self.users[id as usize])).collect();
        for id in hit {
            for at in 0..self.users[id as usize].tabs.len() {
                let tab = &mut self.users[id as usize].tabs[at];
                match std::mem::replace(&mut tab.link, Link::Off) {
                    Link::Off => {}
                    // The server's task waits for a peer that will never answer.
                    Link::Handshake(reservation) => self.server.forget(id, *reservation),
                    Link::On(key) => {
                        tab.before = Some(key);
                        self.vanish(key);
                    }
                }
                self.call_off(id, at);
            }
        }
    }

    /// All who were cut off dial at once.
    fn outage_ends(&mut self, outage: usize) {
        for region in self.outages[outage].regions() {
            self.dark[region] -= 1;
        }
        for id in 0..self.users.len() as u32 {
            let user = &mut self.users[id as usize];
            if self.dark[user.habits.region] > 0 {
                continue;
            }
            for at in 0..user.tabs.len() {
                let user = &mut self.users[id as usize];
                if matches!(user.tabs[at].link, Link::Off) && user.tabs[at].turn == CALLED_OFF {
                    let wait = user.chance.within(0..3_000);
                    self.plan_tab(id, at, wait);
                }
            }
        }
    }

    /// A client whose connection the server ended dials again when it has something to say.
    fn tell_the_lost(&mut self) {
        while let Some((id, key)) = self.server.next_lost() {
            let tabs = &mut self.users[id as usize].tabs;
            let its = |tab: &&mut Tab| matches!(tab.link, Link::On(on) if on == key);
            if let Some(tab) = tabs.iter_mut().find(its) {
                tab.link = Link::Off;
            }
        }
    }

    fn plan_user(&mut self, id: u32, wait: Millis) {
        let user = &mut self.users[id as usize];
        user.turn += 1;
        self.queue.plan(self.server.now() + wait, Event::User { user: id, turn: user.turn });
    }

    fn plan_tab(&mut self, id: u32, at: usize, wait: Millis) {
        let user = &mut self.users[id as usize];
        user.last_turn += 1;
        user.tabs[at].turn = user.last_turn;
        self.queue.plan(self.server.now() + wait, Event::Tab { user: id, turn: user.last_turn });
    }

    fn call_off(&mut self, id: u32, at: usize) {
        self.users[id as usize].tabs[at].turn = CALLED_OFF;
    }
}

/// No date has this number.
const CALLED_OFF: u32 = 0;
