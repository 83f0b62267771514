//! A server that refuses plain connections, as a managed Postgres does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use stampede_postgres::Failure;
use stampede_testkit::Database;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{empty, ends, pool};

/// What a client sends that wants TLS: a length and a number instead of a version.
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// What `hostssl` alone in `pg_hba.conf` answers to a client without.
const REFUSAL: &[u8] = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for this host, no encryption\0\0";

/// TLS in front of the tests' server. It ends with this value.
struct TlsOnly {
    address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl TlsOnly {
    async fn start(database: &Database) -> Self {
        let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let options = database.pool().connect_options();
        let upstream = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, acceptor.clone(), upstream.clone()));
            }
        });
        Self { address, _accepting: accepting }
    }

    fn url(&self, database: &Database, host: &str, parameters: &str) -> String {
        let name = database.pool().connect_options().get_database().unwrap().to_owned();
        let options = database.url();
        let user = options.split("//").nth(1).unwrap().split('@').next().unwrap().to_owned();
        format!("postgres://{user}@{host}:{}/{name}?{parameters}", self.address.port())
    }
}

async fn serve(mut client: TcpStream, acceptor: TlsAcceptor, upstream: (String, u16)) {
    let mut first = [0; 8];
    client.read_exact(&mut first).await.unwrap();
    if first != SSL_REQUEST {
        let length = u32::try_from(REFUSAL.len() + 4).unwrap();
        client.write_all(&[&b"E"[..], &length.to_be_bytes(), REFUSAL].concat()).await.unwrap();
        return;
    }
    client.write_all(b"S").await.unwrap();
    // A client that does not trust the certificate goes away.
    let Ok(mut client) = acceptor.accept(client).await else { return };
    let mut server = TcpStream::connect(upstream).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test]
async fn a_server_that_refuses_plain_connections_is_reached_as_the_url_says() {
    let database = empty().await;
    let server = TlsOnly::start(&database).await;
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tls/ca.pem");
    let trusting = |mode: &str| format!("sslmode={mode}&sslrootcert={authority}");
    for (host, parameters) in [
        ("localhost", String::new()),
        ("localhost", "sslmode=require".to_owned()),
        ("localhost", trusting("verify-ca")),
        ("localhost", trusting("verify-full")),
        ("127.0.0.1", trusting("verify-ca")),
    ] {
        let pool = pool(&server.url(&database, host, &parameters));
        let connected = ends(pool.connect()).await;
        assert!(connected.is_ok(), "{host} {parameters}: {connected:?}");
    }
    for (host, parameters) in [
        ("localhost", "sslmode=disable".to_owned()),
        // Not signed by a trusted authority.
        ("localhost", "sslmode=verify-ca".to_owned()),
        ("localhost", "sslmode=verify-full".to_owned()),
        // Signed for another name.
        ("127.0.0.1", trusting("verify-full")),
    ] {
        let pool = pool(&server.url(&database, host, &parameters));
        let error = ends(pool.connect()).await.unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Outage, "{host} {parameters}: {error}");
    }
}
