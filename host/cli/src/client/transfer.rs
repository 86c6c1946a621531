//! Files of any size, on their way to the server and back: never in memory as a whole, never sent or asked for twice.

use std::fs::File;
use std::io::{self, Write};

use super::answer::Answer;
use super::{ApiRequest, Client, ClientError};

impl Client {
    /// Sends a file as the body of this request.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) fn upload(&self, call: &ApiRequest, file: &File) -> Result<Answer, ClientError> {
        let url = self.url_unless_dry(call)?;
        let _waiting = self.waiting(call);
        let response = self.run(call, &url, file)?;
        let answer = Answer::read(response).map_err(|error| failed(call, &url, error.to_string()))?;
        answer.or_refusal(call.method, &url)
    }

    /// Writes the answer to this request `into` a file, and gives its length. A refusal is not written.
    ///
    /// # Errors
    /// As [`Client::send`]; the file cannot be written.
    pub(crate) fn download(&self, call: &ApiRequest, into: &mut impl Write) -> Result<u64, ClientError> {
        let url = self.url_unless_dry(call)?;
        let _waiting = self.waiting(call);
        let response = self.run(call, &url, ())?;
        if !response.status().is_success() {
            let answer = Answer::read(response).map_err(|error| failed(call, &url, error.to_string()))?;
            let status = answer.status;
            answer.or_refusal(call.method, &url)?;
            return Err(ClientError::Unexpected(format!("the server answered {status} and sent no file")));
        }
        let length = response.body().content_length();
        let mut body = response.into_body().into_reader();
        let copied = io::copy(&mut body, into).map_err(|error| failed(call, &url, error.to_string()))?;
        match length.filter(|length| *length != copied) {
            Some(length) => Err(failed(call, &url, format!("{copied} of {length} bytes came"))),
            None => Ok(copied),
        }
    }

    fn run(
        &self,
        call: &ApiRequest,
        url: &str,
        body: impl ureq::AsSendBody,
    ) -> Result<ureq::http::Response<ureq::Body>, ClientError> {
        let request = self.head(call.method, url, &self.headers_of(call))?;
        let unfit = |_| failed(call, url, "this is not a request that can be sent".to_owned());
        // How long it takes depends on its size, so only a limit that somebody has set holds.
        let configured = self.agent.configure_request(request.body(body).map_err(unfit)?);
        let request = configured.timeout_global(self.own_timeout).build();
        self.agent.run(request).map_err(|error| failed(call, url, super::tls::explain(&error, &self.address)))
    }
}

fn failed(call: &ApiRequest, url: &str, why: String) -> ClientError {
    ClientError::Transport { verb: super::verb(call.method), url: url.to_owned(), why }
}
