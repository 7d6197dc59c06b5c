use arrayvec::ArrayString;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
// `std`'s and not the door's: an id is immutable and its count guards nothing but its own memory,
// so there is no protocol to model.
use std::sync::Arc;

/// Texts up to this length are stored inline: so much fits beside length and tag in 48 bytes, and holds a
/// hyphenated UUID (36 bytes).
const INLINE_BYTES: usize = 40;

const _: () = assert!(size_of::<Text>() <= 48);

/// An immutable text, equal, ordered and hashed as the `str` it holds.
#[derive(Clone)]
pub(super) enum Text {
    Inline(ArrayString<INLINE_BYTES>),
    Shared(Arc<str>),
}

impl Text {
    pub(super) fn new(text: &str) -> Self {
        match ArrayString::from(text) {
            Ok(inline) => Self::Inline(inline),
            Err(_) => Self::Shared(Arc::from(text)),
        }
    }

    #[inline]
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Inline(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
