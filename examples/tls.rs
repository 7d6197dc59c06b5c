//! An echo server behind TLS, by way 3: the pool owns the connection, rustls the encryption.
//!
//! ```text
//! cargo run --release --example tls --features engine                    # wss://127.0.0.1:8443/
//! cargo run --release --example tls --features engine -- --measure 2000  # what TLS costs in memory
//! ```
//!
//! The certificate is made at the start, for `localhost`; `--certificate FILE` writes it where a client
//! can be told of it. To measure, the example starts itself once with TLS and once without, and connects to
//! both; what rustls keeps for a connection is a line of its own, since no pool can save it.

#![allow(clippy::disallowed_methods)] // a person waits for it

#[path = "idle_memory/loopback.rs"]
mod loopback;
#[path = "tls/measure.rs"]
mod measure;

use lexopt::prelude::*;
use loopback::Result;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use ws_manager_pool::serve::{Application, Door, Gate, OriginPolicy, application, door};
use ws_manager_pool::{Environment, HandlerError, IdGenerator, Pool, SendOutcome, UserExecutionContext};

const HELP: &str = "\
An echo server behind TLS; or, with --measure, what TLS costs in memory.

Usage: tls [OPTIONS]

  --addr <address>       where to listen [127.0.0.1:8443]
  --certificate <file>   writes the certificate there, as PEM
  --measure <n>          n idle connections with and without TLS, at least 100
  --help                 this text
";

/// Whoever has not agreed on a key by then is sent away; the same again holds for the request.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    if let Some(role) = loopback::role()? {
        return measure::part(&role);
    }
    let (mut address, mut certificate) = ("127.0.0.1:8443".to_owned(), None);
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("addr") => address = arguments.value()?.string()?,
            Long("certificate") => certificate = Some(arguments.value()?),
            Long("measure") => return measure::run(arguments.value()?.parse()?),
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    let identity = Identity::new()?;
    if let Some(file) = certificate {
        std::fs::write(file, identity.pem())?;
    }
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(&address).await?;
        println!("wss://{}/", listener.local_addr()?);
        serve_tls(listener, identity.acceptor()?, gate("tls")?).await
    })
}

/// A certificate and its key, good until the process ends.
struct Identity(rcgen::CertifiedKey<rcgen::KeyPair>);

impl Identity {
    fn new() -> Result<Self> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        Ok(Self(rcgen::generate_simple_self_signed(names)?))
    }

    fn pem(&self) -> String {
        self.0.cert.pem()
    }

    fn acceptor(&self) -> Result<TlsAcceptor> {
        let key = PrivateKeyDer::try_from(self.0.signing_key.serialize_der())?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.0.cert.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn gate(name: &'static str) -> Result<Gate<impl Door<Session = ()>>> {
    let pool = Pool::builder()
        .name(name)
        .environment(Environment::Production)
        .heartbeat_interval(Duration::from_secs(3_600)) // nothing moves while it is measured
        .idle_background(None)
        .build()?;
    Ok(Gate::new(&pool, door(|_| Ok(stranger()))).with_origins(OriginPolicy::Any))
}

/// Two tasks, one after the other: a task keeps the size of its largest moment, and a TLS handshake is one.
async fn serve_tls<D>(listener: TcpListener, acceptor: TlsAcceptor, gate: Gate<D>) -> Result<()>
where
    D: Door<Session = ()> + 'static,
{
    loop {
        // Held during the TLS handshake too: so many sockets are without an owner, and no more.
        let vacancy = gate.vacancy().await;
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await {
                tokio::spawn(vacancy.accept(stream, echo()));
            }
        });
    }
}

/// The same without TLS.
async fn serve_plain<D>(listener: TcpListener, gate: Gate<D>) -> Result<()>
where
    D: Door<Session = ()> + 'static,
{
    loop {
        let vacancy = gate.vacancy().await;
        let (stream, _) = listener.accept().await?;
        tokio::spawn(vacancy.accept(stream, echo()));
    }
}

/// A user whom nobody has seen before.
fn stranger() -> UserExecutionContext {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let user = format!("guest-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let ids = IdGenerator::user_context_ids(&user, "echo");
    UserExecutionContext::from_websocket_request(user, ids).expect("a number is a good name")
}

fn echo() -> impl Application<Session = ()> {
    application(|conn, message| match conn.send(message.to_message()) {
        SendOutcome::Queued => Ok(()),
        refused => Err(HandlerError::new(format!("an echo was not queued: {refused:?}"))),
    })
}
