//! A client of the HTTP API: ordinary requests, and bytes of the caller's choice.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use ureq::http;

use super::{Answer, Secrets};

/// Above the server's own limit of 90 s.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks one server as one token, or as nobody.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    address: String,
    token: Option<String>,
    secrets: Secrets,
}

impl Client {
    /// `address` is `127.0.0.1:PORT`. Every secret in an answer is told to `secrets`.
    pub fn new(address: &str, token: Option<&str>, secrets: Secrets) -> Self {
        let config = ureq::Agent::config_builder()
            .allow_non_standard_methods(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(PATIENCE))
            // A killed server leaves dead connections behind.
            .max_idle_connections(0)
            .build();
        Self { agent: config.into(), address: address.to_owned(), token: token.map(str::to_owned), secrets }
    }

    /// The same server, as another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same server, without a token.
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, None)
    }

    pub fn list(&self, path: &str) -> Answer {
        self.request("LIST", path, None)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, None)
    }

    pub fn put(&self, path: &str, body: Value) -> Answer {
        self.request("PUT", path, Some(body))
    }

    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.request("POST", path, Some(body))
    }

    /// `path` is what follows `/v1/`.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.try_request(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Client::request`]; an error when no answer came.
    pub fn try_request(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer, ureq::Error> {
        self.send(method, path, body.map(|body| body.to_string().into_bytes()), &[])
    }

    /// Asks for the answer to be wrapped; an error when no answer came.
    pub fn try_wrapped(&self, method: &str, path: &str, ttl: &str) -> Result<Answer, ureq::Error> {
        self.send(method, path, None, &[("X-Vault-Wrap-TTL", ttl)])
    }

    /// A body of any bytes, and further headers.
    #[track_caller]
    pub fn bytes(&self, method: &str, path: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        self.send(method, path, Some(body.to_vec()), headers).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, ureq::Error> {
        let mut request = http::Request::builder().method(method).uri(format!("http://{}/v1/{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("X-Vault-Token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => self.agent.run(request.body(body)?)?,
            None => self.agent.run(request.body(())?)?,
        };
        let (head, mut content) = response.into_parts();
        let bytes = content.with_config().limit(64 << 20).read_to_vec()?;
        Ok(self.seen(Answer {
            asked: format!("{method} {path}"),
            status: head.status.as_u16(),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect(),
            body: String::from_utf8_lossy(&bytes).into_owned(),
        }))
    }

    /// Sends these very bytes on a connection of their own and reads until the server closes it.
    ///
    /// The bytes should ask for `Connection: close`. A server that closes without a word gives status 0.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).expect("the server takes connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time limit can be set");
        // A server that has seen enough closes, and the rest cannot be written: its answer is there all the same.
        let _ = stream.write_all(bytes);
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received);
        let text = String::from_utf8_lossy(&received).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let asked = String::from_utf8_lossy(bytes.get(..bytes.len().min(200)).unwrap_or_default()).into_owned();
        self.seen(Answer { asked, status: status.unwrap_or(0), headers, body: body.to_owned() })
    }

    /// A request line of these bytes, with token and `Connection: close`.
    pub fn raw_path(&self, method: &str, target: &str) -> Answer {
        let token = self.token.as_ref().map(|token| format!("X-Vault-Token: {token}\r\n")).unwrap_or_default();
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{token}Connection: close\r\n\r\n", self.address);
        self.raw(request.as_bytes())
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    fn seen(&self, answer: Answer) -> Answer {
        self.secrets.tell_answer(&answer.json());
        answer
    }
}
