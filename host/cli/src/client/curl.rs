//! `-output-curl-string`: the request as a command line for curl, with the way to the token instead of the token.

use std::path::Path;

use secrecy::{ExposeSecret, SecretString};

use super::{ApiRequest, Body, tls};

pub(super) fn line(
    call: &ApiRequest,
    url: &str,
    headers: &[(String, SecretString)],
    tls: &tls::Files,
    socket: Option<&Path>,
) -> String {
    let mut line = String::from("curl ");
    if let Some(socket) = socket {
        line.push_str(&format!("--unix-socket {} ", quoted(&socket.to_string_lossy())));
    }
    if tls.skip_verify {
        line.push_str("--insecure ");
    }
    if call.method != "GET" {
        line.push_str(&format!("-X {} ", call.method));
    }
    let (cert, key) = tls.client.as_ref().map(|(cert, key)| (cert, key)).unzip();
    let files = [("cacert", tls.ca_cert.as_ref()), ("capath", tls.ca_path.as_ref()), ("cert", cert), ("key", key)];
    for (flag, file) in files {
        if let Some(file) = file {
            line.push_str(&format!("--{flag} {} ", quoted(file)));
        }
    }
    let mut headers: Vec<_> = headers.iter().collect();
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in headers {
        let value = if name == "X-Vault-Token" { "$(leasehold print token)" } else { value.expose_secret() };
        line.push_str(&format!("-H \"{name}: {value}\" "));
    }
    match &call.body {
        Body::None => {}
        Body::Json(value) | Body::Patch(value) => line.push_str(&format!("-d {} ", quoted(&value.to_string()))),
        // Bytes do not fit a command line.
        Body::Module(_) | Body::File => line.push_str("--data-binary @FILE "),
    }
    line.push_str(&format!("\"{url}\""));
    line
}

/// In single quotes, as a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}
