//! New key shares for those who hold enough of the present ones (contract.md §2.8): OpenBao's `rotate/root` and `rotate/recovery`, and
//! Vault's older `rekey` and `rekey-recovery-key`.
//!
//! The older routes need a token as well, as in Vault 2, unless the listener lets such requests in without one. Both are about the
//! same attempt.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::root_token::{decoded_share, share_of};
use crate::api::call::{Call, SystemHandler, handler};
use crate::core::seal_error;
use crate::fields::{Field, Kind};
use crate::quorum::QuorumError;
use crate::quorum::rekey::{NewShares, RekeyProgress, Target, VerifyProgress, Wish};
use crate::request::{LogicalResponse, Object, Shape};
use crate::routes::{Access, Answer, Op, Route};
use crate::seams::error::RequestError;

const INIT: &[Field] = &[
    Field::visible("secret_shares", Kind::Int, "Into how many shares the new key is split."),
    Field::visible("secret_threshold", Kind::Int, "How many of them it takes."),
    Field::visible("require_verification", Kind::Bool, "The new shares count when they have been shown to be there."),
    Field::visible("pgp_keys", Kind::CommaList, "Not supported: shares are handed out as they are."),
    Field::visible("backup", Kind::Bool, "Not supported without PGP keys."),
];
const UPDATE: &[Field] = &[
    Field::hidden("key", Kind::Text, "A key share, in hex or base64."),
    Field::visible("nonce", Kind::Text, "The nonce of the attempt, or of its verification."),
];
const STATUS: &[Field] = &[
    Field::visible("started", Kind::Bool, "Whether an attempt is in progress."),
    Field::visible("nonce", Kind::Text, "Names the attempt."),
    Field::visible("t", Kind::Int, "How many of the new shares it will take."),
    Field::visible("n", Kind::Int, "How many new shares there will be."),
    Field::visible("progress", Kind::Int, "How many of the present shares have been given."),
    Field::visible("required", Kind::Int, "How many of them it takes."),
    Field::visible("complete", Kind::Bool, "Whether the new shares have been dealt."),
    Field::hidden("keys", Kind::List, "The new shares, in hex; only in the answer that deals them."),
    Field::hidden("keys_base64", Kind::List, "The new shares, in base64."),
    Field::visible("verification_required", Kind::Bool, "Whether the new shares have to be verified."),
    Field::visible("verification_nonce", Kind::Text, "Names the verification, once they have been dealt."),
];
const VERIFICATION: &[Field] = &[
    Field::visible("started", Kind::Bool, "Whether new shares wait to be verified."),
    Field::visible("nonce", Kind::Text, "Names the verification."),
    Field::visible("t", Kind::Int, "How many of the new shares it takes."),
    Field::visible("n", Kind::Int, "How many new shares there are."),
    Field::visible("progress", Kind::Int, "How many of them have been given."),
    Field::visible("complete", Kind::Bool, "Whether the new shares count."),
];
const BACKUP: &[Field] = &[Field::visible("nonce", Kind::Text, "There is never a backup.")];

const ABOUT: &str = "The attempt to replace the key shares.";
const ABOUT_UPDATE: &str = "Takes one of the present shares.";
const ABOUT_VERIFY: &str = "The verification of new shares that were handed out.";
const ABOUT_BACKUP: &str = "Backups of shares, of which there are none.";

const INIT_OPS: &[Op<SystemHandler>] = &[
    Op::read("Shows how far the attempt is.", handler!(status)).answers(Answer::Data(STATUS)),
    Op::update("Begins an attempt.", handler!(begin)).takes(INIT).answers(Answer::Data(STATUS)),
    Op::delete("Ends the attempt.", handler!(cancel)),
];
const UPDATE_OPS: &[Op<SystemHandler>] =
    &[Op::update("Takes a share; the last one that is needed deals new ones.", handler!(update))
        .takes(UPDATE)
        .answers(Answer::Data(STATUS))];
const VERIFY_OPS: &[Op<SystemHandler>] = &[
    Op::read("Shows how far the verification is.", handler!(verification)).answers(Answer::Data(VERIFICATION)),
    Op::update("Takes a new share; with the last one that is needed, they count.", handler!(verify))
        .takes(UPDATE)
        .answers(Answer::Data(VERIFICATION)),
    Op::delete("Begins the verification anew.", handler!(restart)).answers(Answer::Data(VERIFICATION)),
];
const BACKUP_OPS: &[Op<SystemHandler>] = &[
    Op::read("Says that there is no backup.", handler!(backup)).answers(Answer::Data(BACKUP)),
    Op::delete("Does nothing: there is no backup.", handler!(forget_backup)),
];

pub const ROUTES: &[Route<SystemHandler>] = &[
    Route::new(
        "rotate/root",
        Access::Sudo,
        "Replaces the root key, where a seal opens the server.",
        &[Op::update("Replaces the root key.", handler!(replace_root_key))],
    ),
    Route::new("rotate/root/init", Access::Token, ABOUT, INIT_OPS),
    Route::new("rotate/root/update", Access::Token, ABOUT_UPDATE, UPDATE_OPS),
    Route::new("rotate/root/verify", Access::Token, ABOUT_VERIFY, VERIFY_OPS),
    Route::new("rotate/root/backup", Access::Token, ABOUT_BACKUP, BACKUP_OPS),
    Route::new("rotate/recovery/init", Access::Token, ABOUT, INIT_OPS),
    Route::new("rotate/recovery/update", Access::Token, ABOUT_UPDATE, UPDATE_OPS),
    Route::new("rotate/recovery/verify", Access::Token, ABOUT_VERIFY, VERIFY_OPS),
    Route::new("rotate/recovery/backup", Access::Token, ABOUT_BACKUP, BACKUP_OPS),
    Route::new("rekey/init", Access::TokenUnlessLetIn, ABOUT, INIT_OPS),
    Route::new("rekey/update", Access::TokenUnlessLetIn, ABOUT_UPDATE, UPDATE_OPS),
    Route::new("rekey/verify", Access::TokenUnlessLetIn, ABOUT_VERIFY, VERIFY_OPS),
    Route::new("rekey/backup", Access::Token, ABOUT_BACKUP, BACKUP_OPS),
    Route::new("rekey/recovery-key-backup", Access::Token, ABOUT_BACKUP, BACKUP_OPS),
    Route::new("rekey-recovery-key/init", Access::TokenUnlessLetIn, ABOUT, INIT_OPS),
    Route::new("rekey-recovery-key/update", Access::TokenUnlessLetIn, ABOUT_UPDATE, UPDATE_OPS),
    Route::new("rekey-recovery-key/verify", Access::TokenUnlessLetIn, ABOUT_VERIFY, VERIFY_OPS),
];

/// Which routes were asked: they say the same in different words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Rotate,
    Rekey,
}

/// What was asked for, where one refusal has several wordings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Init,
    Update,
    Verify,
}

/// What the path of a request says.
#[derive(Clone, Copy)]
struct Asked {
    target: Target,
    words: Words,
}

impl Asked {
    fn by(call: &Call<'_>) -> Self {
        let path = call.request.path.as_str();
        Self {
            target: if path.contains("recovery") { Target::Recovery } else { Target::Root },
            words: if path.starts_with("sys/rekey") { Words::Rekey } else { Words::Rotate },
        }
    }

    fn answer(self, data: Object) -> LogicalResponse {
        LogicalResponse::data(data).shaped(match self.words {
            Words::Rotate => Shape::Envelope,
            Words::Rekey => Shape::Plain,
        })
    }

    fn refused(self, step: Step) -> impl Fn(QuorumError) -> RequestError {
        move |error| refused(error, self, step)
    }
}

async fn status(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let asked = Asked::by(call);
    let status = call.unsealed.quorum.rekey_status(asked.target).await.map_err(asked.refused(Step::Init))?;
    let is_old = asked.words == Words::Rekey;
    let attempt = status.attempt;
    let mut data = Object::new();
    let mut put = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
    if let Some(attempt) = attempt.as_ref() {
        put("nonce", attempt.nonce.clone().into());
    } else if is_old {
        put("nonce", "".into());
    }
    put("started", attempt.is_some().into());
    put("t", attempt.as_ref().map_or(0, |attempt| attempt.threshold).into());
    put("n", attempt.as_ref().map_or(0, |attempt| attempt.shares).into());
    if is_old || attempt.is_some() {
        put("progress", attempt.as_ref().map_or(0, |attempt| attempt.progress).into());
    }
    put("required", status.required.into());
    if is_old {
        put("pgp_fingerprints", Value::Null);
        put("backup", false.into());
    }
    if is_old || attempt.is_some() {
        put("verification_required", attempt.as_ref().is_some_and(|attempt| attempt.verify).into());
    }
    let verification = attempt.as_ref().and_then(|attempt| attempt.verification.as_ref());
    match verification {
        Some(verification) => put("verification_nonce", verification.nonce.clone().into()),
        None if !is_old && attempt.is_some() => put("verification_nonce", "".into()),
        None => {}
    }
    Ok(asked.answer(data))
}

async fn begin(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let (asked, fields) = (Asked::by(call), &call.fields);
    let encrypts = fields.list("pgp_keys").is_some_and(|keys| !keys.is_empty());
    if fields.bool("backup").unwrap_or(false) && !encrypts {
        return Err(RequestError::invalid(
            "cannot request a backup of the new keys without providing PGP keys for encryption",
        ));
    }
    // Never ignored: whoever asks for encrypted shares must not get plain ones.
    if encrypts {
        return Err(RequestError::invalid(
            "encrypting key shares with PGP keys is not supported: leave pgp_keys and backup out",
        ));
    }
    check_delivery(call)?;
    let number = |name: &str| fields.int(name).unwrap_or(0);
    let wish = Wish {
        shares: number("secret_shares"),
        threshold: number("secret_threshold"),
        verify: fields.bool("require_verification").unwrap_or(false),
    };
    let begun = call.unsealed.quorum.begin_rekey(asked.target, wish, call.sudo).await;
    match begun.map_err(asked.refused(Step::Init))? {
        None => status(call).await,
        // There were no recovery shares that anybody could have given.
        Some(dealt) => {
            let mut data = dealt_data(asked, &dealt);
            data.insert("t".to_owned(), wish.threshold.into());
            data.insert("n".to_owned(), wish.shares.into());
            Ok(told(asked, &dealt, data))
        }
    }
}

/// New shares that count from now on leave with this answer or never: nothing may keep it back that can be known beforehand.
fn check_delivery(call: &Call<'_>) -> Result<(), RequestError> {
    if call.request.wrap_ttl.is_some() {
        return Err(RequestError::invalid("new key shares are not wrapped: ask for them without a wrap TTL"));
    }
    if call.caller.is_some_and(|caller| caller.uses_before != 0) {
        return Err(RequestError::invalid("new key shares are not handed to a token whose uses are counted"));
    }
    Ok(())
}

fn told(asked: Asked, dealt: &NewShares, data: Object) -> LogicalResponse {
    let answer = asked.answer(data);
    if !dealt.is_uncertain {
        return answer;
    }
    answer.warn(
        "the storage did not say whether these key shares count: keep them AND the old ones until an unsealing, or another \
         rotation, has shown which do",
    )
}

async fn cancel(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let asked = Asked::by(call);
    call.unsealed.quorum.cancel_rekey(asked.target).await.map_err(asked.refused(Step::Init))?;
    Ok(LogicalResponse::empty())
}

/// Share and nonce of a request.
fn given<'a>(call: &'a Call<'_>, asked: Asked) -> Result<(crate::seams::seal::KeyShare, &'a str), RequestError> {
    let text = |name: &str| call.fields.text(name).unwrap_or_default();
    if asked.words == Words::Rekey {
        return Ok((share_of(call)?, text("nonce")));
    }
    for name in ["key", "nonce"] {
        if text(name).is_empty() {
            return Err(RequestError::Invalid(format!("missing required field '{name}'")));
        }
    }
    Ok((decoded_share(text("key"))?, text("nonce")))
}

async fn update(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let asked = Asked::by(call);
    let (share, nonce) = given(call, asked)?;
    check_delivery(call)?;
    let progress = call.unsealed.quorum.give_to_rekey(asked.target, &share, nonce).await;
    match progress.map_err(asked.refused(Step::Update))? {
        RekeyProgress::More => status(call).await,
        RekeyProgress::Done(dealt) => Ok(told(asked, &dealt, dealt_data(asked, &dealt))),
    }
}

fn dealt_data(asked: Asked, dealt: &NewShares) -> Object {
    let hex: Vec<String> = dealt.shares.iter().map(|share| hex::encode(&*share.0)).collect();
    let base64: Vec<String> = dealt.shares.iter().map(|share| STANDARD.encode(&*share.0)).collect();
    let mut data = Object::new();
    data.insert("nonce".to_owned(), dealt.nonce.clone().into());
    data.insert("complete".to_owned(), true.into());
    data.insert("keys".to_owned(), hex.into());
    data.insert("keys_base64".to_owned(), base64.into());
    data.insert("pgp_fingerprints".to_owned(), Value::Null);
    data.insert("backup".to_owned(), false.into());
    data.insert("verification_required".to_owned(), dealt.verification_nonce.is_some().into());
    match &dealt.verification_nonce {
        Some(nonce) => drop(data.insert("verification_nonce".to_owned(), nonce.clone().into())),
        None if asked.words == Words::Rotate => drop(data.insert("verification_nonce".to_owned(), "".into())),
        None => {}
    }
    data
}

async fn verification(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let asked = Asked::by(call);
    let status = call.unsealed.quorum.rekey_status(asked.target).await.map_err(asked.refused(Step::Verify))?;
    let attempt = status.attempt.ok_or_else(|| nothing_configured(asked))?;
    let verification = attempt.verification.as_ref();
    let data = json!({
        "nonce": verification.map(|verification| verification.nonce.as_str()).unwrap_or_default(),
        "started": verification.is_some(),
        "t": attempt.threshold,
        "n": attempt.shares,
        "progress": verification.map_or(0, |verification| verification.progress),
    });
    Ok(asked.answer(data.as_object().cloned().unwrap_or_default()))
}

async fn verify(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let asked = Asked::by(call);
    let (share, nonce) = given(call, asked)?;
    let progress = call.unsealed.quorum.verify_rekey(asked.target, &share, nonce).await;
    match progress.map_err(asked.refused(Step::Verify))? {
        VerifyProgress::More => verification(call).await,
        VerifyProgress::Done(nonce) => {
            let data = json!({ "nonce": nonce, "complete": true });
            Ok(asked.answer(data.as_object().cloned().unwrap_or_default()))
        }
    }
}

async fn restart(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let asked = Asked::by(call);
    match call.unsealed.quorum.restart_verification(asked.target).await {
        Ok(()) => verification(call).await,
        Err(QuorumError::NotInProgress) => Err(nothing_configured(asked)),
        Err(error) => Err(refused(error, asked, Step::Verify)),
    }
}

fn nothing_configured(asked: Asked) -> RequestError {
    RequestError::invalid(match asked.words {
        Words::Rotate => "no rotation configuration found",
        Words::Rekey => "no rekey configuration found",
    })
}

async fn replace_root_key(call: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    let asked = Asked::by(call);
    call.unsealed.quorum.replace_root_key().await.map_err(asked.refused(Step::Init))?;
    Ok(LogicalResponse::empty())
}

async fn backup(_: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Err(RequestError::invalid("no backed-up keys found"))
}

async fn forget_backup(_: &Call<'_>) -> Result<LogicalResponse, RequestError> {
    Ok(LogicalResponse::empty())
}

/// As OpenBao says it.
fn refused(error: QuorumError, asked: Asked, step: Step) -> RequestError {
    let is_old = asked.words == Words::Rekey;
    let of = |rotate: &str, rekey: &str| (if is_old { rekey } else { rotate }).to_owned();
    let text = match error {
        QuorumError::InProgress => of("rotation already in progress", "rekey already in progress"),
        QuorumError::NotInProgress => match (step, asked.target) {
            (Step::Update, Target::Root) => of("no rotation in progress", "no barrier rekey in progress"),
            (Step::Update, Target::Recovery) => of("no rotation in progress", "no recovery rekey in progress"),
            _ => of("no rotation in progress", "no rekey in progress"),
        },
        QuorumError::WrongNonce(nonce) => {
            let what = match step {
                Step::Verify => "this verify operation".to_owned(),
                _ => of("rotation", "this rekey operation"),
            };
            format!("incorrect nonce supplied; nonce for {what} is \"{nonce}\"")
        }
        QuorumError::NoShare(why) => why,
        QuorumError::Repeated => match (step, asked.target) {
            (Step::Verify, _) => "given key has already been provided during this verify operation".to_owned(),
            (_, Target::Root) => {
                let generation = "given key has already been provided during this generation operation";
                of("given key has already been provided during this rotation", generation)
            }
            (_, Target::Recovery) => {
                let rekey = "given key has already been provided during this rekey operation";
                of("given key has already been provided during this rotation", rekey)
            }
        },
        QuorumError::WrongShare(split) if split.recovery => "recovery key verification failed".to_owned(),
        QuorumError::WrongShare(_) => {
            let why = "failed to read root key: invalid key: failed to decrypt keys from storage: cipher: message authentication failed";
            if is_old {
                return RequestError::SealRefused(why.to_owned());
            }
            why.to_owned()
        }
        QuorumError::MustVerify(nonce) => {
            let what = of("rotation", "rekey operation");
            format!(
                "{what} already finished; verification must be performed; nonce for the verification operation is \"{nonce}\""
            )
        }
        QuorumError::NothingToVerify if step == Step::Init => {
            let what = of("rotating", "rekeying");
            format!("requiring verification not supported when {what} the barrier key with recovery keys")
        }
        QuorumError::NothingToVerify => of("no rotation verification in progress", "no rekey verification in progress"),
        QuorumError::NotVerified => {
            let what = of("rotation", "rekey");
            format!("{what} verification failed; incorrect key shares supplied")
        }
        QuorumError::NoSplit(why) => {
            let what = match asked.target {
                Target::Root => of("rotate seal", "rekey seal"),
                Target::Recovery => "recovery".to_owned(),
            };
            let text = format!("invalid {what} configuration: {why}");
            if is_old {
                return RequestError::SealRefused(text);
            }
            text
        }
        QuorumError::Impossible(crate::quorum::rekey::NO_RECOVERY) if is_old => {
            "recovery rekeying not supported".to_owned()
        }
        QuorumError::Impossible(why) => why.to_owned(),
        QuorumError::Seal(error) => return seal_error(error),
        QuorumError::Storage(error) => return error.into(),
    };
    RequestError::Invalid(text)
}
