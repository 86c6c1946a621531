//! `X-Vault-Index` and `X-Vault-Inconsistent`, in the form of OpenBao 2.7: a client names a state that it has seen, and gets nothing older.
//!
//! The index is the number of the last change that an answer reflects. To clients it is opaque.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::request::Object;
use crate::seams::error::RequestError;

/// Lower case, as [`LogicalRequest`](crate::request::LogicalRequest) has them.
const INDEX: &str = "x-vault-index";
const INCONSISTENT: &str = "x-vault-inconsistent";

#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    value: String,
}

/// What an answer says.
pub(crate) fn written(cluster: &str, number: u64) -> String {
    let written = Written { cluster: cluster.to_owned(), value: number.to_string() };
    STANDARD.encode(serde_json::to_vec(&written).unwrap_or_default())
}

/// The number that an answer to these headers must reflect. None: none was given, or that of another installation.
///
/// Any of the behaviours may be asked for: every server answers for itself, so there is none to forward to, and each waits for a moment.
///
/// # Errors
/// 400 in OpenBao's words.
pub(crate) fn required(headers: &BTreeMap<String, Vec<String>>, cluster: &str) -> Result<Option<u64>, RequestError> {
    let given = |name| headers.get(name).map(Vec::as_slice).unwrap_or_default();
    if given(INCONSISTENT).iter().any(|how| !matches!(how.as_str(), "fail" | "forward-active-node" | "await-state")) {
        return Err(RequestError::invalid("unknown value for \"X-Vault-Inconsistent\" header"));
    }
    let index = match given(INDEX) {
        [] => return Ok(None),
        [index] => index,
        _ => return Err(RequestError::invalid("expected at most one value for \"X-Vault-Index\"")),
    };
    // A list of fields would also be taken for a struct.
    let object = STANDARD.decode(index).ok().and_then(|text| serde_json::from_slice::<Object>(&text).ok());
    let read = object.and_then(|object| serde_json::from_value::<Written>(object.into()).ok());
    let read = read.ok_or_else(|| RequestError::invalid("failed to decode \"X-Vault-Index\""))?;
    Ok(read.value.parse().ok().filter(|_| read.cluster == cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(index: &[&str], how: &[&str]) -> Result<Option<u64>, String> {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect();
        let headers = [(INDEX.to_owned(), texts(index)), (INCONSISTENT.to_owned(), texts(how))];
        required(&headers.into(), "here").map_err(|error| error.to_string())
    }

    #[test]
    fn an_index_is_read_as_a_real_openbao_reads_it() {
        assert_eq!(required(&BTreeMap::new(), "here").unwrap(), None);
        assert_eq!(asked(&[&written("here", 7)], &[]), Ok(Some(7)));
        assert_eq!(asked(&[&written("here", u64::MAX)], &["await-state", "fail"]), Ok(Some(u64::MAX)));
        assert_eq!(asked(&[&written("elsewhere", 7)], &["forward-active-node"]), Ok(None));
        // Of an OpenBao over PostgreSQL, and an empty object.
        assert_eq!(asked(&[&STANDARD.encode(r#"{"cluster":"here","value":"0/1532758"}"#)], &[]), Ok(None));
        assert_eq!(asked(&["e30="], &[]), Ok(None));
        for no_index in ["", "nonsense", "W10=", "e30", &STANDARD.encode("v1:here:5:0:")] {
            assert_eq!(asked(&[no_index], &[]), Err("failed to decode \"X-Vault-Index\"".to_owned()), "{no_index:?}");
        }
        let twice = asked(&["e30=", "e30="], &[]).unwrap_err();
        assert_eq!(twice, "expected at most one value for \"X-Vault-Index\"");
        assert_eq!(asked(&[], &["fail", "x"]).unwrap_err(), "unknown value for \"X-Vault-Inconsistent\" header");
    }
}
