//! One of a user's places: a connection, and when that ends the next one on the same thread.

use crate::board::Board;
use crate::checker::{Inbox, Outbox, Parcel};
use crate::door::{self, NotOpened, Socket};
use crate::options::{Ending, Plan};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rand::{RngExt, rng};
use serde_json::Value;
use std::future::pending;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// What everybody is doing.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    Connecting,
    Sending {
        since: Instant,
    },
    /// Nobody sends, and each learns that the server has handled what it sent.
    Settling,
    /// Each learns that the server has no more for it, and goes.
    Leaving,
}

impl Phase {
    fn is_over(&self) -> bool {
        *self >= Self::Settling
    }
}

/// What the places of a run share.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    pub(crate) board: Board,
    /// Tells this run's users and messages from another's.
    pub(crate) id: u32,
    pub(crate) phase: watch::Sender<Phase>,
    /// Handshakes under way.
    pub(crate) doors: Semaphore,
    pub(crate) writers: AtomicU32,
}

/// The timer's grain. A message that is sent later than this after it was due counts from then on, so
/// that a stall counts for each message that it held up.
const GRAIN: Duration = Duration::from_millis(3);

/// Before a connection comes back that the tool did not end.
const PAUSE: Duration = Duration::from_millis(200);

/// For a server to say that it has handled everything.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Place<'a> {
    run: &'a Run,
    user: u32,
    /// Of all places.
    index: usize,
    name: String,
    thread: String,
    /// Connections so far.
    lives: usize,
    /// Connections that neither read nor answer.
    silent: Vec<Socket>,
}

/// How a connection's conversation came to its end.
enum Over {
    /// The tool ends it.
    Ours(Ending),
    /// The run is over.
    Run,
    /// The server ended it, with a code or without.
    Theirs(Option<u16>),
    /// The server keeps it, and does nothing for it.
    Unanswered,
}

impl<'a> Place<'a> {
    pub(crate) fn new(run: &'a Run, index: usize) -> Self {
        let user = (index / run.plan.connections as usize) as u32;
        let name = user_name(run.id, user);
        let thread = format!("thread_{name}_{index}");
        Self { run, user, index, name, thread, lives: 0, silent: Vec::new() }
    }

    /// Until the run is over.
    pub(crate) async fn hold(mut self) {
        let mut phase = self.run.phase.subscribe();
        let mut is_first = true;
        loop {
            let Some(opened) = self.open(&mut phase).await else { break };
            self.run.board.figures().settled += usize::from(mem::take(&mut is_first));
            let pause = match opened {
                Ok(socket) => self.live(socket).await,
                Err(pause) => pause,
            };
            tokio::select! {
                _ = phase.wait_for(Phase::is_over) => break,
                () = sleep(pause) => {}
            }
        }
        for socket in mem::take(&mut self.silent) {
            let code = listen_out(socket).await;
            self.run.board.figures().ended(Ending::Silent.name(), code);
        }
    }

    /// `None`: the run is over. An error is how long to wait.
    async fn open(&self, phase: &mut watch::Receiver<Phase>) -> Option<Result<Socket, Duration>> {
        let run = self.run;
        let _turn = tokio::select! {
            _ = phase.wait_for(Phase::is_over) => return None,
            turn = run.doors.acquire() => turn,
        };
        let began = Instant::now();
        let opened = door::open(&run.plan.target, &self.name, &self.thread).await;
        let mut figures = run.board.figures();
        Some(match opened {
            Ok(socket) => {
                figures.connected += 1;
                figures.setup.saturating_record(began.elapsed().as_nanos() as u64);
                Ok(socket)
            }
            Err(NotOpened::Refused { status, retry_after }) => {
                *figures.refused.entry(status).or_default() += 1;
                Err(retry_after)
            }
            Err(NotOpened::Unreachable(error)) => {
                figures.failed(error.to_string());
                Err(PAUSE)
            }
            Err(NotOpened::Failed(why)) => {
                figures.failed(why);
                Err(PAUSE)
            }
        })
    }

    /// One connection, from its handshake to its end. How long to wait for the next.
    async fn live(&mut self, socket: Socket) -> Duration {
        self.lives += 1;
        let run = self.run;
        let writer = run.writers.fetch_add(1, Ordering::Relaxed);
        let (mut outbox, mut inbox) = (Outbox::new(writer), Inbox::new(run.id, self.user));
        let (mut sink, mut stream) = socket.split();
        let fence = watch::Sender::new(0);
        run.board.figures().open += 1;

        let over = {
            let mut listener = Listener { place: self, writer, fence: &fence, inbox: &mut inbox };
            let mut ready_at = None;
            let mut speaker =
                Speaker { place: self, sink: &mut sink, fence: fence.subscribe(), outbox: &mut outbox };
            let over = tokio::select! {
                code = listener.listen(&mut stream) => Over::Theirs(code),
                over = speaker.speak(&mut ready_at) => over.unwrap_or_else(|over| over),
            };
            inbox.ready_at = ready_at;
            over
        };
        let was_quiet = outbox.is_handled;
        let pause = if matches!(over, Over::Ours(_)) { Duration::ZERO } else { PAUSE };
        let (how, code) = match over {
            Over::Theirs(code) => ("server", code),
            Over::Unanswered => ("unanswered", None),
            Over::Run => {
                inbox.is_complete = true;
                ("run", self.close(sink, stream, writer, &mut inbox).await)
            }
            Over::Ours(Ending::Close) => {
                let code = self.close(sink, stream, writer, &mut inbox).await;
                outbox.is_handled = code == Some(1000); // another one is not an answer
                (Ending::Close.name(), code)
            }
            Over::Ours(ending) => {
                let socket = sink.reunite(stream).expect("two halves of one");
                match ending {
                    Ending::Reset => drop(socket.get_ref().set_zero_linger()),
                    Ending::Silent => self.silent.push(socket),
                    Ending::Close | Ending::Kill => {}
                }
                (ending.name(), None)
            }
        };
        let mut figures = run.board.figures();
        figures.open -= 1;
        figures.quiet -= usize::from(was_quiet);
        if how != Ending::Silent.name() {
            figures.ended(how, code); // a silent one's code is heard at the end
        }
        figures.outboxes.push(outbox);
        figures.inboxes.push(inbox);
        pause
    }

    /// Says goodbye, and hears the rest. The code is the server's answer.
    async fn close(
        &self,
        mut sink: SplitSink<Socket, Message>,
        mut stream: SplitStream<Socket>,
        writer: u32,
        inbox: &mut Inbox,
    ) -> Option<u16> {
        let fence = watch::Sender::new(0);
        let mut listener = Listener { place: self, writer, fence: &fence, inbox };
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "load is done".into() };
        let said = async {
            sink.send(Message::Close(Some(goodbye))).await.ok()?;
            listener.listen(&mut stream).await
        };
        timeout(PATIENCE, said).await.ok().flatten()
    }

    /// When this connection ends, and how. `None`: not before the run.
    fn end(&self, since: Instant) -> Option<(Instant, Ending)> {
        let plan = &self.run.plan;
        let ways = &plan.ends;
        let ending = *ways.get((self.index + self.lives) % ways.len().max(1))?;
        // Those that were there from the start are in the middle of their lives.
        let share = if self.lives == 1 { rng().random_range(0.0..1.0) } else { rng().random_range(0.5..1.5) };
        Some((since.max(Instant::now()) + plan.life.mul_f64(share), ending))
    }
}

pub(crate) fn user_name(run: u32, user: u32) -> String {
    format!("load-{run:08x}-{user}")
}

/// Reads a connection that fell silent: the code, if the server has given it up.
async fn listen_out(mut socket: Socket) -> Option<u16> {
    let words = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(close) = message {
                return close.map(|frame| frame.code.into());
            }
        }
        None
    };
    timeout(Duration::from_millis(500), words).await.ok().flatten()
}

struct Speaker<'a> {
    place: &'a Place<'a>,
    sink: &'a mut SplitSink<Socket, Message>,
    /// The last fence that came back.
    fence: watch::Receiver<u32>,
    outbox: &'a mut Outbox,
}

impl Speaker<'_> {
    /// Either way, why the conversation is over.
    async fn speak(&mut self, ready_at: &mut Option<u64>) -> Result<Over, Over> {
        let Run { board, phase, .. } = self.place.run;
        let mut phase = phase.subscribe();
        self.wait_for_fence(1).await?;
        *ready_at = Some(board.stamp(Instant::now()));

        // The sender of phases outlives every place.
        let now = phase.wait_for(|phase| *phase > Phase::Connecting).await.map_or(Phase::Leaving, |now| *now);
        if let Phase::Sending { since } = now
            && let Some(ending) = self.send_until_the_end(since, &mut phase).await
        {
            return Ok(Over::Ours(ending));
        }
        self.wait_for_fence(2).await?;
        self.outbox.is_handled = true;
        board.figures().quiet += 1;
        let _ = phase.wait_for(|phase| *phase >= Phase::Leaving).await;
        self.wait_for_fence(3).await?;
        Ok(Over::Run)
    }

    /// `None`: the run is over before the connection.
    async fn send_until_the_end(
        &mut self,
        since: Instant,
        phase: &mut watch::Receiver<Phase>,
    ) -> Option<Ending> {
        let mut dues = Dues::of(self.place, since);
        let end = self.place.end(since);
        let end_at = end.map_or_else(far_away, |(at, _)| at);
        loop {
            tokio::select! {
                biased;
                _ = phase.wait_for(Phase::is_over) => return None,
                () = sleep_until(end_at) => return end.map(|(_, ending)| ending),
                () = sleep_until(dues.next) => {}
            }
            self.send_parcel(dues.next).await;
            dues.advance();
        }
    }

    /// One message to a user drawn by lot.
    async fn send_parcel(&mut self, due: Instant) {
        let Run { plan, board, id, .. } = self.place.run;
        let user = rng().random_range(0..plan.users);
        let now = Instant::now();
        let counts_from = if now.saturating_duration_since(due) < GRAIN { now } else { due };
        let number = self.outbox.number(user, board.stamp(now));
        let writer = self.outbox.writer;
        let parcel = Parcel { run: *id, user, writer, number, stamp: board.stamp(counts_from) };
        board.figures().sent += 1;
        self.send(format!(r#"{{"to": "{}", "text": "{}"}}"#, user_name(*id, user), parcel.text())).await;
    }

    /// Sends a text to the connection's own thread, until it comes back: everything before it has been
    /// handled by then, and what the server had for this connection has arrived.
    async fn wait_for_fence(&mut self, number: u32) -> Result<(), Over> {
        let text = fence_text(self.outbox.writer, number);
        let back = async {
            loop {
                self.send(text.clone()).await;
                // A full queue may have lost it.
                if timeout(PATIENCE / 5, self.fence.wait_for(|&heard| heard >= number)).await.is_ok() {
                    return;
                }
            }
        };
        timeout(PATIENCE, back).await.map_err(|_| Over::Unanswered)
    }

    async fn send(&mut self, text: String) {
        if self.sink.send(Message::text(text)).await.is_err() {
            // The listener finds the socket's end as well, and the code of it.
            pending().await
        }
    }
}

fn fence_text(writer: u32, number: u32) -> String {
    format!("fence {writer} {number}")
}

fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(365 * 86_400)
}

/// When a place's messages are due: evenly, and evenly between those of the others.
struct Dues {
    next: Instant,
    interval: Option<Duration>,
}

impl Dues {
    fn of(place: &Place<'_>, since: Instant) -> Self {
        let plan = &place.run.plan;
        let Some(each) = Duration::from_secs(1).checked_div(plan.rate) else {
            return Self { next: far_away(), interval: None };
        };
        let interval = Duration::from_secs_f64(plan.places() as f64 / f64::from(plan.rate));
        let first = since + each * place.index as u32;
        // What was due before this connection was there is not its business.
        let missed = Instant::now().saturating_duration_since(first).div_duration_f64(interval).ceil();
        Self { next: first + interval.mul_f64(missed), interval: Some(interval) }
    }

    fn advance(&mut self) {
        self.next = self.interval.map_or_else(far_away, |interval| self.next + interval);
    }
}

struct Listener<'a> {
    place: &'a Place<'a>,
    writer: u32,
    fence: &'a watch::Sender<u32>,
    inbox: &'a mut Inbox,
}

impl Listener<'_> {
    /// Until the socket ends. The code of its close frame, if there was one.
    async fn listen(&mut self, stream: &mut SplitStream<Socket>) -> Option<u16> {
        let mut code = None;
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Text(text) => self.hear(&text),
                Message::Close(close) => code = Some(close.map_or(1005, |frame| frame.code.into())),
                _ => {}
            }
        }
        code
    }

    fn hear(&mut self, text: &str) {
        let board = &self.place.run.board;
        let now = board.stamp(Instant::now());
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(error) = json["error"].as_str() {
            return board.figures().error(error);
        }
        let text = json["text"].as_str().unwrap_or_default();
        match Parcel::read(text) {
            Some(parcel) => {
                let verdict = self.inbox.hear(&parcel);
                board.figures().heard(verdict, now.saturating_sub(parcel.stamp));
            }
            None => self.hear_fence(text),
        }
    }

    fn hear_fence(&mut self, text: &str) {
        let mut words = text.split(' ');
        let is_fence = words.next() == Some("fence");
        let [writer, number] = [(); 2].map(|()| words.next().and_then(|word| word.parse::<u32>().ok()));
        match (is_fence, writer, number) {
            (true, Some(writer), Some(number)) if writer == self.writer => {
                self.fence.send_modify(|heard| *heard = (*heard).max(number));
            }
            // An earlier connection's on this thread, whose answer is for nobody.
            (true, Some(_), Some(_)) => {}
            _ => self.place.run.board.figures().strange += 1,
        }
    }
}
