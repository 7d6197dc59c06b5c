//! How many connections the machine lets two processes have with each other.

use crate::loopback::{Result, raise_file_limit};
use rustix::process::{Resource, getrlimit};
use std::fs::read_to_string;

/// Files that are no connections.
const OTHER_FILES: usize = 100;

/// Ports that others may have, and those that are still on their way out.
const OTHER_PORTS: usize = 3_000;

/// Raises the limits to what is allowed. If `connections` are still too many, says why and returns fewer.
pub(crate) fn fit(connections: usize) -> Result<(usize, Vec<String>)> {
    let (mut fitting, mut notes) = (connections, Vec::new());
    let mut at_most = |most: usize, why: String| {
        if fitting > most {
            fitting = most;
            notes.push(format!("{connections} connections were wanted and {most} are measured: {why}"));
        }
    };
    if let Some(files) = getrlimit(Resource::Nofile).maximum {
        let most = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES);
        at_most(most, format!("a process may open {files} files; raise `ulimit -Hn`"));
    }
    if let Some(ports) = ports() {
        at_most(
            ports.saturating_sub(OTHER_PORTS),
            format!("the client has {ports} ports; widen net.ipv4.ip_local_port_range"),
        );
    }
    raise_file_limit((fitting + OTHER_FILES) as u64)?;
    Ok((fitting, notes))
}

fn ports() -> Option<usize> {
    let range = read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = range.split_whitespace().map(str::parse);
    let (first, last): (usize, usize) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some((last + 1).saturating_sub(first))
}
