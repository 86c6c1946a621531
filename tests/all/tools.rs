//! `sys/tools`, beside OpenBao's where that is given.

use serde_json::{Value, json};

use crate::support::{Answer, Bao, Server};

#[test]
fn random_bytes_and_hashes() {
    tools(&Server::dev());
}

#[test]
fn a_real_openbao_has_the_same_tools() {
    let Some(bao) = Bao::find("sys/tools, against a real OpenBao") else { return };
    tools(&Server::openbao(&bao));
}

/// `hello`, as `sha256sum` and the like tell.
const SUMS: [(&str, &str); 8] = [
    ("sha2-224", "ea09ae9cc6768c50fcee903ed054556e5bfc8347907f12598aa24193"),
    ("sha2-256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
    ("sha2-384", "59e1748777448c69de6b800d7a33bbfb9ff1b463e44354c3553bcdb9c666fa90125a3c79f90397bdf5f6a13de828684f"),
    (
        "sha2-512",
        "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043",
    ),
    ("sha3-224", "b87f88c72702fff1748e58b87e9141a42c0dbedc29a78cb0d4a5cd81"),
    ("sha3-256", "3338be694f50c5f338814986cdf0686453a888b84f424d792af4b9202398f392"),
    ("sha3-384", "720aea11019ef06440fbf05d87aa24680a2153df3907b23631e7177ce620fa1330ff07c0fddee54699a4c3ee0ee9d887"),
    (
        "sha3-512",
        "75d527c368f2efe848ecf6b073a36767800805e9eef2b1857d5f984f036eb6df891d75f72d9b154518c1cd58835286d1da9a38deba3de98b5a53e5ed78a84976",
    ),
];

fn tools(server: &Server) {
    let root = server.root();
    // As hexadecimal digits: how many bytes there are is seen at once.
    let bytes = |path: &str, mut body: Value| -> Answer {
        body["format"] = json!("hex");
        root.post(path, body).assert_status(200)
    };
    for (path, body, count) in [
        ("sys/tools/random", json!({}), 32),
        ("sys/tools/random", json!({ "bytes": 1 }), 1),
        ("sys/tools/random", json!({ "bytes": "7" }), 7),
        ("sys/tools/random", json!({ "bytes": 131_072 }), 131_072),
        ("sys/tools/random/7", json!({ "bytes": 3 }), 7),
        ("sys/tools/random/platform", json!({ "bytes": 3 }), 3),
        ("sys/tools/random/all", json!({}), 32),
        ("sys/tools/random/platform/9", json!({ "bytes": 3 }), 9),
        ("sys/tools/random/all/9", json!({}), 9),
    ] {
        let answer = bytes(path, body.clone());
        let text = answer.text("/data/random_bytes");
        assert!(text.len() == 2 * count && text.chars().all(|c| c.is_ascii_hexdigit()), "{path} {body}");
    }
    bytes("sys/tools/random/seal", json!({}))
        .assert_warning("no seal/entropy augmentation available, using platform entropy source");
    let two = [(); 2].map(|()| root.post("sys/tools/random", json!({})).text("/data/random_bytes"));
    assert!(two[0] != two[1] && two[0].len() == 44 && two[0].ends_with('='), "base64 by default: {two:?}");
    let no_number =
        |text: &str| format!("error parsing url-set byte count: strconv.Atoi: parsing \"{text}\": invalid syntax");
    for (path, body, why) in [
        ("sys/tools/random", json!({ "bytes": 0 }), "'bytes' cannot be less than 1"),
        ("sys/tools/random", json!({ "bytes": -1 }), "'bytes' cannot be less than 1"),
        ("sys/tools/random/0", json!({}), "'bytes' cannot be less than 1"),
        ("sys/tools/random", json!({ "bytes": 131_073 }), "'bytes' should be less than 131072"),
        (
            "sys/tools/random",
            json!({ "format": "x" }),
            "unsupported encoding format \"x\"; must be \"hex\" or \"base64\"",
        ),
        (
            "sys/tools/random",
            json!({ "format": "" }),
            "unsupported encoding format \"\"; must be \"hex\" or \"base64\"",
        ),
        ("sys/tools/random/abc", json!({}), &no_number("abc")),
        ("sys/tools/random/9/platform", json!({}), &no_number("platform")),
        ("sys/tools/random/platform/9/1", json!({}), &no_number("9/1")),
        (
            "sys/tools/random/xx/9",
            json!({}),
            "unsupported entropy source \"xx\"; must be \"platform\" or \"seal\", or \"all\"",
        ),
        (
            "sys/tools/hash",
            json!({ "input": "!!" }),
            "unable to decode input as base64: illegal base64 data at input byte 0",
        ),
        (
            "sys/tools/hash",
            json!({ "input": "aGVsbG8" }),
            "unable to decode input as base64: illegal base64 data at input byte 4",
        ),
        ("sys/tools/hash", json!({ "format": "x" }), "unsupported encoding format x; must be \"hex\" or \"base64\""),
        ("sys/tools/hash", json!({ "algorithm": "md5" }), "unsupported algorithm md5"),
        ("sys/tools/hash/SHA2-256", json!({}), "unsupported algorithm SHA2-256"),
        ("sys/tools/hash/sha2-512/x", json!({}), "unsupported algorithm sha2-512/x"),
    ] {
        root.post(path, body).assert_error(400, why);
    }
    for (algorithm, sum) in SUMS {
        let body = json!({ "input": "aGVsbG8=", "algorithm": "sha2-256" });
        root.post(&format!("sys/tools/hash/{algorithm}"), body).assert_status(200).assert_at("/data/sum", sum);
        let body = json!({ "input": "aGVsbG8=", "algorithm": algorithm });
        root.post("sys/tools/hash", body).assert_status(200).assert_at("/data/sum", sum);
    }
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    root.post("sys/tools/hash", json!({})).assert_status(200).assert_at("/data", json!({ "sum": empty }));
    let body = json!({ "input": "aGVsbG8=", "format": "base64" });
    root.post("sys/tools/hash", body).assert_at("/data/sum", "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=");
    for path in ["sys/tools/random", "sys/tools/random/7", "sys/tools/hash", "sys/tools/hash/sha2-256"] {
        root.get(path).assert_multi(405, "unsupported operation");
    }
    // The default policy lets everybody hash, and nobody draw random bytes.
    let anybody =
        server.as_token(&root.post("auth/token/create", json!({ "policies": "default" })).text("/auth/client_token"));
    for path in ["sys/tools/hash", "sys/tools/hash/sha3-224"] {
        anybody.post(path, json!({})).assert_status(200);
    }
    anybody.post("sys/tools/random", json!({})).assert_multi(403, "permission denied");
}
