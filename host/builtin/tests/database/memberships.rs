//! Every shape of membership between the connection's user and a leased role, for every kind of user: a revocation ends the role, or
//! says what is in its way, who put it there and what would help.
//!
//! `LEASEHOLD_PG_BIN` selects the PostgreSQL; `LEASEHOLD_PG_BINS` names more folders of programs, with colons between, to run the matrix on all
//! of them.

use std::sync::Arc;

use leasehold_devpg::{DevPg, Options};
use serde_json::{Value, json};

use crate::support::{Issued, World, own_server};

/// Who the connection logs in as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admin {
    Superuser,
    CreateRole,
    NoInherit,
    /// May do nothing but call functions of a superuser's.
    Functions,
    /// Puts on a role that has CREATEROLE when it logs in.
    DefaultRole,
}

const ADMINS: [Admin; 5] =
    [Admin::Superuser, Admin::CreateRole, Admin::NoInherit, Admin::Functions, Admin::DefaultRole];

/// What is between the leased role and the connection's user, or others, when the lease ends. `{r}` is the leased role, `{a}` the user,
/// `{t}` a third role.
struct Shape {
    name: &'static str,
    /// Run by the superuser; what PostgreSQL refuses of it in some version is no shape there.
    grants: &'static [&'static str],
    /// A right that only somebody else can take back: who cannot act as them is told so.
    grantor: Option<&'static str>,
}

const SHAPES: [Shape; 10] = [
    Shape { name: "none", grants: &[], grantor: None },
    Shape { name: "admin in role", grants: &["GRANT {r} TO {a}"], grantor: None },
    Shape { name: "role in admin", grants: &["GRANT {a} TO {r}"], grantor: None },
    // PostgreSQL refuses the second half of a circle: then it is the first shape.
    Shape { name: "both", grants: &["GRANT {r} TO {a}", "GRANT {a} TO {r}"], grantor: None },
    Shape { name: "role in a third in admin", grants: &["GRANT {a} TO {t}", "GRANT {t} TO {r}"], grantor: None },
    Shape { name: "admin in a third in role", grants: &["GRANT {r} TO {t}", "GRANT {t} TO {a}"], grantor: None },
    Shape { name: "role in admin WITH ADMIN", grants: &["GRANT {a} TO {r} WITH ADMIN OPTION"], grantor: None },
    Shape { name: "admin in role WITH ADMIN", grants: &["GRANT {r} TO {a} WITH ADMIN OPTION"], grantor: None },
    Shape {
        name: "granted by another",
        grants: &[
            "GRANT {r} TO {t} WITH ADMIN OPTION",
            "SET ROLE {t}; GRANT {r} TO bystander; RESET ROLE",
            "GRANT readonly TO {r} WITH ADMIN OPTION",
            "SET ROLE {r}; GRANT readonly TO bystander; RESET ROLE",
        ],
        grantor: None,
    },
    Shape {
        name: "a right granted by another",
        grants: &["CREATE TABLE IF NOT EXISTS of_others (x int); ALTER TABLE of_others OWNER TO another; \
             SET ROLE another; GRANT SELECT ON of_others TO {r}; RESET ROLE"],
        grantor: Some("another"),
    },
];

const PASSWORD: &str = "Admin-pass-1";

impl Admin {
    fn login(self) -> String {
        format!("admin_{self:?}").to_lowercase()
    }

    /// Who has the memberships.
    fn acts_as(self) -> String {
        if self == Self::DefaultRole { "creators".to_owned() } else { self.login() }
    }

    fn prepare(self, pg: &DevPg) {
        let login = self.login();
        let attributes = match self {
            Self::Superuser => "SUPERUSER",
            Self::CreateRole => "CREATEROLE",
            Self::NoInherit => "CREATEROLE NOINHERIT",
            Self::Functions | Self::DefaultRole => "",
        };
        let mut sql = format!("CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}' {attributes};");
        if self == Self::DefaultRole {
            sql.push_str(&format!(
                "CREATE ROLE creators CREATEROLE; GRANT creators TO {login}; ALTER ROLE {login} SET role = 'creators';"
            ));
        }
        let acts_as = self.acts_as();
        // CREATEROLE without ADMIN OPTION hands out no group from PostgreSQL 16 on.
        sql.push_str(&format!(
            "GRANT readonly TO {acts_as} WITH ADMIN OPTION; GRANT SELECT ON orders TO {acts_as} WITH GRANT OPTION; \
             GRANT CREATE, USAGE ON SCHEMA public TO {acts_as} WITH GRANT OPTION;"
        ));
        pg.psql(&sql).unwrap();
    }

    fn role(self) -> Value {
        if self == Self::Functions {
            return json!({
                "creation_statements": "SELECT vault.create_user('{{name}}', '{{password}}', '{{expiration}}')",
                "renew_statements": "SELECT vault.extend_user('{{name}}', '{{expiration}}')",
                "revocation_statements": "SELECT vault.drop_user('{{name}}')",
            });
        }
        json!({ "creation_statements":
            r#"CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;
               GRANT SELECT ON orders TO "{{name}}"; GRANT CREATE, USAGE ON SCHEMA public TO "{{name}}";"# })
    }
}

/// As a superuser would write them for a login without rights.
const FUNCTIONS: &str = "CREATE SCHEMA vault; GRANT USAGE ON SCHEMA vault TO PUBLIC; \
    CREATE FUNCTION vault.create_user(name text, password text, expiration text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER \
    SET search_path = pg_catalog AS $f$ BEGIN \
        EXECUTE format('CREATE ROLE %I LOGIN PASSWORD %L VALID UNTIL %L IN ROLE readonly', name, password, expiration); \
        EXECUTE format('GRANT CREATE, USAGE ON SCHEMA public TO %I', name); END $f$; \
    CREATE FUNCTION vault.extend_user(name text, expiration text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER \
    SET search_path = pg_catalog AS $f$ BEGIN EXECUTE format('ALTER ROLE %I VALID UNTIL %L', name, expiration); END $f$; \
    CREATE FUNCTION vault.drop_user(name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER \
    SET search_path = pg_catalog AS $f$ BEGIN \
        EXECUTE format('ALTER ROLE %I NOLOGIN', name); \
        PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = name; \
        EXECUTE format('REASSIGN OWNED BY %I TO heir_of_functions', name); \
        EXECUTE format('DROP OWNED BY %I', name); EXECUTE format('DROP ROLE %I', name); END $f$;";

struct Cell<'a> {
    world: &'a World,
    admin: Admin,
    shape: &'a Shape,
}

impl Cell<'_> {
    fn fill(&self, text: &str, issued: &Issued) -> String {
        text.replace("{r}", &format!("\"{}\"", issued.username))
            .replace("{a}", &format!("\"{}\"", self.admin.acts_as()))
            .replace("{t}", "third")
    }

    /// Why this went wrong, if it did.
    async fn play(&self) -> Result<(), String> {
        let (world, pg) = (self.world, &self.world.pg);
        let issued = world.issue("leased").await;
        for grant in self.shape.grants {
            // A circle is refused, and some versions have rules of their own: what is left is a shape, too.
            drop(pg.psql(&self.fill(grant, &issued)));
        }
        let session = world.log_in(&issued).await.map_err(|error| format!("no login: {error}"))?;
        session.batch_execute("CREATE TABLE public.made_by_lease (x int)").await.map_err(|error| error.to_string())?;
        let until = issued.intent.expires_at;
        world.renew(&issued, until).await.map_err(|error| format!("renew: {error}"))?;
        let revoked = world.revoke(&issued).await;
        if let (Some(grantor), Err(error), false) = (self.shape.grantor, &revoked, self.can_act_for_others()) {
            self.is_told(&issued, &error.to_string(), grantor).await?;
            pg.psql(&format!("DROP OWNED BY \"{0}\"; REVOKE ALL ON of_others FROM \"{0}\"", issued.username)).ok();
            pg.psql("DROP TABLE of_others").map_err(|error| error.to_string())?;
            world.revoke(&issued).await.map_err(|error| format!("after it was helped: {error}"))?;
        } else {
            revoked.map_err(|error| format!("revoke: {error}"))?;
        }
        if world.role_exists(&issued.username) {
            return Err("the role stands".to_owned());
        }
        if session.simple_query("SELECT 1").await.is_ok() {
            return Err("a session is left".to_owned());
        }
        let owner = pg.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'made_by_lease'").unwrap();
        let heir = if self.admin == Admin::Functions { "heir_of_functions" } else { "leasehold_orphaned_leased_" };
        pg.psql("DROP TABLE IF EXISTS made_by_lease").unwrap();
        if !owner.starts_with(heir) || owner == self.admin.acts_as() {
            return Err(format!("what it owned is {owner:?}'s"));
        }
        Ok(())
    }

    /// A superuser can put on any role, a superuser's function drops as a superuser.
    fn can_act_for_others(&self) -> bool {
        matches!(self.admin, Admin::Superuser)
    }

    async fn is_told(&self, issued: &Issued, said: &str, grantor: &str) -> Result<(), String> {
        if self.admin != Admin::Functions
            && !(said.contains(&format!("granted by \"{grantor}\"")) && said.contains("can REVOKE"))
        {
            return Err(format!("neither the grantor nor what would help is named: {said}"));
        }
        if self.world.log_in(issued).await.is_ok() {
            return Err("it can still log in".to_owned());
        }
        Ok(())
    }
}

async fn matrix_on(pg: Arc<DevPg>) -> Vec<String> {
    let version: u32 = pg.psql("SELECT current_setting('server_version_num')::int / 10000").unwrap().parse().unwrap();
    pg.psql(&format!(
        "CREATE ROLE third; CREATE ROLE bystander; CREATE ROLE another; CREATE ROLE heir_of_functions; {FUNCTIONS}"
    ))
    .unwrap();
    let mut wrong = Vec::new();
    for admin in ADMINS {
        admin.prepare(&pg);
        let world = World::on(Arc::clone(&pg));
        world.connect("pg", json!({ "username": admin.login(), "password": PASSWORD })).await;
        world.role("leased", "", admin.role()).await;
        for shape in &SHAPES {
            let cell = Cell { world: &world, admin, shape };
            if let Err(why) = cell.play().await {
                wrong.push(format!("PostgreSQL {version}, {admin:?}, {}: {why}", shape.name));
            }
            pg.psql(&format!(
                "REVOKE {} FROM third; REVOKE third FROM {0}; DROP TABLE IF EXISTS of_others, made_by_lease",
                admin.acts_as()
            ))
            .unwrap();
        }
    }
    wrong
}

/// Each cell has a session, a right on somebody else's table, a table of its own, a renewal.
#[tokio::test]
async fn no_shape_of_membership_keeps_a_lease_from_ending() {
    let more = std::env::var_os("LEASEHOLD_PG_BINS").unwrap_or_default();
    let more = std::env::split_paths(&more).filter(|folder| !folder.as_os_str().is_empty());
    let mut wrong = Vec::new();
    for programs in [None].into_iter().chain(more.map(Some)) {
        wrong.extend(matrix_on(Arc::new(own_server(Options { programs, ..Options::default() }))).await);
    }
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}
