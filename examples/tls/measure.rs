//! What TLS costs: the same server with and without it, and clients that connect, echo once, and wait.

use crate::loopback::{Result, Server, raise_file_limit};
use crate::{Identity, gate, serve_plain, serve_tls};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Fewer drown in what the process needs anyway.
const FEWEST: usize = 100;

/// Connections that come before the first look, so that what is built once is not counted.
const WARM_UP: usize = 16;

/// Looks at the memory until it has not changed for so many.
const STILL: usize = 4;
const LOOKS: usize = 600;
const LOOK: Duration = Duration::from_millis(100);

/// A masked text frame of two bytes, and its echo.
const HELLO: &[u8] = &[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
const ECHO: &[u8] = &[0x81, 2, b'h', b'i'];

/// Serves until the process is killed. What it prints first is its address, and then its certificate's
/// lines to whoever asks.
pub(crate) fn part(role: &str) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let identity = Identity::new()?;
        let pem = identity.pem().replace('\n', " ");
        std::thread::spawn(move || std::io::stdin().lines().for_each(|_| println!("{pem}")));
        match role {
            "tls" => serve_tls(listener, identity.acceptor()?, gate("tls")?).await,
            "plain" => serve_plain(listener, gate("plain")?).await,
            other => Err(format!("{other:?} is neither tls nor plain").into()),
        }
    })
}

pub(crate) fn run(connections: usize) -> Result<()> {
    if connections < FEWEST {
        return Err(format!("--measure {connections}: at least {FEWEST}").into());
    }
    raise_file_limit(connections as u64 + 100)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plain = runtime.block_on(bytes_each("plain", connections))?;
    let tls = runtime.block_on(bytes_each("tls", connections))?;
    println!(
        "{connections} idle connections by way 3, bytes of the process's memory for each (kernel excluded)\n"
    );
    println!("{:<28}{plain:>8.0}", "the pool's connection");
    println!("{:<28}{:>8.0}", "+ what rustls keeps", tls - plain);
    println!("{:<28}{tls:>8.0}", "whole");
    Ok(())
}

async fn bytes_each(role: &str, connections: usize) -> Result<f64> {
    let mut server = Server::start(role)?;
    let connector = match role {
        "tls" => Some(connector(&server.ask("certificate")?)?),
        _ => None,
    };
    let mut clients = Vec::with_capacity(connections + WARM_UP);
    let (mut without, mut with) = (0, 0);
    for (count, memory) in [(WARM_UP, &mut without), (connections, &mut with)] {
        for _ in 0..count {
            clients.push(connect(server.address, connector.as_ref()).await?);
        }
        *memory = settled(&server).await?;
    }
    eprintln!("{role}: {without} KiB with {WARM_UP}, {with} KiB with {connections} more");
    Ok((with as f64 - without as f64) * 1_024.0 / connections as f64)
}

/// Trusts the one certificate, which came on one line.
fn connector(pem: &str) -> Result<TlsConnector> {
    let body = pem.replace(' ', "\n").replace("\nCERTIFICATE", " CERTIFICATE");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(body.as_bytes()).map_err(|error| error.to_string())?)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<IO: AsyncRead + AsyncWrite + Unpin> Socket for IO {}

/// A connection that has said hello and heard it.
async fn connect(address: SocketAddr, connector: Option<&TlsConnector>) -> Result<Box<dyn Socket>> {
    let stream = TcpStream::connect(address).await?;
    let mut stream: Box<dyn Socket> = match connector {
        Some(connector) => Box::new(connector.connect(ServerName::from(address.ip()), stream).await?),
        None => Box::new(stream),
    };
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    if !answer.starts_with(b"HTTP/1.1 101 ") {
        return Err(format!("refused: {}", String::from_utf8_lossy(&answer)).into());
    }
    stream.write_all(HELLO).await?;
    let mut echo = [0; ECHO.len()];
    stream.read_exact(&mut echo).await?;
    if echo != ECHO {
        return Err(format!("not an echo: {echo:?}").into());
    }
    Ok(stream)
}

/// The server's memory in KiB, once it does not change any more.
async fn settled(server: &Server) -> Result<u64> {
    let (mut memory, mut still) = (server.memory_kib()?, 0);
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = server.memory_kib()?;
        still = if now == memory { still + 1 } else { 0 };
        memory = now;
        if still == STILL {
            return Ok(memory);
        }
    }
    Err("the server's memory does not settle".into())
}
