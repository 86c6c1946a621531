//! What the database looks like: an application's tables, group roles, and the admin that Leasehold logs in as.
//!
//! The tables are the same for all, so they sit in the cached template. Passwords and the admin's name belong to one
//! server and are set when it starts.

use crate::psql::{SUPERUSER, identifier, literal};

/// The database with the application's tables.
pub(crate) const DATABASE: &str = "myapp";

/// Makes the database; run in `postgres`.
pub(crate) const CLUSTER: &str = "
CREATE ROLE app_owner NOLOGIN;
CREATE ROLE readonly NOLOGIN;
CREATE ROLE readwrite NOLOGIN;
CREATE DATABASE myapp OWNER app_owner;
";

/// Fills the database; run in `myapp`.
pub(crate) const TABLES: &str = "
ALTER SCHEMA public OWNER TO app_owner;
GRANT USAGE ON SCHEMA public TO readonly, readwrite;
SET ROLE app_owner;
CREATE TABLE customers (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, city text NOT NULL);
CREATE TABLE orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer integer NOT NULL REFERENCES customers, item text NOT NULL, amount numeric(10,2) NOT NULL, placed date NOT NULL);
INSERT INTO customers (name, city) VALUES ('Ada', 'London'), ('Grace', 'New York'), ('Edsger', 'Rotterdam');
INSERT INTO orders (customer, item, amount, placed) VALUES (1, 'loom', 120.00, '2026-01-05'), (1, 'punch cards', 8.50, '2026-02-11'), (2, 'compiler', 310.00, '2026-03-17'), (3, 'shortest path', 42.00, '2026-04-23');
GRANT SELECT ON ALL TABLES IN SCHEMA public TO readonly;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO readwrite;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO readwrite;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO readwrite;
RESET ROLE;
";

/// Sets the superuser's password and makes the admin, with the rights that a leasing admin needs and no more; run in
/// `myapp`. Everything it may do it may also grant, since it grants to leased roles what their statements say.
pub(crate) fn logins(superuser_password: &str, admin: &str, admin_password: &str) -> String {
    let superuser_password = literal(superuser_password);
    let admin_password = literal(admin_password);
    let admin = identifier(admin);
    format!(
        "BEGIN;
ALTER ROLE {SUPERUSER} PASSWORD{superuser_password};
CREATE ROLE {admin} LOGIN CREATEROLE PASSWORD{admin_password};
GRANT readonly, readwrite TO {admin} WITH ADMIN OPTION;
GRANT CONNECT, TEMPORARY ON DATABASE {DATABASE} TO {admin} WITH GRANT OPTION;
GRANT CREATE, USAGE ON SCHEMA public TO {admin} WITH GRANT OPTION;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {admin} WITH GRANT OPTION;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {admin} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public
  GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {admin} WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE app_owner IN SCHEMA public
  GRANT USAGE, SELECT ON SEQUENCES TO {admin} WITH GRANT OPTION;
COMMIT;
"
    )
}
