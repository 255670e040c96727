//! The client of the management API: requests with the token, answers, and problems as errors.
//!
//! Knows how the API is spoken to, not what its calls mean; those are with the commands. Every
//! answer that is kept in memory and every wait has a bound.

use std::io::{self, Read};
use std::time::Duration;

use hearth_wire::{FunctionPath, PROBLEM_JSON, TenantName};
use http::{Method, Response, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::{Agent, Body, SendBody};

use super::error::{CliError, Encryption, Said, usage};
use super::source::Source;
use super::transport::{self, is_broken};
use crate::api::auth::Whoami;
use crate::api::tenants::TenantList;
use crate::config::{Client, ClientArgs};

/// Management calls answer fast; a swap waits for a worker to start.
const ANSWER: Duration = Duration::from_secs(60);
const ANSWER_MAX_BYTES: u64 = 64 << 20;
/// The most that the API gives in one page of a list.
pub const PAGE_MAX: i64 = crate::logs::PAGE_MAX as i64;
/// Names that a message lists before it stops.
const LISTED: usize = 8;

/// What needs no escape in one segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same where a dot does: a segment of nothing else climbs.
const DOTLESS: &AsciiSet = &SEGMENT.add(b'.');

/// A host that is talked to.
pub struct Host {
    agent: Agent,
    client: Client,
}

/// The body of an answer that reported success.
pub struct Answer {
    pub text: String,
}

impl Answer {
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        serde_json::from_str(&self.text).map_err(CliError::Answer)
    }
}

/// How a call is made besides its path and body.
#[derive(Default)]
pub struct Call<'a> {
    pub headers: &'a [(header::HeaderName, &'a str)],
    /// Until the answer begins; a minute where it is not said.
    pub answer: Option<Duration>,
    /// Between two pieces of the answer.
    pub silence: Option<Duration>,
}

impl Host {
    pub fn connect(args: &ClientArgs) -> Result<Self, CliError> {
        let host = Self::of(Client::gather(args)?)?;
        if host.client.token.is_none() {
            return Err(CliError::Refused(format!(
                "there is no token for {}: run `hearth login`, or set HEARTH_TOKEN",
                host.client.url
            )));
        }
        Ok(host)
    }

    pub fn of(client: Client) -> Result<Self, CliError> {
        Ok(Self { agent: transport::agent(&client)?, client })
    }

    pub fn url(&self) -> &str {
        &self.client.url
    }

    pub fn has_token(&self) -> bool {
        self.client.token.is_some()
    }

    /// Whether it is this machine, so that nothing passes a network.
    pub fn is_local(&self) -> bool {
        transport::is_local(&self.client.url)
    }

    /// Whether an option or a variable says which tenant is meant.
    pub fn names_tenant(&self) -> bool {
        self.client.tenant.is_some()
    }

    pub fn get(&self, path: &str) -> Result<Answer, CliError> {
        self.call(Method::GET, path, SendBody::none(), &Call::default()).and_then(answer)
    }

    pub fn delete(&self, path: &str) -> Result<Answer, CliError> {
        self.call(Method::DELETE, path, SendBody::none(), &Call::default()).and_then(answer)
    }

    pub fn post(&self, path: &str, body: Option<&impl Serialize>) -> Result<Answer, CliError> {
        match body {
            Some(body) => self.send(Method::POST, path, body),
            None => {
                self.call(Method::POST, path, SendBody::none(), &Call::default()).and_then(answer)
            }
        }
    }

    /// Sends bytes as they are.
    pub fn put(&self, path: &str, mut source: Source) -> Result<Answer, CliError> {
        let length = source.length.map(|length| length.to_string());
        let mut headers = vec![(header::CONTENT_TYPE, "application/octet-stream")];
        headers.extend(length.as_deref().map(|length| (header::CONTENT_LENGTH, length)));
        let call = Call { headers: &headers, ..Call::default() };
        let body = SendBody::from_reader(&mut source.reader);
        self.call(Method::PUT, path, body, &call).and_then(answer)
    }

    pub fn patch(&self, path: &str, body: &impl Serialize) -> Result<Answer, CliError> {
        self.send(Method::PATCH, path, body)
    }

    fn send(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Answer, CliError> {
        let json = serde_json::to_vec(body).expect("the API's bodies are plain data");
        let mut json = json.as_slice();
        let length = json.len().to_string();
        let headers =
            [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_LENGTH, &length)];
        let call = Call { headers: &headers, ..Call::default() };
        self.call(method, path, SendBody::from_reader(&mut json), &call).and_then(answer)
    }

    /// Makes one call below `/api/v1`. An answer that reports no success is an error, except to
    /// [`Host::call_any`].
    pub fn call(
        &self,
        method: Method,
        path: &str,
        body: SendBody<'_>,
        call: &Call<'_>,
    ) -> Result<Response<Body>, CliError> {
        let response = self.call_any(method, path, body, call)?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response)) }
    }

    pub fn call_any(
        &self,
        method: Method,
        path: &str,
        body: SendBody<'_>,
        call: &Call<'_>,
    ) -> Result<Response<Body>, CliError> {
        let mut request =
            http::Request::builder().method(method).uri(format!("{}/api/v1{path}", self.url()));
        if let Some(token) = &self.client.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in call.headers {
            request = request.header(name, *value);
        }
        let request = request.body(body).expect("address, token and headers were checked");
        let request = self
            .agent
            .configure_request(request)
            .timeout_recv_response(Some(call.answer.unwrap_or(ANSWER)))
            .timeout_per_read(call.silence)
            .build();
        self.agent.run(request).map_err(|source| self.unanswered(source))
    }

    fn unanswered(&self, source: ureq::Error) -> CliError {
        let is_broken = matches!(&source, ureq::Error::Io(error) if is_broken(error));
        let (url, source) = (self.url().to_owned(), Box::new(source));
        if is_broken {
            return CliError::Broken { url, source };
        }
        match Encryption::of(&source.to_string()) {
            Some(fault) => CliError::Encryption { url, fault },
            None => CliError::Unreachable { url, source },
        }
    }

    /// Of an answer that broke off: a host that takes the token no longer says so when it is asked.
    pub fn cut(&self, error: CliError) -> CliError {
        match self.whoami() {
            Err(refused @ CliError::Problem(_)) => refused,
            Ok(_) | Err(_) => error,
        }
    }

    /// Where a tenant's functions are for whoever is here: what is this machine's to the host is
    /// another's to who reaches it over a network, who has its front door alone.
    pub fn tenant_url(&self, tenant: &TenantName, url: &str) -> String {
        match transport::is_local(url) && !self.is_local() {
            true => format!("{}/t/{tenant}", self.url()),
            false => url.trim_end_matches('/').to_owned(),
        }
    }

    /// Whether the API is there, before anything secret goes to it: what else there could be at an
    /// address is not the API's to see a token.
    pub fn is_api(&self) -> Result<(), CliError> {
        let asked = Self {
            agent: self.agent.clone(),
            client: Client { token: None, ..self.client.clone() },
        };
        let response =
            asked.call_any(Method::GET, "/whoami", SendBody::none(), &Call::default())?;
        match response.status() {
            StatusCode::UNAUTHORIZED if is_problem(&response) => Ok(()),
            StatusCode::MISDIRECTED_REQUEST => Err(self.refused(response)),
            status if status.is_server_error() => Err(self.refused(response)),
            _ => Err(CliError::Refused(format!(
                "{} has no management API: a tenant's address has none, and its port neither; \
                 the API is at the host's front door, like http://127.0.0.1:3400",
                self.url()
            ))),
        }
    }

    pub fn refused(&self, response: Response<Body>) -> CliError {
        match problem(response) {
            Ok(said) => CliError::Problem(said),
            Err(status) => CliError::Refused(format!(
                "{} answered {status}, and not as Hearth does; is the address right?",
                self.url()
            )),
        }
    }

    pub fn whoami(&self) -> Result<Whoami, CliError> {
        self.get("/whoami")?.parse()
    }

    /// The tenant that is meant: the one that was named, the token's own, or the only one.
    pub fn tenant(&self) -> Result<TenantName, CliError> {
        if let Some(tenant) = &self.client.tenant {
            return Ok(tenant.clone());
        }
        if let Some(tenant) = self.whoami()?.tenant {
            return Ok(tenant);
        }
        let list: TenantList = self.get("/tenants")?.parse()?;
        only(list.tenants.into_iter().map(|tenant| tenant.name).collect())
    }

    /// `/tenants/demo` and what follows.
    pub fn of_tenant(&self, rest: &str) -> Result<String, CliError> {
        Ok(format!("/tenants/{}{rest}", self.tenant()?.as_str()))
    }
}

fn only(mut tenants: Vec<TenantName>) -> Result<TenantName, CliError> {
    match tenants.len() {
        0 => Err(CliError::Refused(
            "there is no tenant yet; make one: hearth tenant add NAME".into(),
        )),
        1 => Ok(tenants.remove(0)),
        count => {
            let names: Vec<_> = tenants.iter().take(LISTED).map(TenantName::as_str).collect();
            let more = if count > LISTED { ", …" } else { "" };
            Err(usage(format!(
                "there are {count} tenants; say which one with --tenant NAME ({}{more})",
                names.join(", ")
            )))
        }
    }
}

/// A function's path as the one segment that the API takes it as.
pub fn segment(path: &FunctionPath) -> String {
    utf8_percent_encode(path.relative(), SEGMENT).to_string()
}

/// Any text as one segment, which climbs nowhere.
pub fn segment_of(text: &str) -> String {
    utf8_percent_encode(text, DOTLESS).to_string()
}

/// Pairs as a query, with its `?`; nothing where there is none.
pub fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            let separator = if query.is_empty() { '?' } else { '&' };
            query.extend([separator]);
            query.push_str(name);
            query.push('=');
            query.extend(utf8_percent_encode(value, SEGMENT));
        }
    }
    query
}

pub fn answer(response: Response<Body>) -> Result<Answer, CliError> {
    let mut text = String::new();
    let mut body = response.into_body().into_with_config().limit(ANSWER_MAX_BYTES).reader();
    body.read_to_string(&mut text).map_err(CliError::Cut)?;
    Ok(Answer { text })
}

/// The problem, or the status of an answer that is none.
fn problem(response: Response<Body>) -> Result<Said, StatusCode> {
    let status = response.status();
    if !is_problem(&response) {
        return Err(status);
    }
    let answer = answer(response).map_err(|_| status)?;
    Said::of(answer.text).map_err(|_| status)
}

pub fn is_problem(response: &Response<Body>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(PROBLEM_JSON.as_bytes()))
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_segment() {
        let path: FunctionPath = "/jobs/nightly.v2".parse().unwrap();
        assert_eq!(segment(&path), "jobs%2Fnightly.v2");
        assert_eq!(segment_of("../a b"), "%2E%2E%2Fa%20b");
    }

    #[test]
    fn a_query_has_what_is_there() {
        assert_eq!(query(&[("a", None), ("b", None)]), "");
        assert_eq!(query(&[("a", None), ("b", Some("/x y")), ("c", Some("1"))]), "?b=%2Fx%20y&c=1");
    }

    #[test]
    fn a_problem_as_it_is_printed() {
        let said = |json| serde_json::from_str::<Said>(json).unwrap().to_string();
        assert_eq!(
            said(r#"{"detail":"no \u001b","code":"not_found","request_id":"r-1","more":[]}"#),
            "no \\u{1b} (not_found, request r-1)"
        );
        assert_eq!(said(r#"{"detail":"no","code":"from_tomorrow"}"#), "no (from_tomorrow)");
        assert_eq!(said(r#"{"detail":"no","status":422}"#), "no");
    }

    #[test]
    fn why_a_connection_is_not_encrypted() {
        use Encryption::{Authority, Early, Expired, Name, Other, Plain, Unknown};
        for (said, fault) in [
            ("io: invalid peer certificate: UnknownIssuer", Some(Unknown)),
            ("io: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", Some(Authority)),
            (
                "io: invalid peer certificate: certificate not valid for name \"a\"; \
                 certificate is only valid for DnsName(\"b\")",
                Some(Name),
            ),
            (
                "io: invalid peer certificate: certificate expired: verification time 1",
                Some(Expired),
            ),
            ("io: invalid peer certificate: certificate not valid yet: it is 1", Some(Early)),
            ("io: invalid peer certificate: BadSignature", Some(Other("BadSignature".to_owned()))),
            ("io: received corrupt message of type InvalidContentType", Some(Plain)),
            ("io: Connection refused", None),
        ] {
            assert_eq!(Encryption::of(said), fault, "{said}");
        }
    }

    #[test]
    fn where_a_tenant_is_for_who_asks() {
        let shown = |client: &str, url: &str| {
            let client = Client {
                url: client.to_owned(),
                token: None,
                tenant: None,
                ca_file: None,
                proxy: None,
            };
            let host = Host::of(client).unwrap();
            host.tenant_url(&"demo".parse().unwrap(), url)
        };
        let own = "http://127.0.0.1:3411";
        assert_eq!(shown("http://127.0.0.1:3400", own), own);
        assert_eq!(shown("http://localhost:3400", own), own);
        assert_eq!(shown("http://hearth.lan:3400", own), "http://hearth.lan:3400/t/demo");
        assert_eq!(shown("https://h.example/below", own), "https://h.example/below/t/demo");
        assert_eq!(
            shown("http://hearth.lan:3400", "http://[::1]:1"),
            "http://hearth.lan:3400/t/demo"
        );
        let other = "http://192.0.2.1:3411";
        assert_eq!(shown("http://hearth.lan:3400", other), other);
    }

    #[test]
    fn which_tenant_is_meant() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(only(names(&["a"])).unwrap().as_str(), "a");
        assert!(matches!(only(names(&[])), Err(CliError::Refused(_))));
        let error = only(names(&["a", "b"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there are 2 tenants; say which one with --tenant NAME (a, b)"
        );
    }
}
