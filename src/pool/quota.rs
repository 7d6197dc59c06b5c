//! Limits beyond one pool's own: tenants, and users whose connections are in several pools.
//!
//! A [`QuotaDomain`] counts what the users of all its pools hold, each count under the lock of one part
//! of the users. It is asked and told inside the user's section of the pool, so that the pool's own count
//! and the domain's move together; its locks come after those of the pools' shards, and inside them only
//! a tenant's rules are locked.

use super::core::Core;
use super::registry::shrink_table;
use crate::config::AtLimit;
use crate::id::UserId;
use crate::manager::Session;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

/// Limits that several pools share, and limits of tenants: groups of users that the application names. A
/// cloneable handle.
///
/// A user's maximum applies to what the user holds in all pools of the domain together; a tenant's to
/// what all its users hold. Where a tenant is full, its policy may make room only among the connections
/// of the very user who comes: one user's connection never ends for another's.
///
/// ```
/// use ws_manager_pool::{IdGenerator, Pool, QuotaDomain, ReserveError, UserExecutionContext, UserId};
///
/// let quotas = QuotaDomain::new();
/// quotas.set_tenant("acme", 1, None);
/// quotas.assign(&UserId::new("ada")?, Some("acme"))?;
/// let chat: Pool = Pool::builder().name("doc-chat").quotas(&quotas).build()?;
/// let feed: Pool<()> = Pool::builder().name("doc-feed").quotas(&quotas).build()?;
///
/// let context = || {
///     let ids = IdGenerator::user_context_ids("ada", "chat");
///     UserExecutionContext::from_websocket_request("ada", ids)
/// };
/// let held = chat.reserve(&context()?)?;
/// assert_eq!(feed.reserve(&context()?).unwrap_err(), ReserveError::TenantFull { max_managers: 1 });
/// drop(held);
/// assert!(feed.reserve(&context()?).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct QuotaDomain(Arc<Domain>);

struct Domain {
    hasher: RandomState,
    parts: Box<[CachePadded<Mutex<HashTable<Member>>>]>,
    tenants: Mutex<BTreeMap<String, Arc<Tenant>>>,
    pools: Mutex<Vec<Weak<dyn Bell>>>,
    /// Those who wait for a place, in all pools.
    waiting: AtomicUsize,
}

/// A user who holds something, or who belongs to a tenant.
struct Member {
    hash: u64,
    user: UserId,
    count: usize,
    tenant: Option<Arc<Tenant>>,
}

struct Tenant {
    rules: Mutex<TenantRules>,
    count: AtomicUsize,
}

#[derive(Clone, Copy)]
struct TenantRules {
    max_managers: usize,
    at_limit: Option<AtLimit>,
}

/// A tenant's figures at a moment.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TenantFigures {
    /// The tenant's name.
    pub tenant: String,
    /// Managers of its users in all pools of the domain, reserved and live.
    pub manager_count: usize,
    /// Managers that its users may have together.
    pub max_managers: usize,
    /// The share of the maximum.
    pub usage_ratio: f64,
}

/// No tenant of this name: give it a limit first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTenant {
    tenant: String,
}

impl fmt::Display for UnknownTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no tenant {:?}: give it a limit with `set_tenant` first", self.tenant)
    }
}

impl std::error::Error for UnknownTenant {}

/// What is full, seen from one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    User,
    Tenant { max_managers: usize },
}

/// A pool that may have somebody waiting for a place that another pool frees.
pub(crate) trait Bell: Send + Sync {
    fn ring(&self);
}

const PARTS: usize = 64;

impl QuotaDomain {
    /// A domain without pools, users and tenants.
    pub fn new() -> Self {
        Self(Arc::new(Domain {
            hasher: RandomState::new(),
            parts: std::iter::repeat_with(CachePadded::default).take(PARTS).collect(),
            tenants: Mutex::default(),
            pools: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// Gives a tenant its limit, and a policy of its own if it is to have one. A lowered limit closes
    /// nobody.
    pub fn set_tenant(&self, tenant: &str, max_managers: usize, at_limit: Option<AtLimit>) {
        let rules = TenantRules { max_managers, at_limit };
        let mut tenants = self.0.tenants.lock();
        match tenants.get(tenant) {
            Some(known) => *known.rules.lock() = rules,
            None => {
                let fresh = Tenant { rules: Mutex::new(rules), count: AtomicUsize::new(0) };
                tenants.insert(tenant.to_owned(), Arc::new(fresh));
            }
        }
        drop(tenants);
        self.ring();
    }

    /// Makes a user one of a tenant's, or nobody's. What the user holds moves along, also beyond the
    /// tenant's limit.
    ///
    /// # Errors
    ///
    /// [`UnknownTenant`]: it has no limit yet.
    pub fn assign(&self, user: &UserId, tenant: Option<&str>) -> Result<(), UnknownTenant> {
        let tenant = match tenant {
            Some(name) => {
                let unknown = || UnknownTenant { tenant: name.to_owned() };
                Some(self.tenant(name).ok_or_else(unknown)?)
            }
            None => None,
        };
        self.with_member(user, |member| {
            if let (Some(new), Some(old)) = (&tenant, &member.tenant)
                && Arc::ptr_eq(new, old)
            {
                return; // it would count twice for a moment
            }
            if let Some(new) = &tenant {
                new.count.fetch_add(member.count, Ordering::Relaxed);
            }
            if let Some(old) = std::mem::replace(&mut member.tenant, tenant) {
                old.count.fetch_sub(member.count, Ordering::Relaxed);
            }
        });
        self.ring();
        Ok(())
    }

    /// A tenant's figures; `None` if there is no such tenant.
    pub fn tenant_figures(&self, tenant: &str) -> Option<TenantFigures> {
        let found = self.tenant(tenant)?;
        let max_managers = found.rules.lock().max_managers;
        let manager_count = found.count.load(Ordering::Relaxed);
        Some(TenantFigures {
            tenant: tenant.to_owned(),
            manager_count,
            max_managers,
            usage_ratio: manager_count as f64 / max_managers.max(1) as f64,
        })
    }

    /// What a user holds in all pools of the domain.
    pub fn count_of(&self, user: &UserId) -> usize {
        let hash = self.0.hasher.hash_one(user);
        let part = self.part(hash).lock();
        part.find(hash, |member| member.user == *user).map_or(0, |member| member.count)
    }

    /// Counts one more for a user, who may have `max_managers`, if `claim` finds a slot. In the user's
    /// section.
    ///
    /// The claim is made under the locks of the counts, so that a pool without slots never lets a user or
    /// a tenant look full to another pool, not for a moment: who saw that might wait for nothing.
    pub(crate) fn take<T, E>(
        &self,
        user: &UserId,
        max_managers: usize,
        claim: impl FnOnce() -> Result<T, E>,
    ) -> Result<Result<T, E>, Full> {
        self.with_member(user, |member| {
            if member.count >= max_managers {
                return Err(Full::User);
            }
            let claimed = match &member.tenant {
                None => claim(),
                Some(tenant) => {
                    let rules = tenant.rules.lock();
                    // Relaxed: it rises under the lock only.
                    if tenant.count.load(Ordering::Relaxed) >= rules.max_managers {
                        return Err(Full::Tenant { max_managers: rules.max_managers });
                    }
                    let claimed = claim();
                    tenant.count.fetch_add(usize::from(claimed.is_ok()), Ordering::Relaxed);
                    claimed
                }
            };
            member.count += usize::from(claimed.is_ok());
            Ok(claimed)
        })
    }

    /// Counts one less. In the user's section; whoever waits is rung for outside it.
    pub(crate) fn give(&self, user: &UserId) {
        self.with_member(user, |member| {
            member.count -= 1;
            if let Some(tenant) = &member.tenant {
                tenant.count.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }

    /// What the user's tenant wants at a limit.
    pub(crate) fn policy_of(&self, user: &UserId) -> Option<AtLimit> {
        let hash = self.0.hasher.hash_one(user);
        let part = self.part(hash).lock();
        let tenant = part.find(hash, |member| member.user == *user)?.tenant.as_ref()?;
        tenant.rules.lock().at_limit
    }

    pub(crate) fn join(&self, pool: Weak<dyn Bell>) {
        let mut pools = self.0.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// Somebody waits for a place in one of the pools. Before the fence that pairs with the one of
    /// whoever frees a place.
    pub(crate) fn one_waits(&self) {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn one_waits_no_more(&self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// A place was freed. After the fence that pairs with that of whoever waits: either we see here that
    /// somebody waits, or who waits, looking after its own fence, sees the place.
    pub(crate) fn place_freed(&self) {
        if self.0.waiting.load(Ordering::Relaxed) > 0 {
            self.ring();
        }
    }

    /// Gives back the memory that the tables keep from a peak.
    pub(super) fn shrink(&self) {
        self.0.parts.iter().for_each(|part| shrink_table(&mut part.lock(), |member| member.hash));
    }

    fn ring(&self) {
        let pools = self.0.pools.lock().clone();
        pools.iter().filter_map(Weak::upgrade).for_each(|pool| pool.ring());
    }

    fn tenant(&self, name: &str) -> Option<Arc<Tenant>> {
        self.0.tenants.lock().get(name).cloned()
    }

    fn part(&self, hash: u64) -> &Mutex<HashTable<Member>> {
        &self.0.parts[(hash >> 32) as usize % PARTS]
    }

    /// The member's entry, made if there is none and forgotten if nothing is left to know.
    fn with_member<T>(&self, user: &UserId, change: impl FnOnce(&mut Member) -> T) -> T {
        let hash = self.0.hasher.hash_one(user);
        let mut part = self.part(hash).lock();
        let is_user = |member: &Member| member.hash == hash && member.user == *user;
        let mut entry = part.entry(hash, is_user, |member| member.hash).or_insert_with(|| Member {
            hash,
            user: user.clone(),
            count: 0,
            tenant: None,
        });
        let changed = change(entry.get_mut());
        if entry.get().count == 0 && entry.get().tenant.is_none() {
            entry.remove();
        }
        changed
    }
}

impl Default for QuotaDomain {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for QuotaDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaDomain")
            .field("tenants", &self.0.tenants.lock().keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl<S: Session> Bell for Core<S> {
    fn ring(&self) {
        self.serve_if_awaited();
    }
}
