//! Looks at the target and at the store again and again, and keeps what matters for the rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::clients::short;
use super::history::{At, History, Look, Orphan, Overdue, Seen};

const LOOK_EVERY: Duration = Duration::from_millis(150);
/// One look takes milliseconds; a server that was stopped takes for ever.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// One row of a lease in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub lease: String,
    pub state: String,
    /// By the clock of the store that said so: the lease is over.
    pub is_over: bool,
}

/// What the looks add up to.
#[derive(Debug, Default)]
pub struct Tracker {
    roles: HashMap<String, Seen>,
    role_looks: Vec<Look>,
    rows: HashMap<String, Seen>,
    row_looks: Vec<Look>,
    orphans: Vec<Orphan>,
    overdue: Vec<Overdue>,
    /// Of the last look at the target.
    present: Vec<(String, String)>,
    /// Roles that were seen before a look at the rows which had none for them.
    suspects: HashSet<String>,
    over_since: HashMap<String, At>,
}

impl Tracker {
    /// A look at the target: roles and the leases that their comments name.
    pub fn saw_roles(&mut self, look: Look, roles: Vec<(String, String)>) {
        for (role, lease) in &roles {
            let fresh = || Seen { lease: lease.clone(), first: look.answered, last: look.asked };
            self.roles.entry(role.clone()).or_insert_with(fresh).last = look.asked;
            if self.suspects.remove(role) && self.orphans.iter().all(|orphan| orphan.role != *role) {
                self.orphans.push(Orphan { role: role.clone(), lease: lease.clone(), at: look.asked });
            }
            if let Some(&from) = self.over_since.get(lease) {
                match self.overdue.iter_mut().rev().find(|overdue| overdue.role == *role && overdue.from == from) {
                    Some(overdue) => overdue.last = look.asked,
                    None => {
                        let overdue = Overdue { role: role.clone(), lease: lease.clone(), from, last: look.asked };
                        self.overdue.push(overdue);
                    }
                }
            }
        }
        self.suspects.clear();
        self.role_looks.push(look);
        self.present = roles;
    }

    /// A look at the store, begun after the last look at the target was answered.
    pub fn saw_rows(&mut self, look: Look, rows: &[Row]) {
        let by_lease: HashMap<&str, &Row> = rows.iter().map(|row| (row.lease.as_str(), row)).collect();
        for row in rows {
            let fresh = || Seen { lease: row.lease.clone(), first: look.answered, last: look.asked };
            self.rows.entry(row.lease.clone()).or_insert_with(fresh).last = look.asked;
        }
        let mut over = HashSet::new();
        for (role, lease) in &self.present {
            match by_lease.get(lease.as_str()) {
                None => {
                    self.suspects.insert(role.clone());
                    over.insert(lease.clone());
                }
                Some(row) if row.is_over => {
                    over.insert(lease.clone());
                }
                Some(_) => {}
            }
        }
        self.over_since.retain(|lease, _| over.contains(lease));
        for lease in over {
            self.over_since.entry(lease).or_insert(look.answered);
        }
        self.row_looks.push(look);
    }

    /// Hands over to the checker.
    pub fn tell(self, history: &mut History) {
        history.roles = self.roles;
        history.role_looks = self.role_looks;
        history.rows = self.rows;
        history.row_looks = self.row_looks;
        history.orphans = self.orphans;
        history.overdue = self.overdue;
    }
}

/// A connection that is made again when it breaks.
struct Session {
    url: String,
    client: Option<tokio_postgres::Client>,
}

impl Session {
    fn new(url: &str) -> Self {
        Self { url: url.to_owned(), client: None }
    }

    /// The rows of all statements, column by column; none when the server did not answer.
    async fn ask(&mut self, sql: &str) -> Option<Vec<Vec<String>>> {
        let answered = tokio::time::timeout(LOOK_MAX, self.try_ask(sql)).await;
        if let Ok(Ok(rows)) = answered {
            return Some(rows);
        }
        self.client = None;
        None
    }

    async fn try_ask(&mut self, sql: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
        if self.client.as_ref().is_none_or(tokio_postgres::Client::is_closed) {
            let (client, connection) = self.url.parse::<Config>()?.connect(NoTls).await?;
            tokio::spawn(async move {
                // The next question finds out that it is closed.
                let _ = connection.await;
            });
            self.client = Some(client);
        }
        let Some(client) = &self.client else { return Ok(Vec::new()) };
        let messages = client.simple_query(sql).await?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

const ROLES: &str =
    "select r.rolname, coalesce(shobj_description(r.oid, 'pg_authid'), '') from pg_roles r where r.rolname like 'v-%'";
/// One statement, so that the rows and the clock are of one moment. A standby is not asked.
const ROWS: &str = "select convert_from(id, 'UTF8'), state, (state = 'revoking' or (state = 'active' and expires_at <= \
                    (extract(epoch from clock_timestamp()) * 1000000000)::bigint))::text \
                    from leasehold_lease where kind = 'secret' and not pg_is_in_recovery() \
                    union all select '', 'primary', '' where not pg_is_in_recovery()";

/// The names of our roles at the target, and of their leases.
fn roles_of(rows: Vec<Vec<String>>) -> Vec<(String, String)> {
    let roles = rows.into_iter().filter_map(|row| {
        let [role, comment] = <[String; 2]>::try_from(row).ok()?;
        // `leasehold:INSTALLATION:LEASE`; the comment follows the role in the same transaction or shortly after.
        let lease = comment.strip_prefix("leasehold:")?.split_once(':')?.1.to_owned();
        Some((role, lease))
    });
    roles.collect()
}

/// Looks until `stop`. Blocks.
pub fn observe(began: Instant, target: &str, stores: &[String], stop: &AtomicBool) -> Tracker {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut tracker = Tracker::default();
        let mut target = Session::new(target);
        while !stop.load(Ordering::Relaxed) {
            let asked = began.elapsed();
            if let Some(rows) = target.ask(ROLES).await {
                tracker.saw_roles(Look { asked, answered: began.elapsed() }, roles_of(rows));
                let asked = began.elapsed();
                let mut is_answered = false;
                let mut known = BTreeSet::new();
                let mut rows = Vec::new();
                for store in stores {
                    // A session of its own: one that was opened under a clock that was set off has kept that clock.
                    for row in Session::new(store).ask(ROWS).await.unwrap_or_default() {
                        let Ok([lease, state, is_over]) = <[String; 3]>::try_from(row) else { continue };
                        is_answered |= state == "primary";
                        let lease = short(&lease);
                        if state != "primary" && known.insert(lease.clone()) {
                            rows.push(Row { lease, state, is_over: is_over == "true" });
                        }
                    }
                }
                if is_answered {
                    tracker.saw_rows(Look { asked, answered: began.elapsed() }, &rows);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tracker
    })
}

/// The roles of leases that are at the target now.
pub fn roles_now(target: &str) -> Option<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let rows = Session::new(target).ask(ROLES).await?;
        Some(rows.into_iter().filter_map(|row| row.into_iter().next()).collect())
    })
}

/// Whether the target lets in.
pub fn lets_in(host: &str, port: u16, database: &str, user: &str, password: &str) -> Option<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let mut config = Config::new();
        config.host(host).port(port).dbname(database).user(user).password(password);
        match tokio::time::timeout(LOOK_MAX, config.connect(NoTls)).await {
            Ok(Ok(_)) => Some(true),
            // 28: invalid authorization.
            Ok(Err(error)) if error.code().is_some_and(|code| code.code().starts_with("28")) => Some(false),
            _ => None,
        }
    })
}
