//! The method's routes, and what they take.

use leasehold_core::auth_handler;
use leasehold_core::fields::{Field, Kind};
use leasehold_core::routes::{Access, Answer, Op, Route};
use leasehold_core::seams::auth::AuthHandler;
use leasehold_core::seams::token_params::{FIELDS, with_token_fields};

use super::Cert;
use crate::auth::PAGES;

const OWN: &[Field] = &[
    Field::visible("certificate", Kind::Text, "Authorities, or the client's own certificate, in PEM form.").required(),
    Field::visible(
        "allowed_names",
        Kind::CommaList,
        "The common name, a DNS name or an e-mail address must be one of these; `*` stands for any text.",
    ),
    Field::visible("allowed_common_names", Kind::CommaList, "The common name must be one of these."),
    Field::visible("allowed_dns_sans", Kind::CommaList, "A DNS name must be one of these."),
    Field::visible("allowed_email_sans", Kind::CommaList, "An e-mail address must be one of these."),
    Field::visible("allowed_uri_sans", Kind::CommaList, "A URI must be one of these."),
    Field::visible("allowed_organizational_units", Kind::CommaList, "An organizational unit must be one of these."),
    Field::visible("required_extensions", Kind::CommaList, "`OID:PATTERN` or `hex:OID:PATTERN`; all must be met."),
    Field::visible(
        "allowed_metadata_extensions",
        Kind::CommaList,
        "OIDs of extensions whose texts become metadata; their names have dashes in place of the dots.",
    ),
    Field::visible("ocsp_enabled", Kind::Bool, "Not offered."),
    Field::visible("display_name", Kind::Text, "Shown with the tokens; the entry's name by default."),
    Field::visible("policies", Kind::CommaList, "Old name of token_policies."),
    Field::visible("lease", Kind::Duration, "Old name of token_ttl."),
    Field::visible("ttl", Kind::Duration, "Old name of token_ttl."),
    Field::visible("max_ttl", Kind::Duration, "Old name of token_max_ttl."),
    Field::visible("period", Kind::Duration, "Old name of token_period."),
    Field::visible("bound_cidrs", Kind::CommaList, "Old name of token_bound_cidrs."),
];
const ENTRY: [Field; OWN.len() + FIELDS.len()] = with_token_fields(OWN);

const CONFIG: &[Field] = &[
    Field::visible("disable_binding", Kind::Bool, "Renews tokens over any connection.").default("false"),
    Field::visible(
        "enable_identity_alias_metadata",
        Kind::Bool,
        "The metadata of a login become those of the alias, about which policies may be written.",
    )
    .default("false"),
];

/// In the order in which they are tried.
pub(super) const ROUTES: &[Route<AuthHandler>] = &[
    Route::new(
        "config",
        Access::Token,
        "What holds for all certificates of the mount.",
        &[
            Op::read("Shows the configuration.", auth_handler!(Cert, read_config)).answers(Answer::Data(CONFIG)),
            Op::update("Changes the configuration.", auth_handler!(Cert, write_config)).takes(CONFIG),
        ],
    ),
    Route::new(
        "certs/",
        Access::Token,
        "The stored certificates.",
        &[Op::list("Lists the stored certificates.", auth_handler!(Cert, list)).takes(PAGES)],
    ),
    Route::new(
        "certs/:name",
        Access::Token,
        "A stored certificate: which clients it stands for, and what it gives them.",
        &[
            Op::read("Shows a stored certificate.", auth_handler!(Cert, read)).answers(Answer::Data(&ENTRY)),
            Op::update("Writes a stored certificate.", auth_handler!(Cert, write)).takes(&ENTRY),
            Op::delete(
                "Deletes a stored certificate; tokens that exist are not renewed any more.",
                auth_handler!(Cert, delete),
            ),
        ],
    ),
    Route::new(
        "crls/",
        Access::Token,
        "The lists of certificates that were taken back.",
        &[Op::list("Lists the names of these lists.", auth_handler!(Cert, list_crls)).takes(PAGES)],
    ),
    Route::new(
        "crls/:name",
        Access::Token,
        "A list of certificates that were taken back.",
        &[
            Op::read("Shows a list.", auth_handler!(Cert, read_crl)).answers(Answer::Data(&[CRL])),
            Op::update("Writes a list.", auth_handler!(Cert, write_crl)).takes(&[CRL, URL]),
            Op::delete("Deletes a list.", auth_handler!(Cert, delete_crl)),
        ],
    ),
    Route::new(
        "login",
        Access::Unauthenticated,
        "Logs in with the connection's certificate.",
        &[Op::update("Logs in with the connection's certificate.", auth_handler!(Cert, log_in))
            .takes(&[Field::visible("name", Kind::Text, "The stored certificate; all are tried if there is none.")])
            .answers(Answer::Auth)],
    ),
];

const CRL: Field = Field::visible("crl", Kind::Text, "The list in PEM form.");
const URL: Field = Field::visible("url", Kind::Text, "Not offered.");
