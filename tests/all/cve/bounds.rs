//! Work for strangers: what a request may cost before anybody is known, and that no request ends the server.

use serde_json::{Value, json};

use super::{Differs, Fact, Same, enable_auth, holds, on_both, write};
use crate::support::Server;

/// Of a body that is refused before anybody looks at what it says.
const COMPLEX: &str = "refused JSON input due to high complexity";

fn is_up(server: &Server) -> Fact {
    holds(server.nobody().get("sys/health").status == 200, "the server is gone")
}

/// The most memory that the process has had, in MiB.
fn peak(server: &Server) -> u64 {
    let status =
        server.process_id().map(|id| std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default());
    let line =
        status.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() / 1024
}

/// CVE-2025-6203, CVE-2025-59043: a body of a megabyte became 35 times as much. Also with a token nobody may do that.
#[test]
fn small_values_in_great_number_cost_little_memory() {
    on_both(Same, |server| {
        let before = peak(server);
        for piece in ["{},", "[],", "\"\",", "[[]],", "{\"a\":0},"] {
            let many = piece.repeat((8 << 20) / piece.len());
            let body = format!("{{\"a\":[{}]}}", many.trim_end_matches(','));
            let answer = server.nobody().bytes("POST", "cubbyhole/x", body.as_bytes(), &[]);
            holds(answer.status >= 400, &format!("{piece} is answered with {}", answer.status))?;
            let answer = server.root().bytes("POST", "cubbyhole/x", body.as_bytes(), &[]);
            holds(answer.body.contains(COMPLEX), &format!("{piece} is answered with {answer}"))?;
        }
        let grown = peak(server).saturating_sub(before);
        holds(grown < 600, &format!("{grown} MiB for bodies of 8"))?;
        is_up(server)
    });
}

#[test]
fn deep_values_are_refused() {
    on_both(Differs("600 times [ is answered with 204"), |server| {
        for depth in [600, 20_000, 500_000] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let body = format!("{{\"x\":{}0{}}}", open.repeat(depth), close.repeat(depth));
                let answer = server.nobody().bytes("POST", "cubbyhole/x", body.as_bytes(), &[]);
                holds(answer.status >= 400, &format!("{depth} times {open} is answered with {}", answer.status))?;
                let answer = server.root().bytes("POST", "cubbyhole/x", body.as_bytes(), &[]);
                holds(
                    answer.body.contains(COMPLEX),
                    &format!("{depth} times {open} is answered with {}", answer.status),
                )?;
            }
        }
        is_up(server)
    });
}

#[test]
fn the_same_key_many_times_is_no_way_around_the_bounds() {
    on_both(Same, |server| {
        let body = format!("{{{}\"b\":1}}", "\"a\":{\"b\":[]},".repeat(100_000));
        let answer = server.nobody().bytes("POST", "sys/wrapping/wrap", body.as_bytes(), &[]);
        holds(answer.status >= 400, &format!("it is answered with {}", answer.status))?;
        let answer = server.root().bytes("POST", "sys/wrapping/wrap", body.as_bytes(), &[]);
        holds(answer.body.contains(COMPLEX), &format!("it is answered with {answer}"))?;
        is_up(server)
    });
}

#[test]
fn long_strings_without_a_token_are_refused() {
    on_both(Same, |server| {
        for size in [1 << 20, 8 << 20] {
            let body = json!({ "password": "x".repeat(size) }).to_string();
            let answer = server.nobody().bytes("POST", "auth/nomount/login/x", body.as_bytes(), &[]);
            holds(answer.status >= 400, "it is taken")?;
        }
        is_up(server)
    });
}

#[test]
fn many_headers_and_long_ones_are_refused() {
    on_both(Same, |server| {
        for head in [
            format!(
                "GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nX-A: {}\r\nConnection: close\r\n\r\n",
                "a".repeat(2 << 20)
            ),
            format!(
                "GET /v1/sys/health HTTP/1.1\r\nHost: x\r\n{}Connection: close\r\n\r\n",
                "X-A: b\r\n".repeat(200_000)
            ),
        ] {
            let answer = server.nobody().raw(head.as_bytes());
            holds(answer.status != 200, "it is answered with 200")?;
        }
        is_up(server)
    });
}

/// What is null, or of another type, in a place where nobody looks for it.
const ODD: [fn() -> Value; 9] = [
    || Value::Null,
    || json!([]),
    || json!({}),
    || json!([null]),
    || json!(-1),
    || json!(1.5e300),
    || json!(""),
    || json!("\u{0}"),
    || json!([[{ "a": null }]]),
];

/// GHSA-8w8f-r2xv-4q4j.
#[test]
fn odd_values_in_a_login_end_nothing() {
    on_both(Same, |server| {
        for kind in ["userpass", "approle", "jwt", "kubernetes"] {
            enable_auth(server, kind, kind);
        }
        let root = server.root();
        write(&root, "auth/approle/role/web", json!({ "token_policies": "default" }));
        for odd in ODD {
            for (path, fields) in [
                ("auth/userpass/login/ada", &["password"][..]),
                ("auth/approle/login", &["role_id", "secret_id"]),
                ("auth/jwt/login", &["role", "jwt"]),
                ("auth/kubernetes/login", &["role", "jwt"]),
            ] {
                for field in fields {
                    let answer = server.nobody().post(path, json!({ *field: odd() }));
                    holds(
                        (400..501).contains(&answer.status),
                        &format!("{path} {} is answered with {}", odd(), answer.status),
                    )?;
                }
            }
        }
        is_up(server)
    });
}

#[test]
fn odd_values_without_a_token_end_nothing() {
    on_both(Same, |server| {
        for odd in ODD {
            for (path, field) in [
                ("sys/unseal", "key"),
                ("sys/unseal", "reset"),
                ("sys/init", "secret_shares"),
                ("sys/init", "pgp_keys"),
                ("sys/wrapping/lookup", "token"),
                ("sys/wrapping/unwrap", "token"),
                ("sys/generate-root/update", "key"),
                ("sys/rekey/update", "key"),
            ] {
                let answer = server.nobody().put(path, json!({ field: odd() }));
                holds(answer.status < 501, &format!("{path} {} is answered with {}", odd(), answer.status))?;
            }
        }
        is_up(server)
    });
}

#[test]
fn odd_methods_and_versions_end_nothing() {
    on_both(Same, |server| {
        for line in [
            "BREW /v1/sys/health HTTP/1.1",
            "GET * HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "CONNECT x:1 HTTP/1.1",
            "GET http://other/v1/sys/health HTTP/1.1",
            "GET /v1/sys/health HTTP/9.9",
            "GET /v1/%zz HTTP/1.1",
            "GET /v1/secret/data/%u0041 HTTP/1.1",
            "PATCH /v1/sys/health HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            server.nobody().raw(format!("{line}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        }
        is_up(server)
    });
}

/// Two lengths, or a length and pieces: another server in front may have seen another request.
#[test]
fn a_request_with_two_lengths_is_refused() {
    on_both(Same, |server| {
        for head in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: +5\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
        ] {
            let request = format!(
                "PUT /v1/sys/unseal HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n0\r\n\r\nGET /v1/sys/health HTTP/1.1\r\nHost: x\r\n\r\n"
            );
            let answer = server.nobody().raw(request.as_bytes());
            holds(answer.status == 0 || answer.status >= 400, &format!("{head:?} is answered with {}", answer.status))?;
        }
        is_up(server)
    });
}
