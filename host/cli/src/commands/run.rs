//! What every command has at hand: its words and flags, the surroundings, a connection.

use clap::{ArgMatches, Command};
use secrecy::SecretString;

use crate::client::{Client, ClientOptions, DryRun};
use crate::duration::Span;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::print::Format;
use crate::token_helper::TokenHelper;
use crate::tools::ModuleTools;

/// One run of one command: its words and flags, and what it works with.
pub(crate) struct Run<'a> {
    pub(crate) env: &'a mut Environment,
    pub(crate) tools: &'a dyn ModuleTools,
    pub(crate) tree: &'a Command,
    pub(crate) flags: &'a ArgMatches,
    pub(crate) format: Format,
}

impl Run<'_> {
    /// The arguments that are not flags.
    pub(crate) fn words(&self) -> Vec<String> {
        self.flags.get_many::<String>("words").into_iter().flatten().cloned().collect()
    }

    /// Exactly so many words.
    pub(crate) fn exactly<const N: usize>(&self) -> Result<[String; N], Failure> {
        let words = self.words();
        let got = words.len();
        let complaint = if got < N { "Not enough" } else { "Too many" };
        words.try_into().map_err(|_| Failure::Local(format!("{complaint} arguments (expected {N}, got {got})")))
    }

    pub(crate) fn text(&self, flag: &str) -> Option<&str> {
        self.flags.try_get_one::<String>(flag).ok().flatten().map(String::as_str)
    }

    pub(crate) fn texts(&self, flag: &str) -> Vec<String> {
        self.flags.try_get_many::<String>(flag).ok().flatten().into_iter().flatten().cloned().collect()
    }

    pub(crate) fn switch(&self, flag: &str) -> bool {
        self.switch_if_given(flag).unwrap_or(false)
    }

    pub(crate) fn switch_if_given(&self, flag: &str) -> Option<bool> {
        self.flags.try_get_one::<bool>(flag).ok().flatten().copied()
    }

    pub(crate) fn span(&self, flag: &str) -> Result<Span, Failure> {
        match self.text(flag) {
            None => Ok(Span::default()),
            Some(text) => parse_span(flag, text),
        }
    }

    pub(crate) fn number(&self, flag: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text(flag) else { return Ok(None) };
        let number = text
            .parse()
            .map_err(|_| Failure::Local(format!("invalid value \"{text}\" for flag -{flag}: it must be a number")))?;
        Ok(Some(number))
    }

    /// Repeated `NAME=VALUE` flags.
    pub(crate) fn pairs(&self, flag: &str) -> Result<Vec<(String, String)>, Failure> {
        let split = |one: &String| match one.split_once('=') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
            None => Err(Failure::Local(format!("invalid value for flag -{flag}: it must be key=value"))),
        };
        self.texts(flag).iter().map(split).collect()
    }

    pub(crate) fn no_stdin(&self) -> bool {
        self.switch("non-interactive")
    }

    /// A connection with the token of the environment or, without one, of the token file.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let mut client = self.client_without_token()?;
        let token = self.token()?;
        client.set_token(token).map_err(Failure::from_client)?;
        Ok(client)
    }

    /// The same, to another server than the one that is named.
    pub(crate) fn client_of(&self, address: &str) -> Result<Client, Failure> {
        let mut client = self.client_at(Some(address.to_owned()))?;
        client.set_token(self.token()?).map_err(Failure::from_client)?;
        Ok(client)
    }

    /// The token that requests would carry.
    pub(crate) fn token(&self) -> Result<Option<SecretString>, Failure> {
        if let Some(token) = self.env.setting("TOKEN") {
            return Ok(Some(SecretString::from(token)));
        }
        let failed = |why: String| Failure::Server(format!("failed to get token from token helper: {why}"));
        let Some(helper) = TokenHelper::of(self.env).map_err(failed)? else { return Ok(None) };
        helper.read().map_err(|error| failed(error.to_string()))
    }

    fn dry_run(&self) -> Option<DryRun> {
        let dry_runs = [("output-curl-string", DryRun::CurlString), ("output-policy", DryRun::Policy)];
        dry_runs.into_iter().find(|(flag, _)| self.switch(flag)).map(|(_, dry_run)| dry_run)
    }

    pub(crate) fn client_without_token(&self) -> Result<Client, Failure> {
        self.client_at(self.text("address").map(str::to_owned))
    }

    fn client_at(&self, address: Option<String>) -> Result<Client, Failure> {
        let owned = |flag: &str| self.text(flag).map(str::to_owned);
        let options = ClientOptions {
            address,
            namespace: owned("namespace"),
            ca_cert: owned("ca-cert"),
            ca_path: owned("ca-path"),
            client_cert: owned("client-cert"),
            client_key: owned("client-key"),
            tls_server_name: owned("tls-server-name"),
            tls_skip_verify: self.switch_if_given("tls-skip-verify"),
            wrap_ttl: self.text("wrap-ttl").map(|text| parse_span("wrap-ttl", text)).transpose()?,
            headers: self.pairs("header")?,
            dry_run: self.dry_run(),
            disable_redirects: self.switch("disable-redirects"),
        };
        Client::prepare(self.env, options).map_err(Failure::from_client)
    }
}

pub(crate) fn parse_span(flag: &str, text: &str) -> Result<Span, Failure> {
    Span::parse(text).ok_or_else(|| {
        Failure::Local(format!(
            "invalid value \"{text}\" for flag -{flag}: time: invalid duration \"{text}\" (such as 30s, 1h30m, 7d)"
        ))
    })
}

/// A path without slashes or blanks around it.
pub(crate) fn bare_path(path: &str) -> &str {
    path.trim().trim_matches('/')
}

/// A path with one slash at its end.
pub(crate) fn mount_path(path: &str) -> String {
    format!("{}/", path.trim().trim_end_matches('/'))
}
