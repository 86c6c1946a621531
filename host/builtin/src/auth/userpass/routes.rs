//! The method's routes, and what they take.

use leasehold_core::auth_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::auth::AuthHandler;
use leasehold_core::seams::token_params::{FIELDS, with_token_fields};

use super::Userpass;
use crate::auth::PAGES;

const PASSWORD: Field = Field::hidden("password", Kind::Text, "The password; stored as an argon2id hash.");
const PASSWORD_HASH: Field =
    Field::hidden("password_hash", Kind::Text, "Instead of a password, its bcrypt hash; its cost must be 5 to 12.");
const POLICIES: Field = Field::visible("policies", Kind::CommaList, "Old name of token_policies.");

const OWN: &[Field] = &[
    PASSWORD,
    PASSWORD_HASH,
    POLICIES,
    Field::visible("ttl", Kind::Duration, "Old name of token_ttl."),
    Field::visible("max_ttl", Kind::Duration, "Old name of token_max_ttl."),
    Field::visible("bound_cidrs", Kind::CommaList, "Old name of token_bound_cidrs."),
];
const USER: [Field; OWN.len() + FIELDS.len()] = with_token_fields(OWN);

/// In the order in which they are tried.
pub(super) const ROUTES: &[Route<AuthHandler>] = &[
    Route::new(
        "users/",
        Access::Token,
        "The users.",
        &[Op::list("Lists the users.", auth_handler!(Userpass, list)).takes(PAGES)],
    ),
    Route::new(
        "users/:username",
        Access::Token,
        "A user: the password and what the tokens are like.",
        &[
            Op::read("Shows a user, without the password.", auth_handler!(Userpass, read))
                .answers(Answer::Data(FIELDS)),
            Op::update("Writes a user.", auth_handler!(Userpass, write)).takes(&USER),
            Op::delete("Deletes a user; tokens that exist live on until their end.", auth_handler!(Userpass, delete)),
        ],
    )
    .with_existence_check(),
    Route::new(
        "users/:username/password",
        Access::Token,
        "A user's password.",
        &[Op::update("Changes a user's password.", auth_handler!(Userpass, change_password))
            .takes(&[PASSWORD, PASSWORD_HASH])],
    ),
    Route::new(
        "users/:username/policies",
        Access::Token,
        "A user's policies.",
        &[Op::update("Changes a user's policies.", auth_handler!(Userpass, change_policies))
            .takes(&[Field::visible("token_policies", Kind::CommaList, "Policies of the tokens."), POLICIES])],
    ),
    Route::new(
        "login/:username",
        Access::Unauthenticated,
        "Logs a user in.",
        &[Op::update("Logs a user in.", auth_handler!(Userpass, log_in))
            .takes(&[Field::hidden("password", Kind::Text, "The user's password.").required()])
            .answers(Answer::Auth)],
    ),
];
