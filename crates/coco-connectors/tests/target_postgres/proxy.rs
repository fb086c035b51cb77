//! Proxies in front of the remote server in some tests: a slow network, TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional, split};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use super::remote_db::RemoteDb;

fn socket(remote: &RemoteDb) -> PathBuf {
    remote.server.directory().join(".s.PGSQL.5432")
}

fn listen(remote: &RemoteDb) -> (TcpListener, SocketAddr) {
    let listener = remote.runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Accepts connections and sends nothing.
pub fn silent(remote: &RemoteDb) -> SocketAddr {
    let (listener, address) = listen(remote);
    remote.runtime.spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    address
}

/// Forwards all data. Data from the server is delayed by this many milliseconds.
pub fn slow(remote: &RemoteDb, delay: Arc<AtomicU64>) -> SocketAddr {
    let (listener, address) = listen(remote);
    let socket = socket(remote);
    remote.runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = UnixStream::connect(&socket).await else { continue };
            let (mut from_client, mut to_client) = split(client);
            let (mut from_server, mut to_server) = split(server);
            let delay = delay.clone();
            tokio::spawn(async move { copy(&mut from_client, &mut to_server).await.ok() });
            tokio::spawn(async move {
                let mut buffer = [0; 8192];
                while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
                    tokio::time::sleep(Duration::from_millis(delay.load(Ordering::Relaxed))).await;
                    if to_client.write_all(&buffer[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A certificate authority, as PEM.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "coco test authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("a certificate");
        Authority { issuer }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }
}

/// Terminates TLS with a certificate for a host, and forwards the data in clear text.
pub fn tls(remote: &RemoteDb, authority: &Authority, host: &str) -> SocketAddr {
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
    let certificate = parameters.signed_by(&key, &authority.issuer).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("the key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen(remote);
    let socket = socket(remote);
    remote.runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(encrypted(client, acceptor.clone(), socket.clone()));
        }
    });
    address
}

async fn encrypted(mut client: TcpStream, acceptor: TlsAcceptor, socket: PathBuf) -> Option<()> {
    // SSLRequest: its length and its code.
    let mut request = [0; 8];
    client.read_exact(&mut request).await.ok()?;
    if request != *b"\0\0\0\x08\x04\xd2\x16\x2f" {
        return None;
    }
    client.write_all(b"S").await.ok()?;
    let mut client = acceptor.accept(client).await.ok()?;
    let mut server = UnixStream::connect(socket).await.ok()?;
    copy_bidirectional(&mut client, &mut server).await.ok()?;
    Some(())
}
