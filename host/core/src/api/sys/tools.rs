//! `sys/tools`: random bytes, and hashes of what a caller sends.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha3::{Digest as _, Sha3_224};
use zeroize::Zeroizing;

use crate::api::call::{Call, SystemHandler, handler};
use crate::fields::{Field, Kind};
use crate::request::LogicalResponse;
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const FORMAT: Field = Field::visible("format", Kind::Text, "How the answer is written.").one_of(&["hex", "base64"]);

const RANDOM: Op<SystemHandler> = Op::update("Makes random bytes.", handler!(random))
    .takes(&[
        Field::visible("bytes", Kind::Int, "How many, where the path does not say it: 1 to 131072.").default("32"),
        FORMAT.default("base64"),
    ])
    .answers(Answer::Data(&[Field::hidden("random_bytes", Kind::Text, "The bytes.")]));

const HASH: Op<SystemHandler> = Op::update("Hashes what is sent.", handler!(hash))
    .takes(&[
        Field::hidden("input", Kind::Text, "What is hashed, in base64."),
        Field::visible("algorithm", Kind::Text, "Where the path names none.").one_of(ALGORITHMS).default("sha2-256"),
        FORMAT.default("hex"),
    ])
    .answers(Answer::Data(&[Field::hidden("sum", Kind::Text, "The hash.")]));

const ALGORITHMS: &[&str] =
    &["sha2-224", "sha2-256", "sha2-384", "sha2-512", "sha3-224", "sha3-256", "sha3-384", "sha3-512"];

pub(super) const ROUTES: &[Route<SystemHandler>] = &[
    Route::new("tools/random", Access::Token, "Random bytes.", &[RANDOM]),
    Route::new("tools/random/*what", Access::Token, "Random bytes, from a source or so many.", &[RANDOM]),
    Route::new("tools/hash", Access::Token, "Hashes.", &[HASH]),
    Route::new("tools/hash/*algorithm", Access::Token, "Hashes by one algorithm.", &[HASH]),
];

const BYTES_MAX: i64 = 128 * 1024;
const SOURCES: [&str; 3] = ["platform", "seal", "all"];

async fn random(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    // `<source>`, `<bytes>` or `<source>/<bytes>`.
    let path = Some(call.capture("what")).filter(|what| !what.is_empty());
    let (source, bytes) = match path.and_then(|what| what.split_once('/')) {
        Some((source, bytes)) => (Some(source), Some(bytes)),
        None => (path.filter(|what| SOURCES.contains(what)), path.filter(|what| !SOURCES.contains(what))),
    };
    let bytes = match bytes {
        Some(text) => text.parse::<i64>().map_err(|_| {
            RequestError::Invalid(format!(
                "error parsing url-set byte count: strconv.Atoi: parsing {text:?}: invalid syntax"
            ))
        })?,
        None => call.fields.int("bytes").unwrap_or(32),
    };
    if bytes < 1 {
        return Err(RequestError::invalid("'bytes' cannot be less than 1"));
    }
    let count = usize::try_from(bytes.min(BYTES_MAX)).unwrap_or(1);
    if bytes > BYTES_MAX {
        return Err(RequestError::Invalid(format!("'bytes' should be less than {BYTES_MAX}")));
    }
    let format = format(call, "base64").map_err(|other| {
        RequestError::Invalid(format!("unsupported encoding format {other:?}; must be \"hex\" or \"base64\""))
    })?;
    if let Some(source) = source.filter(|source| !SOURCES.contains(source)) {
        let why = format!("unsupported entropy source {source:?}; must be \"platform\" or \"seal\", or \"all\"");
        return Err(RequestError::Invalid(why));
    }
    let mut made = Zeroizing::new(vec![0_u8; count]);
    call.core.seams.entropy.fill(&mut made);
    let answer = LogicalResponse::json(json!({ "random_bytes": format.write(&made) }));
    Ok(if source == Some("seal") {
        answer.warn("no seal/entropy augmentation available, using platform entropy source".to_owned())
    } else {
        answer
    })
}

async fn hash(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let input = call.fields.text("input").unwrap_or_default().replace(['\r', '\n'], "");
    let input = STANDARD.decode(&input).map(Zeroizing::new).map_err(|error| {
        // As Go counts: a group that is not whole is wrong from its beginning.
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) => at,
            _ => input.len() / 4 * 4,
        };
        RequestError::Invalid(format!("unable to decode input as base64: illegal base64 data at input byte {at}"))
    })?;
    let named = call.capture("algorithm");
    let algorithm = if named.is_empty() { call.fields.text("algorithm").unwrap_or("sha2-256") } else { named };
    let format = format(call, "hex").map_err(|other| {
        RequestError::Invalid(format!("unsupported encoding format {other}; must be \"hex\" or \"base64\""))
    })?;
    let sum =
        sum(algorithm, &input).ok_or_else(|| RequestError::Invalid(format!("unsupported algorithm {algorithm}")))?;
    Ok(LogicalResponse::json(json!({ "sum": format.write(&sum) })))
}

/// `None`: there is no such algorithm.
fn sum(algorithm: &str, input: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match algorithm {
        "sha2-224" => &digest::SHA224,
        "sha2-256" => &digest::SHA256,
        "sha2-384" => &digest::SHA384,
        "sha2-512" => &digest::SHA512,
        // The one that AWS-LC does not hand out.
        "sha3-224" => return Some(Sha3_224::digest(input).to_vec()),
        "sha3-256" => &digest::SHA3_256,
        "sha3-384" => &digest::SHA3_384,
        "sha3-512" => &digest::SHA3_512,
        _ => return None,
    };
    Some(digest::digest(algorithm, input).as_ref().to_vec())
}

enum Format {
    Hex,
    Base64,
}

impl Format {
    fn write(&self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
        }
    }
}

/// # Errors
/// What was sent and is neither of them.
fn format<'c>(call: &'c Call<'_>, default: &'c str) -> Result<Format, &'c str> {
    match call.fields.text("format").unwrap_or(default) {
        "hex" => Ok(Format::Hex),
        "base64" => Ok(Format::Base64),
        other => Err(other),
    }
}
