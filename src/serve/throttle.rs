//! How often a handshake may be tried, by address and by user.

use crate::clock::Clock;
use crate::id::UserId;
use crate::sync::{AtomicU64, Mutex, Ordering};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

/// Limits of handshakes: so many at once, and as many again in each span of time, spread over it. For
/// the time before a connection has a place, when it costs the server work all the same; the connections
/// themselves are counted by the pool.
///
/// Refused handshakes count for nothing, so whoever waits as long as told is let in. Of addresses and of
/// users [`Throttle::MAX_KEYS`] are told apart at a time, in at most 2.5 MiB each; should more come
/// within the span, those beyond share one limit, as if they were one. Who has not come for so long that
/// it makes no difference is forgotten, and the memory given back.
///
/// ```
/// use std::net::IpAddr;
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// use ws_manager_pool::serve::Throttle;
///
/// let twice = NonZeroU32::new(2).unwrap();
/// let throttle = Throttle::new().per_address(twice, Duration::from_secs(60));
/// let address = IpAddr::from([192, 0, 2, 1]);
/// assert!(throttle.check_address(address).is_ok());
/// assert!(throttle.check_address(address).is_ok());
/// let refused = throttle.check_address(address).unwrap_err();
/// assert_eq!(refused.http_status(), 429);
/// assert!(refused.retry_after() <= Duration::from_secs(30));
/// ```
pub struct Throttle {
    clock: Clock,
    addresses: Option<Limiter>,
    users: Option<Limiter>,
}

impl Throttle {
    /// So many addresses are told apart, and so many users.
    pub const MAX_KEYS: usize = 1 << 16;

    /// Limits nothing, until told what.
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// As [`Throttle::new`], by another clock.
    pub fn with_clock(clock: Clock) -> Self {
        Self { clock, addresses: None, users: None }
    }

    /// Lets an address try `handshakes` times at once, and as often again in each `span`. The addresses
    /// of one IPv6 network of 64 bits, which is what one customer gets, are one.
    #[must_use]
    pub fn per_address(self, handshakes: NonZeroU32, span: Duration) -> Self {
        let addresses = Some(Limiter::new(handshakes, span, &self.clock));
        Self { addresses, ..self }
    }

    /// Lets a user try `handshakes` times at once, and as often again in each `span`.
    #[must_use]
    pub fn per_user(self, handshakes: NonZeroU32, span: Duration) -> Self {
        let users = Some(Limiter::new(handshakes, span, &self.clock));
        Self { users, ..self }
    }

    /// Counts a handshake of an address: before anything is known of who it is. Takes a lock for a
    /// moment; once in five seconds, for as long as it takes to look through what is known.
    ///
    /// # Errors
    ///
    /// [`Throttled`]: too many. Nothing was counted.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Throttled> {
        let Some(limiter) = &self.addresses else { return Ok(()) };
        limiter.check(&network(address)).map_err(|retry_after| Throttled::Address { retry_after })
    }

    /// Counts a handshake of a user, once it is known who it is. Takes a lock as
    /// [`Throttle::check_address`] does.
    ///
    /// # Errors
    ///
    /// [`Throttled`]: too many. Nothing was counted.
    pub fn check_user(&self, user: &UserId) -> Result<(), Throttled> {
        let Some(limiter) = &self.users else { return Ok(()) };
        limiter.check(user).map_err(|retry_after| Throttled::User { retry_after })
    }

    /// How many addresses and how many users are known at present.
    pub fn known(&self) -> (usize, usize) {
        let known = |limiter: &Option<Limiter>| limiter.as_ref().map_or(0, |limiter| limiter.governor.len());
        (known(&self.addresses), known(&self.users))
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (addresses, users) = self.known();
        f.debug_struct("Throttle")
            .field("addresses", &addresses)
            .field("users", &users)
            .finish_non_exhaustive()
    }
}

/// Too many handshakes: answer with HTTP 429.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Throttled {
    /// From one address.
    Address {
        /// When the next one is let in.
        retry_after: Duration,
    },
    /// Of one user.
    User {
        /// When the next one is let in.
        retry_after: Duration,
    },
}

impl Throttled {
    /// The HTTP status that tells a client the same: 429.
    pub fn http_status(&self) -> u16 {
        429
    }

    /// When the next one is let in: the value of `Retry-After`, in seconds rounded up.
    pub fn retry_after(&self) -> Duration {
        let (Self::Address { retry_after } | Self::User { retry_after }) = self;
        *retry_after
    }
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = match self {
            Self::Address { .. } => "from this address",
            Self::User { .. } => "by this user",
        };
        let seconds = self.retry_after().as_millis().div_ceil(1_000);
        write!(f, "too many connections were opened {whose} in a short time: try again in {seconds} s")
    }
}

impl std::error::Error for Throttled {}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        v4 => v4,
    }
}

/// One limit for each key. A key is known by its 64-bit keyed hash: two that share it share a limit,
/// which nobody can bring about.
struct Limiter {
    governor: RateLimiter<u64, Marks, Watch>,
    hasher: RandomState,
    /// When what makes no difference is forgotten next, in the clock's milliseconds.
    sweep_at: AtomicU64,
}

impl Limiter {
    fn new(handshakes: NonZeroU32, span: Duration, clock: &Clock) -> Self {
        // Too short to be a time: the shortest that is one.
        let step = (span / handshakes.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(step).unwrap_or(Quota::per_second(handshakes));
        let marks = Marks(Mutex::default());
        Self {
            governor: RateLimiter::new(quota.allow_burst(handshakes), marks, Watch(clock.clone())),
            hasher: RandomState::new(),
            sweep_at: AtomicU64::new(0),
        }
    }

    /// An error is the time to wait.
    fn check(&self, key: &impl std::hash::Hash) -> Result<(), Duration> {
        self.sweep_if_due();
        let watch = self.governor.clock();
        let outcome = self.governor.check_key(&self.hasher.hash_one(key));
        outcome.map_err(|refused| refused.wait_time_from(governor::clock::Clock::now(watch)))
    }

    fn sweep_if_due(&self) {
        const EVERY: Duration = Duration::from_secs(5);
        let now = self.governor.clock().0.now();
        // Relaxed: only who sweeps is decided here; what is swept is behind its lock.
        let due = self.sweep_at.load(Ordering::Relaxed);
        let next = now.after(EVERY).as_millis();
        if now.as_millis() >= due
            && self.sweep_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.governor.retain_recent();
            self.governor.shrink_to_fit();
        }
    }
}

/// The crate's clock as governor asks for it.
struct Watch(Clock);

impl governor::clock::Clock for Watch {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Duration::from_millis(self.0.now().as_millis()).into()
    }
}

/// Governor's mark for each key, in a table with a bound.
struct Marks(Mutex<Table>);

#[derive(Default)]
struct Table {
    marks: HashTable<Mark>,
    /// The one mark of all who came when the table was full.
    others: Option<Nanos>,
}

struct Mark {
    key: u64,
    at: Nanos,
}

impl StateStore for Marks {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Under the lock: governor's arithmetic, and a table that doubles up to its bound.
        let mut table = self.0.lock();
        let Table { marks, others } = &mut *table;
        let is_full = marks.len() >= Throttle::MAX_KEYS;
        match marks.entry(*key, |mark| mark.key == *key, |mark| mark.key) {
            Entry::Occupied(mut mark) => {
                let (outcome, at) = f(Some(mark.get().at))?;
                mark.get_mut().at = at;
                Ok(outcome)
            }
            Entry::Vacant(_) if is_full => {
                let (outcome, at) = f(*others)?;
                *others = Some(at);
                Ok(outcome)
            }
            Entry::Vacant(place) => {
                let (outcome, at) = f(None)?;
                place.insert(Mark { key: *key, at });
                Ok(outcome)
            }
        }
    }
}

impl ShrinkableKeyedStateStore<u64> for Marks {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut table = self.0.lock();
        table.marks.retain(|mark| mark.at > drop_below);
        table.others = table.others.filter(|at| *at > drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.lock().marks.shrink_to_fit(|mark| mark.key);
    }

    fn len(&self) -> usize {
        self.0.lock().marks.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
