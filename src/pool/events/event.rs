//! An event, its number, and how both are written.

use crate::id::{RunId, ThreadId};
use crate::manager::{Gap, Message};
use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Write};
use std::str::FromStr;

/// What an agent does, in the order in which a run goes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum AgentEvent {
    /// A run began.
    #[cfg_attr(feature = "serde", serde(rename = "agent_started"))]
    Started,
    /// The agent thinks.
    #[cfg_attr(feature = "serde", serde(rename = "agent_thinking"))]
    Thinking,
    /// A tool is at work.
    #[cfg_attr(feature = "serde", serde(rename = "tool_executing"))]
    ToolExecuting,
    /// The tool is done.
    #[cfg_attr(feature = "serde", serde(rename = "tool_completed"))]
    ToolCompleted,
    /// The run is over. `outcome` is `completed`, or `aborted` if its [`Run`](super::Run) was dropped.
    #[cfg_attr(feature = "serde", serde(rename = "agent_completed"))]
    Completed,
}

impl AgentEvent {
    /// All five.
    pub const ALL: [Self; 5] =
        [Self::Started, Self::Thinking, Self::ToolExecuting, Self::ToolCompleted, Self::Completed];

    /// The name on the wire: the message's `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "agent_started",
            Self::Thinking => "agent_thinking",
            Self::ToolExecuting => "tool_executing",
            Self::ToolCompleted => "tool_completed",
            Self::Completed => "agent_completed",
        }
    }

    /// The event with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }
}

impl fmt::Display for AgentEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an event carries: nothing, a text, or with the `serde` feature anything that serialises to JSON.
/// `Debug` shows its length, never content.
///
/// ```
/// use ws_manager_pool::EventData;
///
/// let data: EventData = "reading the file".into();
/// assert_eq!(format!("{data:?}"), "EventData(18 bytes)");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EventData(Cow<'static, str>);

impl EventData {
    /// Nothing: the event has no `data`.
    pub const NONE: Self = Self(Cow::Borrowed(""));

    /// A text, as a JSON string.
    pub fn text(text: &str) -> Self {
        let mut json = String::with_capacity(text.len() + 2);
        json.push('"');
        for character in text.chars() {
            match character {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\0'..='\u{1f}' => write!(json, "\\u{:04x}", u32::from(character)).unwrap_or_default(),
                _ => json.push(character),
            }
        }
        json.push('"');
        Self(Cow::Owned(json))
    }

    /// Anything that serialises to JSON.
    ///
    /// # Errors
    ///
    /// [`EventDataError`] if it does not: a map whose keys are no texts, or an error of its own.
    #[cfg(feature = "serde")]
    #[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
    pub fn json(data: &impl serde::Serialize) -> Result<Self, EventDataError> {
        match serde_json::to_string(data) {
            Ok(json) => Ok(Self(Cow::Owned(json))),
            Err(error) => Err(EventDataError(error)),
        }
    }
}

impl From<&str> for EventData {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl fmt::Debug for EventData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventData({} bytes)", self.0.len())
    }
}

/// The data of an event can't be written as JSON.
#[cfg(feature = "serde")]
#[derive(Debug)]
pub struct EventDataError(serde_json::Error);

#[cfg(feature = "serde")]
impl fmt::Display for EventDataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the data of an event must serialise to JSON: {}", self.0)
    }
}

#[cfg(feature = "serde")]
impl Error for EventDataError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// An event's place in its thread, as `id` shows it: `9c3be1f0-17`, the numbering and the number in it.
///
/// A client gives the last one that it saw back as `after`. It may give the number alone, `17`; then it
/// says that it knows the numbering has not changed, and where it has, nobody may notice.
///
/// ```
/// use ws_manager_pool::EventId;
///
/// let id: EventId = "9c3be1f0-17".parse()?;
/// assert_eq!((id.seq(), id.to_string().as_str()), (17, "9c3be1f0-17"));
/// assert_eq!("17".parse::<EventId>()?.seq(), 17);
/// assert!("17-".parse::<EventId>().is_err());
/// # Ok::<(), ws_manager_pool::EventIdError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// 0: the client did not say.
    pub(crate) stream: u64,
    pub(crate) seq: u64,
}

impl EventId {
    /// The number: 1 for a thread's first event, 0 before it.
    pub const fn seq(&self) -> u64 {
        self.seq
    }
}

/// So large that no thread gets there, so small that nothing overflows.
const MAX_SEQ: u64 = 1 << 53;

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (stream, seq) = match text.split_once('-') {
            Some((stream, seq)) => {
                let is_stream =
                    stream.len() == 8 && stream.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                let stream = u64::from_str_radix(stream, 16).ok().filter(|&it| is_stream && it != 0);
                (stream.ok_or(EventIdError)?, seq)
            }
            None => (0, text),
        };
        let seq = seq.parse().ok().filter(|&number| is_number(seq) && number < MAX_SEQ);
        Ok(Self { stream, seq: seq.ok_or(EventIdError)? })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stream {
            0 => write!(f, "{}", self.seq),
            stream => write!(f, "{stream:08x}-{}", self.seq),
        }
    }
}

/// The text is no event's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventIdError;

impl fmt::Display for EventIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "after must be the id of the last event that was seen, such as 9c3be1f0-17, or its number",
        )
    }
}

impl Error for EventIdError {}

/// Whose event it is, and how the run ended if it is the last.
pub(crate) struct Of<'a> {
    pub(crate) thread: &'a ThreadId,
    pub(crate) run: RunId,
    pub(crate) outcome: Option<&'static str>,
}

pub(crate) fn event_message(event: AgentEvent, id: EventId, of: &Of<'_>, data: &EventData) -> Message {
    let mut json = String::with_capacity(192 + data.0.len());
    // Ids and names are of letters, digits, dots, dashes and underscores: nothing needs to be escaped.
    let head = write!(
        json,
        r#"{{"type":"{event}","id":"{id}","seq":{},"thread_id":"{}","run_id":"{}""#,
        id.seq, of.thread, of.run,
    );
    debug_assert!(head.is_ok(), "a string takes everything");
    if let Some(outcome) = of.outcome {
        json.push_str(r#","outcome":""#);
        json.push_str(outcome);
        json.push('"');
    }
    if !data.0.is_empty() {
        // Behind long ids it must not double: what is kept is accounted by its length.
        json.reserve_exact(data.0.len() + r#","data":}"#.len());
        json.push_str(r#","data":"#);
        json.push_str(&data.0);
    }
    json.push('}');
    Message::of_event(json, id.seq)
}

/// What a connection is told instead of events that it will not get.
pub(crate) fn gap_message(gap: Gap, stream: u64, thread: &ThreadId) -> Message {
    let id = EventId { stream, seq: gap.to };
    let from = gap.from.map_or_else(|| "null".into(), |from| from.to_string());
    Message::text(format!(
        r#"{{"type":"gap","id":"{id}","from":{from},"to":{},"thread_id":"{thread}"}}"#,
        gap.to,
    ))
}

#[cfg(all(test, not(pool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_five_names_are_those_of_the_specification() {
        let names = AgentEvent::ALL.map(AgentEvent::name);
        let expected =
            ["agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed"];
        assert_eq!(names, expected);
        assert_eq!(names.map(AgentEvent::from_name), AgentEvent::ALL.map(Some));
        assert_eq!(AgentEvent::from_name("agent_paused"), None);
    }

    #[test]
    fn an_id_has_one_text_and_nothing_else_is_read() {
        for text in ["0", "17", "9c3be1f0-17", "00000001-0"] {
            assert_eq!(text.parse::<EventId>().map(|id| id.to_string()).as_deref(), Ok(text));
        }
        let wrong = [
            "",
            "-",
            "-1",
            "+1",
            "x",
            "1-",
            "1-1",
            "9C3BE1F0-1",
            "9c3be1f0-",
            "9c3be1f0--1",
            "9c3be1f0-+1",
            "00000000-1",
            "+c3be1f0-1",
            "9007199254740992",
            "99999999999999999999999",
            "1 ",
            "1-2-3",
        ];
        for text in wrong {
            assert_eq!(text.parse::<EventId>(), Err(EventIdError), "{text:?}");
        }
    }

    #[test]
    fn any_text_is_valid_json_data() {
        let nasty = "\"\\\n\r\t\0\u{1f}\u{7f}</script>żółw 🐢";
        let EventData(json) = EventData::text(nasty);
        assert_eq!(json, "\"\\\"\\\\\\n\\u000d\\u0009\\u0000\\u001f\u{7f}</script>żółw 🐢\"");
        #[cfg(feature = "serde")]
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), nasty);
    }
}
