//! The command line.

use lexopt::prelude::*;
use std::fmt;

pub(crate) const HELP: &str = "\
Measures how the pool grows: managers in one process up to a million, and real sockets up to what the
machine allows.

Usage: scale [OPTIONS]

  --managers <n,…>     managers in process [1000,10000,100000,1000000]
  --sockets <n,…>      sockets to a server [1000,5000,15000, and as many as the file limit allows, up to
                       50000]
  --way <n>            1: the library reads the socket, with 4 KiB; 2: from a buffer of the
                       pool; 3: there is no library, the crate speaks itself [all]
  --only <part>        managers or sockets
  --quick              1000 and 10000 managers, 200 and 1000 sockets; shows whether it works
  --json               one JSON object in place of the tables
  --help               this text

More sockets than a process may have files are cut down to what it may, with a word.
Exit code 1: something failed, such as an account that is not balanced. Exit code 2: an option is wrong.
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Measure(Options),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) managers: Vec<usize>,
    /// `None`: as many as is usual, and as is allowed.
    pub(crate) sockets: Option<Vec<usize>>,
    pub(crate) ways: Vec<Way>,
    pub(crate) effort: Effort,
    pub(crate) is_json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            managers: vec![1_000, 10_000, 100_000, 1_000_000],
            sockets: None,
            ways: Way::ALL.to_vec(),
            effort: Effort::Full,
            is_json: false,
        }
    }
}

/// How often is measured what is measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    Full,
    Quick,
}

impl Effort {
    pub(crate) fn choose<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// Who reads the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The library.
    Library = 1,
    /// The pool, into a leased buffer from which the library is fed.
    Leased = 2,
    /// The crate's own engine.
    Own = 3,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Library, Self::Leased, Self::Own];

    pub(crate) fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn numbered(number: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.to_string() == number)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// Reads the arguments of a process.
pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut options = Options::default();
    let (mut managers, mut only) = (None, None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("managers") => managers = Some(sizes(&mut arguments, "--managers", 10_000_000)?),
            Long("sockets") => options.sockets = Some(sizes(&mut arguments, "--sockets", 1_000_000)?),
            Long("way") => {
                let name = arguments.value()?.string()?;
                let way = Way::numbered(&name);
                options.ways = vec![way.ok_or_else(|| format!("--way {name}: that is none of 1, 2, 3"))?];
            }
            Long("only") => match arguments.value()?.string()?.as_str() {
                part @ ("managers" | "sockets") => only = Some(part.to_owned()),
                part => return Err(format!("--only {part}: that is neither managers nor sockets").into()),
            },
            Long("quick") => options.effort = Effort::Quick,
            Long("json") => options.is_json = true,
            Short('h') | Long("help") => return Ok(Command::Help),
            _ => return Err(argument.unexpected()),
        }
    }
    if options.effort == Effort::Quick {
        options.managers = vec![1_000, 10_000];
        options.sockets.get_or_insert_with(|| vec![200, 1_000]);
    }
    options.managers = managers.unwrap_or(options.managers);
    match only.as_deref() {
        Some("managers") => options.sockets = Some(Vec::new()),
        Some(_) => options.managers.clear(),
        None => {}
    }
    Ok(Command::Measure(options))
}

/// Numbers with commas between them, in rising order.
fn sizes(arguments: &mut lexopt::Parser, option: &str, most: usize) -> Result<Vec<usize>, lexopt::Error> {
    let text = arguments.value()?.string()?;
    let numbers = text.split(',').map(|number| number.trim().parse().ok());
    let numbers: Option<Vec<usize>> = numbers.collect();
    let fits = |numbers: &Vec<usize>| {
        numbers.is_sorted() && numbers.iter().all(|number| (1..=most).contains(number))
    };
    numbers.filter(fits).ok_or_else(|| {
        format!("{option} {text}: numbers from 1 to {most} are wanted, rising, with commas between them")
            .into()
    })
}
