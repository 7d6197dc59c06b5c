//! The clients: many sockets in one thread, as cheap as they can be made, so that it is the server
//! that is measured.
//!
//! They check what arrives only as far as numbers go: the payload says who it is for, which message of
//! its sender it is, and when it was due.

use crate::handshake::connect;
use crate::loopback::Result;
use rustix::event::{Timespec, epoll};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Which message of its sender.
    pub(crate) number: u64,
    /// When it was due to be sent, in nanoseconds since the clients connected.
    pub(crate) due: u64,
}

/// What a client heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Note(Note),
    /// A close frame, with its code, or the end of the stream.
    End(Option<u16>),
}

/// Whom a message is for.
#[derive(Clone, Copy)]
pub(crate) enum To {
    All,
    User(usize),
}

/// Name, number and time come first in the payload; the rest is filling.
pub(crate) const SMALLEST_PAYLOAD: usize = NAME_AT + NAME_ROOM + 16;
const NAME_AT: usize = 1;
const NAME_ROOM: usize = 15;
const NUMBER_AT: usize = NAME_AT + NAME_ROOM;

/// The name in a payload: the user it is for, or nobody, if it is for all.
pub(crate) fn addressee(payload: &[u8]) -> Option<&str> {
    let length = usize::from(*payload.first()?);
    std::str::from_utf8(payload.get(NAME_AT..NAME_AT + length)?).ok()
}

/// The user of a client.
pub(crate) fn name(client: usize) -> String {
    format!("user-{client}")
}

/// All clients.
pub(crate) struct Crowd {
    epoll: std::os::fd::OwnedFd,
    clients: Vec<Client>,
    names: Vec<String>,
    payload: usize,
    since: Instant,
    scratch: Vec<u8>,
    events: Vec<epoll::Event>,
    heard: Vec<(usize, Heard)>,
}

struct Client {
    stream: TcpStream,
    /// The beginning of a frame whose rest is still to come.
    partial: Vec<u8>,
    /// What the socket did not take at once.
    unsent: Vec<u8>,
    is_reading: bool,
    is_over: bool,
}

impl Crowd {
    pub(crate) fn connect(address: SocketAddr, clients: usize, payload: usize) -> Result<Self> {
        assert!(payload >= SMALLEST_PAYLOAD);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut crowd = Self {
            epoll,
            clients: Vec::with_capacity(clients),
            names: (0..clients).map(name).collect(),
            payload,
            since: Instant::now(),
            scratch: vec![0; 256 * 1024],
            events: Vec::with_capacity(1_024),
            heard: Vec::new(),
        };
        for client in 0..clients {
            let client = Client::connect(address, &crowd.names[client])?;
            let data = epoll::EventData::new_u64(crowd.clients.len() as u64);
            epoll::add(&crowd.epoll, &client.stream, data, epoll::EventFlags::IN)?;
            crowd.clients.push(client);
        }
        Ok(crowd)
    }

    /// Nanoseconds since the clients connected.
    pub(crate) fn now(&self) -> u64 {
        self.since.elapsed().as_nanos() as u64
    }

    /// Sends one message.
    pub(crate) fn send(&mut self, from: usize, to: To, note: Note) -> Result<()> {
        let name = match to {
            To::All => "",
            To::User(user) => &self.names[user],
        };
        let mut frame = header(0x82, self.payload);
        // Masked by zero: what goes over the wire is the payload.
        let begin = frame.len();
        frame.resize(begin + self.payload, b'.');
        let payload = &mut frame[begin..];
        payload[0] = name.len() as u8;
        payload[NAME_AT..NAME_AT + name.len()].copy_from_slice(name.as_bytes());
        payload[NUMBER_AT..NUMBER_AT + 8].copy_from_slice(&note.number.to_le_bytes());
        payload[NUMBER_AT + 8..NUMBER_AT + 16].copy_from_slice(&note.due.to_le_bytes());
        self.clients[from].write(&frame)
    }

    /// From now on this client reads nothing, or reads again.
    pub(crate) fn set_reading(&mut self, client: usize, is_reading: bool) -> Result<()> {
        let flags = if is_reading { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        self.clients[client].is_reading = is_reading;
        let data = epoll::EventData::new_u64(client as u64);
        Ok(epoll::modify(&self.epoll, &self.clients[client].stream, data, flags)?)
    }

    /// Waits until something arrives, at most for `patience`, and hands out all that did: by client, in
    /// the order of arrival. Give the list back by [`Crowd::reuse`].
    pub(crate) fn hear(&mut self, patience: Duration) -> Result<Vec<(usize, Heard)>> {
        for client in self.clients.iter_mut().filter(|client| !client.unsent.is_empty()) {
            client.write(&[])?;
        }
        let patience =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut heard = std::mem::take(&mut self.heard);
        for event in &self.events {
            let number = event.data.u64() as usize;
            let client = &mut self.clients[number];
            if client.is_reading && !client.is_over {
                client.read(&mut self.scratch, |said| heard.push((number, said)))?;
            }
            if client.is_over {
                epoll::modify(&self.epoll, &client.stream, event.data, epoll::EventFlags::empty())?;
            }
        }
        Ok(heard)
    }

    pub(crate) fn reuse(&mut self, mut heard: Vec<(usize, Heard)>) {
        heard.clear();
        self.heard = heard;
    }
}

/// The header of a client's frame, with a mask of zeros.
fn header(opcode: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::with_capacity(14 + length);
    header.push(opcode);
    match length {
        0..126 => header.push(0x80 | length as u8),
        126..0x1_0000 => {
            header.push(0x80 | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend((length as u64).to_be_bytes());
        }
    }
    header.extend([0; 4]);
    header
}

impl Client {
    fn connect(address: SocketAddr, user: &str) -> Result<Self> {
        let stream = connect(address, user)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, partial: Vec::new(), unsent: Vec::new(), is_reading: true, is_over: false })
    }

    fn write(&mut self, frame: &[u8]) -> Result<()> {
        if self.unsent.is_empty() {
            let written = written(self.stream.write(frame))?;
            self.unsent.extend_from_slice(&frame[written..]);
        } else {
            self.unsent.extend_from_slice(frame);
            let written = written(self.stream.write(&self.unsent))?;
            self.unsent.drain(..written);
        }
        Ok(())
    }

    /// Reads what is there, answers pings, and tells of the rest.
    fn read(&mut self, scratch: &mut [u8], mut tell: impl FnMut(Heard)) -> Result<()> {
        let kept = self.partial.len();
        scratch[..kept].copy_from_slice(&self.partial);
        let read = match self.stream.read(&mut scratch[kept..]) {
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(_reset) => 0,
        };
        if read == 0 {
            self.is_over = true;
            tell(Heard::End(None));
            return Ok(());
        }
        self.partial.clear();
        let mut rest = &scratch[..kept + read];
        // Ends: each turn takes a frame.
        while let Some((opcode, payload, behind)) = frame(rest) {
            match opcode {
                2 => tell(Heard::Note(note(payload).ok_or("a message is too short")?)),
                8 => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    self.is_over = true;
                    tell(Heard::End(code));
                    return Ok(());
                }
                9 => {
                    let mut pong = header(0x8a, payload.len());
                    pong.extend_from_slice(payload);
                    self.write(&pong)?;
                }
                _ => return Err(format!("a frame with opcode {opcode}").into()),
            }
            rest = behind;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }
}

fn written(result: std::io::Result<usize>) -> std::io::Result<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// The first frame of a server: opcode, payload, and what is behind it.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[opcode, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length) as usize, rest)
        }
        length => (usize::from(length), rest),
    };
    let (payload, behind) = rest.split_at_checked(length)?;
    Some((opcode & 0x0f, payload, behind))
}

fn note(payload: &[u8]) -> Option<Note> {
    let (number, rest) = payload.get(NUMBER_AT..)?.split_first_chunk()?;
    let due = rest.first_chunk()?;
    Some(Note { number: u64::from_le_bytes(*number), due: u64::from_le_bytes(*due) })
}
