use super::*;
use crate::environment::tests::quiet;

fn client(options: ClientOptions) -> Result<Client, ClientError> {
    Client::prepare(&quiet(&[("VAULT_ADDR", "http://127.0.0.1:9")]), options)
}

#[test]
fn a_client_never_shows_its_token_in_debug_output() {
    let mut client = client(ClientOptions::default()).unwrap();
    client.set_token(Some(SecretString::from("s.super-secret"))).unwrap();

    let shown = format!("{client:?}");
    assert!(!shown.contains("super-secret"), "{shown}");
}

#[test]
fn a_token_with_a_line_break_is_refused_without_being_shown() {
    let said = client(ClientOptions::default())
        .unwrap()
        .set_token(Some(SecretString::from("s.a\r\nX-Evil: 1")))
        .unwrap_err()
        .to_string();

    assert!(!said.contains("Evil"), "{said}");
}

#[test]
fn a_curl_line_names_the_way_to_the_token_and_not_the_token() {
    let mut client = client(ClientOptions { dry_run: Some(DryRun::CurlString), ..ClientOptions::default() }).unwrap();
    client.set_token(Some(SecretString::from("s.super-secret"))).unwrap();

    let Err(ClientError::NotSent(line)) = client.send(&ApiRequest::get("sys/mounts")) else { panic!("it was sent") };
    assert!(line.contains("$(leasehold print token)") && !line.contains("super-secret"), "{line}");
}

#[test]
fn a_variable_that_says_nothing_is_named_as_it_was_set() {
    let env = crate::environment::tests::quiet(&[("VAULT_CLIENT_TIMEOUT", "soon")]);
    let said = Client::prepare(&env, ClientOptions::default()).unwrap_err().to_string();
    assert!(said.contains("\"VAULT_CLIENT_TIMEOUT\": \"soon\" is not a duration"), "{said}");
}

#[test]
fn our_own_headers_cannot_be_set_from_the_command_line() {
    let refused =
        client(ClientOptions { headers: vec![("x-vault-token".into(), "t".into())], ..ClientOptions::default() });

    assert!(matches!(refused, Err(ClientError::Setup(_))));
}
