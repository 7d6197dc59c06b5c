//! The clients: many sockets in one thread, as cheap as they can be made, so that it is the server that
//! is measured.

use crate::loopback::Result;
use crate::protocol::{BROADCAST, TO};
use rustix::event::epoll;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Handshakes, or messages, that are under way at once.
const AT_ONCE: usize = 16;

/// Longest silence while something is under way.
const PATIENCE: Duration = Duration::from_secs(20);

const TEXT: u8 = 1;
const PING: u8 = 9;
const PONG: u8 = 10;

/// All clients of one server.
pub(crate) struct Crowd {
    address: SocketAddr,
    per_user: usize,
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// Clients that ever were: users are named in turn.
    named: usize,
    /// Handshakes that did not succeed.
    failed: usize,
    scratch: Box<[u8]>,
}

struct Client {
    /// Blocking: read from when there is something to read.
    stream: TcpStream,
    user: String,
    /// The beginning of what is still to come.
    partial: Vec<u8>,
    is_open: bool,
}

/// What a client hears.
enum Heard<'a> {
    /// Its handshake is done.
    Open,
    Text(&'a [u8]),
    /// It has come to nothing.
    Refused,
    /// Closed or reset, after it was open.
    Over,
}

impl Crowd {
    pub(crate) fn new(address: SocketAddr, per_user: usize) -> Result<Self> {
        Ok(Self {
            address,
            per_user,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            named: 0,
            failed: 0,
            scratch: vec![0; 64 * 1_024].into(),
        })
    }

    pub(crate) fn open(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed
    }

    /// Opens `count` more, [`AT_ONCE`] at a time.
    pub(crate) fn connect(&mut self, count: usize) -> Result<()> {
        let (mut begun, mut open, mut failed) = (0, 0, 0);
        while open + failed < count {
            while begun < count && begun - open - failed < AT_ONCE {
                begun += 1;
                match self.begin()? {
                    Some(client) => self.admit(client)?,
                    None => failed += 1,
                }
            }
            if begun > open + failed {
                let mut is_lost = false;
                self.hear(|_, heard| match heard {
                    Heard::Open => open += 1,
                    Heard::Refused => failed += 1,
                    Heard::Over => is_lost = true,
                    Heard::Text(_) => {}
                })?;
                if is_lost {
                    return Err("an open connection ended while others came".into());
                }
            }
        }
        self.failed += failed;
        if failed > 0 {
            self.keep(|_, client| client.is_open)?;
        }
        Ok(())
    }

    /// Opens one more while nothing else happens, and returns how long that took; `None`: it failed.
    pub(crate) fn connect_one(&mut self) -> Result<Option<Duration>> {
        let begun = Instant::now();
        let Some(mut client) = self.begin()? else {
            self.failed += 1;
            return Ok(None);
        };
        let mut is_refused = false;
        while !client.is_open && !is_refused {
            client.read(&mut self.scratch, |_, heard| is_refused |= matches!(heard, Heard::Refused));
        }
        let took = begun.elapsed();
        if is_refused {
            self.failed += 1;
            return Ok(None);
        }
        // Once it is answered it is registered, too: the server has nothing left to do for it.
        client.stream.write_all(&frame(TEXT, b"hello"))?;
        let (mut is_answered, mut is_over) = (false, false);
        while !is_answered && !is_over {
            client.read(&mut self.scratch, |_, heard| match heard {
                Heard::Text(text) => is_answered |= text == b"5",
                Heard::Open | Heard::Refused | Heard::Over => is_over = true,
            });
        }
        if is_over {
            return Err("a connection ended while it waited for an answer".into());
        }
        self.admit(client)?;
        Ok(Some(took))
    }

    /// Each client says a text of this many bytes and waits for the answer, [`AT_ONCE`] at a time.
    pub(crate) fn each_says(&mut self, bytes: usize) -> Result<()> {
        let (said, answer) = (frame(TEXT, &vec![b'x'; bytes]), bytes.to_string());
        let clients = self.clients.len();
        let (mut begun, mut heard) = (0, 0);
        while heard < clients {
            while begun < clients && begun - heard < AT_ONCE {
                self.clients[begun].stream.write_all(&said)?;
                begun += 1;
            }
            self.hear_texts(&mut heard, |_, text| text == answer.as_bytes())?;
        }
        Ok(())
    }

    /// One client speaks to all, by a text of this many bytes.
    pub(crate) fn broadcast(&mut self, bytes: usize) -> Result<()> {
        let text = format!("{BROADCAST:x<bytes$}");
        let Some(speaker) = self.clients.first_mut() else { return Ok(()) };
        speaker.stream.write_all(&frame(TEXT, text.as_bytes()))?;
        let mut heard = 0;
        while heard < self.clients.len() {
            self.hear_texts(&mut heard, |_, said| said == text.as_bytes())?;
        }
        Ok(())
    }

    /// The first client of each user speaks to that user, whose clients must hear it, and no others.
    pub(crate) fn each_user_hears_itself(&mut self) -> Result<()> {
        let mut last: Option<&str> = None;
        for client in &self.clients {
            if last.replace(&client.user) != Some(&client.user) {
                let text = format!("{TO}{} hello", client.user);
                (&client.stream).write_all(&frame(TEXT, text.as_bytes()))?;
            }
        }
        let mut heard = 0;
        while heard < self.clients.len() {
            self.hear_texts(&mut heard, |user, text| {
                text.strip_prefix(TO.as_bytes()).and_then(|rest| rest.strip_suffix(b" hello"))
                    == Some(user.as_bytes())
            })?;
        }
        Ok(())
    }

    /// Keeps every `nth` client, and closes the others.
    pub(crate) fn keep_every(&mut self, nth: usize) -> Result<()> {
        self.keep(|index, _| index % nth == 0)
    }

    pub(crate) fn close_all(&mut self) -> Result<()> {
        self.keep(|_, _| false)
    }

    fn keep(&mut self, is_kept: impl Fn(usize, &Client) -> bool) -> Result<()> {
        // Events name a client by its index, which changes.
        self.epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, client) in std::mem::take(&mut self.clients).into_iter().enumerate() {
            if is_kept(index, &client) {
                self.admit(client)?;
            }
        }
        Ok(())
    }

    /// Begins a handshake; `None`: the server does not let it.
    fn begin(&mut self) -> Result<Option<Client>> {
        let user = format!("user-{}", self.named / self.per_user);
        self.named += 1;
        let request = format!(
            "GET /?user={user} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.address
        );
        let begin = || {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(request.as_bytes())?;
            Ok(stream)
        };
        match begin() {
            Ok(stream) => Ok(Some(Client { stream, user, partial: Vec::new(), is_open: false })),
            Err(error) if is_refusal(&error) => Ok(None),
            Err(error) => Err(error.into()), // ours: no ports or files left
        }
    }

    fn admit(&mut self, client: Client) -> Result<()> {
        let data = epoll::EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.epoll, &client.stream, data, epoll::EventFlags::IN)?;
        self.clients.push(client);
        Ok(())
    }

    /// Waits for texts, each of which must be right, and counts them.
    fn hear_texts(&mut self, count: &mut usize, is_right: impl Fn(&str, &[u8]) -> bool) -> Result<()> {
        let mut wrong = None;
        self.hear(|user, heard| match heard {
            Heard::Text(text) if is_right(user, text) => *count += 1,
            Heard::Text(text) => {
                wrong = Some(format!("{user} heard {:?}", String::from_utf8_lossy(text)));
            }
            Heard::Open | Heard::Refused | Heard::Over => {
                wrong = Some(format!("the connection of {user} ended"))
            }
        })?;
        wrong.map_or(Ok(()), |wrong| Err(wrong.into()))
    }

    /// Waits until something arrives, and tells it with the name of the user.
    fn hear(&mut self, mut tell: impl FnMut(&str, Heard<'_>)) -> Result<()> {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; 64];
        let (events, _) = epoll::wait(&self.epoll, &mut events, Some(&PATIENCE.try_into()?))?;
        if events.is_empty() {
            return Err(format!("the server has said nothing for {PATIENCE:?}").into());
        }
        for event in events.iter() {
            let client = &mut self.clients[event.data.u64() as usize];
            let mut is_over = false;
            client.read(&mut self.scratch, |user, heard| {
                is_over |= matches!(heard, Heard::Refused | Heard::Over);
                tell(user, heard);
            });
            if is_over {
                epoll::delete(&self.epoll, &client.stream)?;
            }
        }
        Ok(())
    }
}

fn is_refusal(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::TimedOut
    )
}

impl Client {
    /// Reads once, answers pings, and tells of the rest, with the name of the user.
    fn read(&mut self, scratch: &mut [u8], mut tell: impl FnMut(&str, Heard<'_>)) {
        let Self { stream, user, partial, is_open } = self;
        let kept = partial.len();
        scratch[..kept].copy_from_slice(partial);
        let read = stream.read(&mut scratch[kept..]).unwrap_or(0);
        if read == 0 {
            let was_open = std::mem::take(is_open);
            return tell(user, if was_open { Heard::Over } else { Heard::Refused });
        }
        let mut rest = &scratch[..kept + read];
        if !*is_open {
            const END: &[u8] = b"\r\n\r\n";
            if let Some(end) = rest.windows(END.len()).position(|window| window == END) {
                *is_open = rest.starts_with(b"HTTP/1.1 101 ");
                rest = &rest[end + END.len()..];
                tell(user, if *is_open { Heard::Open } else { Heard::Refused });
            }
        }
        // Ends: each turn takes a frame.
        while *is_open && let Some((opcode, payload, behind)) = split_frame(rest) {
            match opcode {
                TEXT => tell(user, Heard::Text(payload)),
                PING if stream.write_all(&frame(PONG, payload)).is_ok() => {}
                // A close frame, or nobody there to hear a pong.
                _ => {
                    *is_open = false;
                    tell(user, Heard::Over);
                }
            }
            rest = behind;
        }
        partial.clear();
        partial.extend_from_slice(rest);
    }
}

/// A client's frame, masked by zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The first frame of a server: opcode, payload, and what is behind it. None is longer than 64 KiB.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[opcode, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        length => (usize::from(length), rest),
    };
    let (payload, behind) = rest.split_at_checked(length)?;
    Some((opcode & 0x0f, payload, behind))
}
