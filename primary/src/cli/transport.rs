//! How the host is reached: through which proxy, trusting whom, and what becomes of an answer that
//! comes before the request has gone out whole.
//!
//! Knows connections, and nothing of what is asked on them.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use ureq::{Agent, Proxy, ProxyProtocol};

use super::error::{CliError, usage};
pub use crate::config::is_local;
use crate::config::{Client, ProxyWritten};

const CONNECT: Duration = Duration::from_secs(10);
/// Certificates of an authority, with room.
const CA_FILE_MAX_BYTES: u64 = 16 << 20;

pub fn agent(client: &Client) -> Result<Agent, CliError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // The token must not follow to wherever an answer points.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT))
        .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")));
    let config = match client.url.starts_with("https://") {
        true => config.tls_config(
            TlsConfig::builder().root_certs(trusted(client.ca_file.as_deref())?).build(),
        ),
        false => config,
    };
    let address: Uri = client.url.parse().expect("the address was checked");
    let resolver = DefaultResolver::default();
    Ok(match proxy(client, &address)? {
        Some(proxy) if is_forwarding(&proxy, &address) => Agent::with_parts(
            // Each request is written anew, so that each needs a connection of its own.
            config.proxy(None).max_idle_connections(0).build(),
            Connect::new(Some(Forward::new(&address, &proxy))),
            At { proxy: proxy.uri().clone(), resolver },
        ),
        proxy => Agent::with_parts(config.proxy(proxy).build(), Connect::new(None), resolver),
    })
}

/// A proxy stands between this machine and others, never before this machine itself.
fn proxy(client: &Client, address: &Uri) -> Result<Option<Proxy>, CliError> {
    let Some(written) = client.proxy.as_ref().filter(|_| !is_local(&client.url)) else {
        return Ok(None);
    };
    let ProxyWritten { url, variable, except } = written;
    // It may have a password in it, so that it is not said again.
    let wrong = |_| usage(format!("{variable} must be a proxy's address, like http://proxy:3128"));
    let read = Proxy::new(url).map_err(wrong)?;
    let mut proxy = Proxy::builder(read.protocol()).host(read.host()).port(read.port());
    if let Some(username) = read.username() {
        proxy = proxy.username(username);
    }
    if let Some(password) = read.password() {
        proxy = proxy.password(password);
    }
    let proxy = except.iter().fold(proxy, |proxy, except| proxy.no_proxy(except));
    let proxy = proxy.build().map_err(wrong)?;
    Ok(Some(proxy).filter(|proxy| !proxy.is_no_proxy(address)))
}

/// A request that is not encrypted is the proxy's to read and to pass on; through what is, it gives
/// a connection. Most proxies connect to the ports of encrypted services and to no others.
fn is_forwarding(proxy: &Proxy, address: &Uri) -> bool {
    address.scheme_str() == Some("http") && proxy.protocol() == ProxyProtocol::Http
}

/// Those of the system, and of a file where one is named.
fn trusted(ca_file: Option<&Path>) -> Result<RootCerts, CliError> {
    let found = rustls_native_certs::load_native_certs().certs;
    let mut certificates: Vec<Certificate<'static>> =
        found.iter().map(|found| Certificate::from_der(found).to_owned()).collect();
    if let Some(path) = ca_file {
        let of_file = certificates_of(path)
            .map_err(|source| CliError::File { path: path.to_owned(), source })?;
        certificates.extend(of_file);
    }
    if certificates.is_empty() {
        // A system without any, as in a container.
        return Ok(RootCerts::WebPki);
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

fn certificates_of(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    use std::io::Read;
    let mut pem = Vec::new();
    std::fs::File::open(path)?.take(CA_FILE_MAX_BYTES).read_to_end(&mut pem)?;
    let items: Result<Vec<PemItem<'static>>, _> = parse_pem(&pem).collect();
    let items = items.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let certificates: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it has no certificate in PEM")),
        false => Ok(certificates),
    }
}

/// Whatever is asked for, the proxy is where to connect to.
#[derive(Debug)]
struct At {
    proxy: Uri,
    resolver: DefaultResolver,
}

impl Resolver for At {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.resolver.resolve(&self.proxy, config, timeout)
    }
}

/// What makes a request one that a proxy passes on.
#[derive(Clone)]
struct Forward {
    /// As in `http://hearth.example:3400`, before the path.
    origin: String,
    authorization: Option<String>,
}

impl Forward {
    fn new(address: &Uri, proxy: &Proxy) -> Self {
        let authority = address.authority().map_or("", |authority| authority.as_str());
        let has_credentials = proxy.username().is_some() || proxy.password().is_some();
        let (user, password) =
            (proxy.username().unwrap_or_default(), proxy.password().unwrap_or_default());
        let authorization = has_credentials.then(|| STANDARD.encode(format!("{user}:{password}")));
        Self { origin: format!("http://{authority}"), authorization }
    }

    /// A request's head with the whole address in its first line.
    fn rewritten(&self, head: &[u8]) -> Option<Vec<u8>> {
        let target = head.iter().position(|byte| *byte == b' ')? + 1;
        let line = head.windows(2).position(|bytes| bytes == b"\r\n")? + 2;
        let mut written = Vec::with_capacity(head.len() + 256);
        written.extend_from_slice(&head[..target]);
        written.extend_from_slice(self.origin.as_bytes());
        written.extend_from_slice(&head[target..line]);
        if let Some(credentials) = &self.authorization {
            let field = format!("Proxy-Authorization: Basic {credentials}\r\n");
            written.extend_from_slice(field.as_bytes());
        }
        written.extend_from_slice(&head[line..]);
        Some(written)
    }
}

struct Connect {
    inner: DefaultConnector,
    forward: Option<Forward>,
}

impl Connect {
    fn new(forward: Option<Forward>) -> Self {
        Self { inner: DefaultConnector::new(), forward }
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connect(…)")
    }
}

impl Connector for Connect {
    type Out = Connected;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Connected>, ureq::Error> {
        let inner = self.inner.connect(details, chained)?;
        let forward = self.forward.clone();
        Ok(inner.map(|inner| Connected { inner, forward, is_deaf: false }))
    }
}

struct Connected {
    inner: Box<dyn Transport>,
    /// Until the head of the request has gone out.
    forward: Option<Forward>,
    /// The host takes no more of the request. It said why before it closed the connection, and that
    /// is there to be read.
    is_deaf: bool,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("is_deaf", &self.is_deaf).finish_non_exhaustive()
    }
}

impl Transport for Connected {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.is_deaf {
            return Ok(());
        }
        let mut amount = amount;
        if let Some(forward) = self.forward.take() {
            let output = self.inner.buffers().output();
            let written = forward.rewritten(&output[..amount]);
            let written = written.filter(|written| written.len() <= output.len());
            let written = written.ok_or(ureq::Error::LargeResponseHeader(amount, output.len()))?;
            output[..written.len()].copy_from_slice(&written);
            amount = written.len();
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(ureq::Error::Io(error)) if is_broken(&error) => {
                self.is_deaf = true;
                Ok(())
            }
            sent => sent,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        !self.is_deaf && self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Whether a connection that there was is one no longer.
pub fn is_broken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_for_other_machines() {
        for local in [
            "http://127.0.0.1:1",
            "http://localhost",
            "http://LocalHost.:1",
            "http://[::1]:1",
            "http://a.localhost",
            "http://127.1:3400",
            "http://127.255.255.254",
            "http://2130706433",
            "http://0x7f.1",
            "http://0177.0.0.1",
            "http://0.0.0.0:3400",
            "http://[::]:3400",
            "https://[::ffff:127.0.0.1]",
            "http://[0:0:0:0:0:0:0:1]",
        ] {
            assert!(is_local(local), "{local}");
        }
        for remote in [
            "http://10.0.0.1",
            "https://localhost.example",
            "http://128.0.0.1",
            "http://[::2]",
            "http://[::ffff:10.0.0.1]",
            "http://notlocalhost",
        ] {
            assert!(!is_local(remote), "{remote}");
        }
    }

    fn through(url: &str, proxy: &str, except: &[&str]) -> Result<Option<(Proxy, bool)>, CliError> {
        let except = except.iter().map(|entry| (*entry).to_owned()).collect();
        let written = ProxyWritten { url: proxy.to_owned(), variable: "HTTP_PROXY", except };
        let client = Client {
            url: url.to_owned(),
            token: None,
            tenant: None,
            ca_file: None,
            proxy: Some(written),
        };
        let address = url.parse().unwrap();
        let proxy = super::proxy(&client, &address)?;
        Ok(proxy.map(|proxy| (proxy.clone(), is_forwarding(&proxy, &address))))
    }

    #[test]
    fn what_goes_through_which_proxy() {
        let way = |url: &str, proxy: &str, except: &[&str]| {
            through(url, proxy, except).unwrap().map(|(_, forwards)| forwards)
        };
        assert_eq!(way("http://h:3400", "http://p:1", &[]), Some(true));
        assert_eq!(way("http://h:3400", "p:1", &[]), Some(true));
        assert_eq!(way("https://h", "http://p:1", &[]), Some(false));
        assert_eq!(way("http://h", "https://p:1", &[]), Some(false));
        assert_eq!(way("http://127.1:3400", "http://p:1", &[]), None);
        assert_eq!(way("http://h.example", "http://p:1", &["h.example"]), None);
        assert_eq!(way("http://h.example", "http://p:1", &[".other", "*"]), None);
        let error = through("http://h", "http://u:secret@ /", &[]).unwrap_err().to_string();
        assert!(error.contains("HTTP_PROXY") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_proxy_is_told_the_whole_address() {
        let (proxy, _) = through("http://h:3400/x", "http://u:p@p:1", &[]).unwrap().unwrap();
        let forward = Forward::new(&"http://h:3400/x".parse().unwrap(), &proxy);
        let head = b"GET /x/api/v1/whoami HTTP/1.1\r\nhost: h:3400\r\n\r\n";
        assert_eq!(
            String::from_utf8(forward.rewritten(head).unwrap()).unwrap(),
            "GET http://h:3400/x/api/v1/whoami HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nhost: h:3400\r\n\r\n"
        );
        assert_eq!(forward.rewritten(b"nonsense"), None);
    }

    #[test]
    fn certificates_are_read_from_pem() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for wrong in ["", "no PEM at all"] {
            std::fs::write(file.path(), wrong).unwrap();
            let error = certificates_of(file.path()).unwrap_err().to_string();
            assert!(error.contains("certificate"), "{error}");
        }
    }
}
