//! Known bugs, planted on purpose: what catches them is a check that works.
//!
//! `--cfg fault="name"` plants one. `--cfg fault="any"` builds all of them in, and the environment
//! variable `POOL_FAULT` then names the one that a process has, so that one build serves the whole gate
//! (`.ci/faults`). Without either, each is a constant `false`, and nothing of it is compiled.

/// Is the known bug of this name planted?
macro_rules! fault {
    ($name:literal) => {
        $crate::fault::is_planted(cfg!(fault = $name), $name)
    };
}

#[cfg(fault = "any")]
pub(crate) fn is_planted(is_the_one: bool, name: &str) -> bool {
    is_the_one || is_chosen(name)
}

#[cfg(not(fault = "any"))]
#[inline(always)]
pub(crate) const fn is_planted(is_the_one: bool, _: &str) -> bool {
    is_the_one
}

#[cfg(fault = "any")]
fn is_chosen(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("POOL_FAULT").ok()).as_deref() == Some(name)
}
