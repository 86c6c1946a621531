//! The method's routes, and what they take.

use leasehold_core::auth_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::auth::AuthHandler;
use leasehold_core::seams::token_params::{FIELDS, with_token_fields};

use super::AppRole;
use crate::auth::PAGES;

const BIND: Field = Field::visible("bind_secret_id", Kind::Bool, "Whether a login needs a secret id. Default true.");
const BOUND: Field =
    Field::visible("secret_id_bound_cidrs", Kind::CommaList, "Blocks of addresses that a login must come from.");
const OLD_BOUND: Field = Field::visible("bound_cidr_list", Kind::CommaList, "Old name of secret_id_bound_cidrs.");
const POLICIES: Field = Field::visible("policies", Kind::CommaList, "Old name of token_policies.");
const PERIOD: Field = Field::visible("period", Kind::Duration, "Old name of token_period.");
const USES: Field =
    Field::visible("secret_id_num_uses", Kind::Int, "How many logins a secret id is good for; 0 is without limit.");
const TTL: Field = Field::visible("secret_id_ttl", Kind::Duration, "How long a secret id is good for; 0 is for ever.");
// Half of a login's proof: policy modules need not see it.
const ROLE_ID: Field = Field::hidden("role_id", Kind::Text, "Names the role at logins; a random UUID by default.");
const LOCAL: Field = Field::visible("local_secret_ids", Kind::Bool, "Accepted; there is one cluster.");
const SECRET_ID: Field = Field::hidden("secret_id", Kind::Text, "The secret id.");
const ACCESSOR: Field = Field::visible("secret_id_accessor", Kind::Text, "Names a secret id without being one.");

const TOKEN_BOUND_CIDRS: Field = FIELDS[0];
const TOKEN_MAX_TTL: Field = FIELDS[2];
const TOKEN_NUM_USES: Field = FIELDS[4];
const TOKEN_PERIOD: Field = FIELDS[5];
const TOKEN_POLICIES: Field = FIELDS[6];
const TOKEN_TTL: Field = FIELDS[8];

const OWN: &[Field] = &[BIND, BOUND, OLD_BOUND, POLICIES, PERIOD, USES, TTL, ROLE_ID, LOCAL];
const ROLE: [Field; OWN.len() + FIELDS.len()] = with_token_fields(OWN);

const METADATA: Field =
    Field::visible("metadata", Kind::Text, "A JSON object of texts, shown with the tokens that the secret id brings.");
const CIDR_LIST: Field =
    Field::visible("cidr_list", Kind::CommaList, "Blocks of addresses that a login must come from.");
const NUM_USES: Field =
    Field::visible("num_uses", Kind::Int, "How many logins it is good for; not more than the role allows.");
const ITS_TTL: Field =
    Field::visible("ttl", Kind::Duration, "How long it is good for; not longer than the role allows.");
const NEW_SECRET_ID: &[Field] = &[METADATA, CIDR_LIST, TOKEN_BOUND_CIDRS, NUM_USES, ITS_TTL];
const CUSTOM_SECRET_ID: &[Field] = &[METADATA, CIDR_LIST, TOKEN_BOUND_CIDRS, NUM_USES, ITS_TTL, SECRET_ID];

/// What the request is told that makes a secret id.
const MADE: &[Field] = &[SECRET_ID, ACCESSOR, USES, TTL];
/// What is shown of a secret id.
const KNOWN: &[Field] = &[ACCESSOR, USES, TTL, CIDR_LIST, TOKEN_BOUND_CIDRS];

/// The three operations of a single field.
macro_rules! single {
    ($pattern:literal, $fields:expr, $summary:literal) => {
        Route::new(
            $pattern,
            Access::Token,
            $summary,
            &[
                Op::read("Shows the field.", auth_handler!(AppRole, show_field)).answers(Answer::Data(&$fields)),
                Op::update("Sets the field.", auth_handler!(AppRole, set_field)).takes(&$fields),
                Op::delete("Resets the field to its default.", auth_handler!(AppRole, reset_field)),
            ],
        )
    };
}

/// In the order in which they are tried.
pub(super) const ROUTES: &[Route<AuthHandler>] = &[
    Route::new(
        "login",
        Access::Unauthenticated,
        "Logs a machine in.",
        &[Op::update("Logs a machine in.", auth_handler!(AppRole, log_in))
            .takes(&[ROLE_ID, SECRET_ID])
            .answers(Answer::Auth)],
    ),
    Route::new(
        "role/",
        Access::Token,
        "The roles.",
        &[Op::list("Lists the roles.", auth_handler!(AppRole, list)).takes(PAGES)],
    ),
    Route::new(
        "role/:role_name",
        Access::Token,
        "A role: what a login needs and what the tokens are like.",
        &[
            Op::read("Shows a role.", auth_handler!(AppRole, read)).answers(Answer::Data(FIELDS)),
            Op::update("Writes a role.", auth_handler!(AppRole, write)).takes(&ROLE),
            Op::delete("Deletes a role and its secret ids.", auth_handler!(AppRole, delete)),
        ],
    )
    .with_existence_check(),
    Route::new(
        "role/:role_name/role-id",
        Access::Token,
        "The id by which logins name the role.",
        &[
            Op::read("Shows the role id.", auth_handler!(AppRole, show_role_id)).answers(Answer::Data(&[ROLE_ID])),
            Op::update("Sets the role id.", auth_handler!(AppRole, set_role_id)).takes(&[ROLE_ID]),
        ],
    ),
    single!("role/:role_name/policies", [TOKEN_POLICIES, POLICIES], "The policies of the tokens."),
    single!("role/:role_name/bound-cidr-list", [OLD_BOUND], "Old name of secret-id-bound-cidrs."),
    single!("role/:role_name/secret-id-bound-cidrs", [BOUND], "Blocks of addresses that a login must come from."),
    single!("role/:role_name/token-bound-cidrs", [TOKEN_BOUND_CIDRS], "Blocks of addresses that may use the tokens."),
    single!("role/:role_name/bind-secret-id", [BIND], "Whether a login needs a secret id."),
    single!("role/:role_name/secret-id-num-uses", [USES], "How many logins a new secret id is good for."),
    single!("role/:role_name/secret-id-ttl", [TTL], "How long a new secret id is good for."),
    single!("role/:role_name/period", [TOKEN_PERIOD, PERIOD], "What each renewal resets the TTL of the tokens to."),
    single!("role/:role_name/token-num-uses", [TOKEN_NUM_USES], "How many requests a token may make."),
    single!("role/:role_name/token-ttl", [TOKEN_TTL], "How long the tokens live at first."),
    single!("role/:role_name/token-max-ttl", [TOKEN_MAX_TTL], "The longest that the tokens may live."),
    Route::new(
        "role/:role_name/local-secret-ids",
        Access::Token,
        "Whether secret ids stay in this cluster.",
        &[Op::read("Shows the field.", auth_handler!(AppRole, show_field)).answers(Answer::Data(&[LOCAL]))],
    ),
    Route::new(
        "role/:role_name/secret-id",
        Access::Token,
        "The secret ids of a role.",
        &[
            Op::update("Makes a secret id.", auth_handler!(AppRole, make_secret_id))
                .takes(NEW_SECRET_ID)
                .answers(Answer::Data(MADE)),
            Op::list("Lists the accessors of the secret ids.", auth_handler!(AppRole, list_secret_ids)).takes(PAGES),
        ],
    ),
    Route::new(
        "role/:role_name/custom-secret-id",
        Access::Token,
        "Secret ids of the caller's choice.",
        &[Op::update("Takes a secret id of the caller's choice.", auth_handler!(AppRole, take_secret_id))
            .takes(CUSTOM_SECRET_ID)
            .answers(Answer::Data(MADE))],
    ),
    Route::new(
        "role/:role_name/secret-id/lookup",
        Access::Token,
        "What is known of a secret id.",
        &[Op::update("Shows what is known of a secret id.", auth_handler!(AppRole, look_up))
            .takes(&[SECRET_ID])
            .answers(Answer::Data(KNOWN))],
    ),
    Route::new(
        "role/:role_name/secret-id/destroy",
        Access::Token,
        "The end of a secret id.",
        &[
            Op::update("Ends a secret id.", auth_handler!(AppRole, destroy)).takes(&[SECRET_ID]),
            Op::delete("Ends a secret id.", auth_handler!(AppRole, destroy)).takes(&[SECRET_ID]),
        ],
    ),
    Route::new(
        "role/:role_name/secret-id-accessor/lookup",
        Access::Token,
        "What is known of a secret id.",
        &[Op::update("Shows what is known of a secret id.", auth_handler!(AppRole, look_up_by_accessor))
            .takes(&[ACCESSOR])
            .answers(Answer::Data(KNOWN))],
    ),
    Route::new(
        "role/:role_name/secret-id-accessor/destroy",
        Access::Token,
        "The end of a secret id.",
        &[
            Op::update("Ends a secret id.", auth_handler!(AppRole, destroy_by_accessor)).takes(&[ACCESSOR]),
            Op::delete("Ends a secret id.", auth_handler!(AppRole, destroy_by_accessor)).takes(&[ACCESSOR]),
        ],
    ),
    Route::new(
        "tidy/secret-id",
        Access::Token,
        "What is left of expired secret ids.",
        &[Op::update("Removes what is left of expired secret ids.", auth_handler!(AppRole, begin_tidy))],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_model::Operation;

    #[test]
    fn the_routes_of_single_fields_take_the_field_of_their_name() {
        let is_single = |route: &&Route<AuthHandler>| {
            route.pattern.starts_with("role/:role_name/") && route.op(Operation::Read).is_some()
        };
        for route in ROUTES.iter().filter(is_single) {
            let Some(op) = route.op(Operation::Update) else { continue };
            let segment = route.pattern.rsplit('/').next().unwrap_or_default().replace('-', "_");
            assert!(op.fields.iter().any(|field| field.name.ends_with(&segment)), "{}", route.pattern);
        }
    }
}
