//! Ids are serialised as the text they are shown as. None is deserialised: what comes from outside
//! goes through the constructors and their rules.

use super::{IsolationKey, RequestId, RunId, ThreadId, UserId};
use serde::{Serialize, Serializer};

macro_rules! serialize_as_shown {
    ($($id:ty),+) => {$(
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}

serialize_as_shown!(UserId, ThreadId, RunId, RequestId, IsolationKey);
