//! `login`: by token, by user name and password, by role id and secret id, by the token of an identity provider, or by certificate.

use clap::Command;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::data::show;
use super::run::{Run, bare_path};
use crate::client::{ApiRequest, Auth, Client, Secret};
use crate::data;
use crate::declare::{leaf, switch, value};
use crate::environment::parse_bool;
use crate::failure::Failure;
use crate::print::{self, Format, wrapped};
use crate::token_helper::TokenHelper;

pub(super) fn tree() -> Command {
    leaf("login", "Authenticate and keep the token for later commands", "[TOKEN | KEY=VALUE...]", EXAMPLES)
        .arg(value(
            "method",
            "TYPE",
            "How to authenticate: token (default), userpass, approle, jwt, kubernetes or cert",
        ))
        .arg(value("path", "PATH", "Where the method is enabled, if not at its own name"))
        .arg(switch("no-store", "Do not write the token to the token file"))
        .arg(switch("no-print", "Do not print the token"))
        .arg(switch("token-only", "Print the token alone, store nothing"))
}

const EXAMPLES: &str = "  $ leasehold login
  $ leasehold login s.24C1WPwTpPR0uUq6sfFYtu9o
  $ leasehold login - < token.txt
  $ leasehold login -method=userpass username=sally password=- < password.txt
  $ leasehold login -method=approle -path=machines role_id=apps secret_id=- < secret-id.txt
  $ leasehold login -method=jwt role=ci jwt=@token.jwt";

pub(super) fn login(run: &mut Run) -> Result<(), Failure> {
    let token_only = run.switch("token-only");
    let store = !token_only && !run.switch("no-store");
    if !store && !token_only && run.switch("no-print") {
        return Err(Failure::Local("-no-store and -no-print cannot be used together".to_owned()));
    }
    let method = run.text("method").map(bare_path).filter(|method| !method.is_empty()).unwrap_or("token").to_owned();
    let path = run.text("path").map_or_else(|| method.clone(), |path| bare_path(path).to_owned());
    let mut words = run.words();
    if let Some(first) = words.first_mut().filter(|first| method == "token" && !first.contains('=')) {
        *first = format!("token={first}");
    }
    if !matches!(method.as_str(), "token" | "userpass" | "approle" | "jwt" | "kubernetes" | "cert") {
        return Err(Failure::Local(wrapped(&format!(
            "Unknown auth method: {method}. Use \"leasehold auth list\" to see the complete list of auth methods. Additionally, some auth methods are only available via the HTTP API."
        ))));
    }
    let no_stdin = run.no_stdin();
    let settings =
        data::gather(run.env, &words, no_stdin).map_err(|problem| problem.local("Error parsing configuration"))?;
    let settings = Settings(data::as_texts(settings.unwrap_or_default()));
    let mut client = run.client_without_token()?;
    let secret = match method.as_str() {
        "token" => by_token(run, &mut client, &settings)?,
        "approle" => by_role(run, &client, &path, &settings)?,
        "cert" => by_certificate(&client, &path, &settings)?,
        "jwt" | "kubernetes" => by_signed_token(&client, &path, &settings)?,
        _ => by_password(run, &client, &path, &settings)?,
    };
    let secret = unwrapped(&mut client, secret, store)?;
    let Some(auth) = secret.auth.as_ref() else {
        if run.switch("no-print") {
            return Ok(());
        }
        // A wrapped token that is not to be stored stays wrapped.
        return if token_only {
            print::secret_field(run.env, run.format, &secret, "wrapping_token")
        } else {
            print::secret(run.env, run.format, &secret)
        };
    };
    if store {
        keep(run, &SecretString::from(auth.client_token.as_str()), &secret)?;
    } else if !token_only {
        let hint = "The token was not stored in token helper. Set the LEASEHOLD_TOKEN environment variable or pass the token below with each request.";
        run.env.warn(&format!("{}\n", wrapped(hint)));
    }
    if run.switch("no-print") {
        return Ok(());
    }
    if token_only {
        return print::secret_field(run.env, run.format, &secret, "token");
    }
    if run.text("field").is_none() && run.format == Format::Table {
        let stored = "Success! You are now authenticated. The token information displayed below is already stored in the token helper. You do NOT need to run \"leasehold login\" again. Future Leasehold requests will automatically use this token.";
        let unstored = "Success! You are now authenticated. The token information displayed below was not stored.";
        run.env.say(&format!("{}\n", wrapped(if store { stored } else { unstored })))?;
    }
    show(run, &secret)
}

struct Settings(Vec<(String, String)>);

impl Settings {
    fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        // A password that is no longer needed should not stay in memory.
        self.0.drain(..).for_each(|(_, value)| drop(SecretString::from(value)));
    }
}

fn by_token(run: &mut Run, client: &mut Client, settings: &Settings) -> Result<Secret, Failure> {
    let lookup = match settings.of("lookup") {
        None => true,
        Some(text) => parse_bool(text).ok_or_else(|| failed("failed to parse \"lookup\" as boolean"))?,
    };
    let token = match settings.of("token") {
        Some(token) => SecretString::from(token.trim()),
        None if run.no_stdin() => return Err(failed("'token' not supplied and refusing to pull from stdin")),
        None => ask(run, "Token (will be hidden): ", "-")?,
    };
    if token.expose_secret().is_empty() {
        return Err(failed("a token must be passed to auth, please view the help for more information"));
    }
    if !lookup {
        let auth = Auth { client_token: token.expose_secret().to_owned(), ..Auth::default() };
        return Ok(Secret { auth: Some(auth), ..Secret::default() });
    }
    client.set_token(Some(token)).map_err(Failure::from_client)?;
    client.stop_wrapping();
    let found = client
        .logical(&ApiRequest::get("auth/token/lookup-self"))
        .map_err(|error| Failure::while_doing("Error authenticating: error looking up token", error))?
        .and_then(|secret| secret.data)
        .ok_or_else(|| failed("empty response from lookup-self"))?;
    Ok(Secret { auth: Some(as_auth(&found)), ..Secret::default() })
}

/// What a lookup says, in the form of a login's answer.
fn as_auth(found: &serde_json::Map<String, Value>) -> Auth {
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| -> Option<Vec<String>> {
        let list = found.get(key)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    };
    let token_policies = list("policies");
    let identity_policies = list("identity_policies");
    let mut policies: Vec<String> = token_policies.iter().chain(&identity_policies).flatten().cloned().collect();
    policies.dedup();
    Auth {
        client_token: text("id"),
        accessor: text("accessor"),
        policies: Some(policies),
        token_policies,
        identity_policies,
        metadata: found.get("meta").and_then(Value::as_object).cloned(),
        lease_duration: found.get("ttl").and_then(Value::as_i64).unwrap_or(0),
        renewable: found.get("renewable").and_then(Value::as_bool).unwrap_or(false),
        ..Auth::default()
    }
}

fn by_password(run: &mut Run, client: &Client, path: &str, settings: &Settings) -> Result<Secret, Failure> {
    let Some(name) = settings.of("username").filter(|name| !name.is_empty()) else {
        return Err(failed("'username' must be specified"));
    };
    let password = match settings.of("password").filter(|password| !password.is_empty()) {
        Some(password) => SecretString::from(password),
        None if run.no_stdin() => return Err(failed("'password' must be specified and refusing to pull from stdin")),
        None => ask(run, "Password (will be hidden): ", "password=-")?,
    };
    let call =
        ApiRequest::put(format!("auth/{path}/login/{name}")).json(json!({ "password": password.expose_secret() }));
    let answer = client.logical(&call).map_err(|error| Failure::while_doing("Error authenticating", error))?;
    answer.ok_or_else(|| failed("empty response from credential provider"))
}

/// Vault's own command line cannot do this; what is sent is what its agent sends.
fn by_role(run: &mut Run, client: &Client, path: &str, settings: &Settings) -> Result<Secret, Failure> {
    let Some(role_id) = settings.of("role_id").filter(|id| !id.is_empty()) else {
        return Err(failed("'role_id' must be specified"));
    };
    let mut body = json!({ "role_id": role_id });
    let secret_id = match settings.of("secret_id") {
        // A role with `bind_secret_id=false` needs none.
        Some("") => None,
        Some(secret_id) => Some(SecretString::from(secret_id)),
        None if run.no_stdin() => return Err(failed("'secret_id' must be specified and refusing to pull from stdin")),
        None => Some(ask(run, "Secret ID (will be hidden): ", "secret_id=-")?),
    };
    if let Some(secret_id) = &secret_id {
        body["secret_id"] = json!(secret_id.expose_secret());
    }
    let call = ApiRequest::put(format!("auth/{path}/login")).json(body);
    let answer = client.logical(&call).map_err(|error| Failure::while_doing("Error authenticating", error))?;
    answer.ok_or_else(|| failed("empty response from credential provider"))
}

/// The token of an identity provider or of a service account. Nobody types one, so that it is not asked for.
fn by_signed_token(client: &Client, path: &str, settings: &Settings) -> Result<Secret, Failure> {
    let Some(jwt) = settings.of("jwt").map(str::trim).filter(|jwt| !jwt.is_empty()) else {
        return Err(failed("'jwt' must be specified, for example as jwt=@FILE or as jwt=- from standard input"));
    };
    let mut body = json!({ "jwt": jwt });
    if let Some(role) = settings.of("role").filter(|role| !role.is_empty()) {
        body["role"] = json!(role);
    }
    let call = ApiRequest::put(format!("auth/{path}/login")).json(body);
    let answer = client.logical(&call).map_err(|error| Failure::while_doing("Error authenticating", error))?;
    answer.ok_or_else(|| failed("empty response from credential provider"))
}

/// The certificate is that of the connection: `-client-cert` and `-client-key`.
fn by_certificate(client: &Client, path: &str, settings: &Settings) -> Result<Secret, Failure> {
    let body = settings.of("name").filter(|name| !name.is_empty()).map_or(json!({}), |name| json!({ "name": name }));
    let call = ApiRequest::put(format!("auth/{path}/login")).json(body);
    let answer = client.logical(&call).map_err(|error| Failure::while_doing("Error authenticating", error))?;
    answer.ok_or_else(|| failed("empty response from credential provider"))
}

/// Takes a login's answer out of its wrapping, if it is wrapped and the token is to be stored.
fn unwrapped(client: &mut Client, secret: Secret, wanted: bool) -> Result<Secret, Failure> {
    let failed = |why: &str| Failure::Server(format!("Error extracting token: {why}"));
    match (&secret.auth, &secret.wrap_info) {
        (Some(_), _) => Ok(secret),
        (None, Some(wrap)) if wrap.wrapped_accessor.is_empty() => {
            Err(failed("wrapped response does not contain a token"))
        }
        (None, Some(_)) if !wanted => Ok(secret),
        (None, Some(wrap)) => {
            client.stop_wrapping();
            client.set_token(Some(SecretString::from(wrap.token.as_str()))).map_err(Failure::from_client)?;
            let inner = client
                .logical(&ApiRequest::put("sys/wrapping/unwrap"))
                .map_err(|error| Failure::while_doing("Error extracting token", error))?;
            inner.filter(|inner| inner.auth.is_some()).ok_or_else(|| failed("no auth or wrapping info in response"))
        }
        (None, None) => Err(failed("no auth or wrapping info in response")),
    }
}

fn keep(run: &mut Run, token: &SecretString, secret: &Secret) -> Result<(), Failure> {
    let stored = match TokenHelper::of(run.env) {
        Err(why) => Err(why),
        Ok(Some(helper)) => helper.store(token).map_err(|error| error.to_string()),
        Ok(None) => Err("there is no home folder, and TOKEN_PATH is not set".to_owned()),
    };
    if let Err(why) = stored {
        run.env.warn(&format!("Error storing token: {why}"));
        if run.switch("no-print") {
            // Nobody asked for the token on standard output, which may well be a log.
            let lost = "Authentication was successful, but the token was not persisted, and it is not shown because of -no-print. Log in again once the token can be stored, or without -no-print.";
            run.env.warn(&format!("{}\n", wrapped(lost)));
            return Err(Failure::Status(2));
        }
        let shown = "Authentication was successful, but the token was not persisted. The resulting token is shown below for your records.";
        run.env.warn(&format!("{}\n", wrapped(shown)));
        print::secret(run.env, run.format, secret)?;
        return Err(Failure::Status(2));
    }
    if let Some((name, _)) = run.env.setting_with_name("TOKEN") {
        let hint = format!(
            "WARNING! The {name} environment variable is set! The value of this variable will take precedence; if this is unwanted please unset {name} or update its value accordingly."
        );
        run.env.warn(&format!("{}\n", wrapped(&hint)));
    }
    Ok(())
}

/// Asks on the terminal, without an echo. `piped` is the argument that takes the answer from standard input.
pub(super) fn ask(run: &Run, question: &str, piped: &str) -> Result<SecretString, Failure> {
    let terminal = console::Term::stderr();
    let hint = format!("To pipe the value, give \"{piped}\" as the argument");
    let failed = |error: std::io::Error| Failure::Local(format!("could not ask on the terminal: {error}. {hint}"));
    if !run.env.stderr_is_terminal || !terminal.is_term() {
        return Err(Failure::Local(format!("could not ask: this is no terminal. {hint}")));
    }
    terminal.write_str(question).map_err(failed)?;
    let answer = terminal.read_secure_line().map_err(failed)?;
    let trimmed = SecretString::from(answer.trim());
    drop(SecretString::from(answer));
    Ok(trimmed)
}

fn failed(why: &str) -> Failure {
    Failure::Server(format!("Error authenticating: {why}"))
}
