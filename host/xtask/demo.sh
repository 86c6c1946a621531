#!/usr/bin/env bash
# Walks HashiCorp's guide "Dynamic Secrets" against a Leasehold server and a private PostgreSQL, both started here and gone
# afterwards; then a policy module is pushed and refuses credentials during a change freeze.
#
#   host/xtask/demo.sh [stay|once]      stay (the default): both stay up until Ctrl-C. once: end with an exit status.
#
# Every step shows its command and its answer, and is checked, in PostgreSQL itself where that is the point: the first one that
# does not do what it says ends the demo with status 1. Nothing here depends on being fast: what takes time is polled, with a limit.
#
# Reads from the top: helpers, then the servers, then the guide, chapter by chapter, then the module.
set -uo pipefail
cd "$(dirname "$0")/../.."

mode=${1:-stay}
case $mode in stay | once) ;; *) echo "usage: demo.sh [stay|once]" >&2; exit 2 ;; esac

# ---- showing and checking -------------------------------------------------------------------------------------------

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' cyan='' plain=''
fi

checked=0 persona='' status=0 out='' fifo_open='' work='' server='' postgresql='' devpg_open=''

chapter() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s# %s%s\n' "$dim" "$*" "$plain"; }

# Shows a command as one would type it, runs it, shows its answer. Leaves $out (stdout and stderr) and $status.
run() {
  local word line=''
  for word in "$@"; do
    case $word in
      *[\"\$\`\\!]*) line+=" '${word//\'/\'\\\'\'}'" ;;
      *\'*) line+=" \"$word\"" ;;
      '' | *[!A-Za-z0-9_./:=,@%+-]*) line+=" '$word'" ;;
      *) line+=" $word" ;;
    esac
  done
  printf '%s%s$%s%s\n' "$cyan" "$persona" "$plain" "$line"
  out=$("$@" 2>&1 </dev/null)
  status=$?
  [ -z "$out" ] || printf '%s\n' "$out" | sed 's/^/    /'
}

# Shows a file that is made on the way.
file() {
  cat >"$1"
  printf '%s%s$%s cat %s\n' "$cyan" "$persona" "$plain" "$1"
  sed 's/^/    /' "$1"
}

# check TEXT COMMAND…: the command must succeed.
check() {
  local text=$1
  shift
  if "$@"; then
    checked=$((checked + 1))
    printf '    %sok%s  %s\n' "$green" "$plain" "$text"
  else
    printf '    %sNOT SO%s  %s\n' "$red" "$plain" "$text"
    give_up
  fi
}

give_up() {
  if [ -s "$work/server.log" ]; then
    echo "The end of the server's log:" >&2
    tail -n 20 "$work/server.log" >&2
  fi
  exit 1
}

succeeded() { [ "$status" -eq 0 ]; }
failed() { [ "$status" -ne 0 ]; }
has() { case $out in *"$1"*) ;; *) return 1 ;; esac; }
lacks() { ! has "$1"; }

# eventually TEXT SECONDS COMMAND…: the command must succeed within the limit; shows that time passes.
eventually() {
  local text=$1 limit=$2 begun=$SECONDS told=0 past
  shift 2
  until "$@"; do
    past=$((SECONDS - begun))
    if [ "$past" -ge "$limit" ]; then
      [ ! -t 1 ] || printf '\r\e[K'
      check "$text, within $limit s" false
    fi
    if [ "$past" -ge 2 ] && [ "$past" -gt "$told" ]; then
      told=$past
      if [ -t 1 ]; then
        printf '\r\e[K    %s… %s s%s' "$dim" "$past" "$plain"
      elif [ $((past % 5)) -eq 0 ]; then
        printf '    … %s s\n' "$past"
      fi
    fi
    sleep 0.2
  done
  [ ! -t 1 ] || printf '\r\e[K'
  check "$text" true
}

# The value of a text field in JSON, enough for the ids and names that are looked for here.
json_text() { printf '%s\n' "$out" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }
json_number() { printf '%s\n' "$out" | sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" | head -n 1; }
# The value of a row in the command line's table.
row() { printf '%s\n' "$out" | awk -v key="$1" '$1 == key {print $2; exit}'; }

# audited PATH PART: shows a part of the last audit line about a path.
audited() {
  printf '%s%s$%s grep %s audit.log | tail -n 1\n' "$cyan" "$persona" "$plain" "$1"
  out=$(grep -F "\"path\":\"database/$1" "$work/audit.log" | tail -n 1 | grep -o "$2")
  printf '%s\n' "$out" | sed 's/^/    … /; s/$/ …/'
}

# ---- PostgreSQL, looked at from outside -----------------------------------------------------------------------------

sql() { psql -X -At -v ON_ERROR_STOP=1 -c "$1" "$superuser" 2>&1 </dev/null; }
role_exists() { [ "$(sql "SELECT count(*) FROM pg_roles WHERE rolname = '$1'")" = 1 ]; }
role_is_gone() { [ "$(sql "SELECT count(*) FROM pg_roles WHERE rolname = '$1'")" = 0 ]; }
leased_roles() { sql "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"; }
no_leased_role() { [ "$(leased_roles)" = 0 ]; }
valid_until() { sql "SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_roles WHERE rolname = '$1'"; }
login_url() { printf 'postgresql://%s:%s@%s' "$1" "$2" "$pg_place"; }
logs_in() { psql -X -At -c 'SELECT 1' "$(login_url "$1" "$2")" >/dev/null 2>&1 </dev/null; }
cannot_log_in() { ! logs_in "$@"; }

# ---- two servers, and their end -------------------------------------------------------------------------------------

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
dead() { ! alive "$1"; }

# Waits for a process of ours; takes it down the hard way after 15 s.
end_of() {
  local tries=0
  while alive "$1" && [ "$tries" -lt 150 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  if alive "$1"; then kill -KILL "$1" 2>/dev/null; fi
  wait "$1" 2>/dev/null
}

clean_up() {
  local result=$? tries=0
  trap - EXIT
  trap '' INT TERM HUP
  [ -z "$fifo_open" ] || exec 7>&-
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null
    end_of "$server"
  fi
  # PostgreSQL's keeper stops it, and removes its files, when its standard input ends.
  [ -z "$devpg_open" ] || exec 8>&-
  [ -z "$postgresql" ] || end_of "$postgresql"
  while [ -n "${pg_data:-}" ] && [ -e "$pg_data" ] && [ "$tries" -lt 150 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  if [ -n "${pg_data:-}" ] && [ -e "$pg_data" ]; then
    echo "demo: $pg_data is still there" >&2
    result=1
  fi
  [ -z "$work" ] || rm -rf -- "$work"
  [ -z "$server" ] || echo "Server and PostgreSQL are stopped, their files are removed."
  exit "$result"
}
trap clean_up EXIT
# Ctrl-C is how a demo that stays up is meant to end.
up=''
trap '[ -n "$up" ] && exit 0; exit 130' INT
trap '[ -n "$up" ] && exit 0; exit 143' TERM HUP

work=$(mktemp -d "${TMPDIR:-/tmp}/leasehold-demo.XXXXXX") || exit 1
work=$(cd "$work" && pwd -P)

# The command line's own settings must not lead it, or psql, elsewhere.
for name in $(compgen -e); do
  case $name in VAULT_* | BAO_* | LEASEHOLD_ADDR | LEASEHOLD_TOKEN* | LEASEHOLD_FORMAT | LEASEHOLD_NAMESPACE | PGOPTIONS | PGSERVICE | PGSSLMODE) unset "$name" ;; esac
done
export PAGER=cat PGCONNECT_TIMEOUT=20

echo "Building (the first time takes some minutes; cargo says what it does) …"
cargo build --package leasehold-server --bin leasehold --package leasehold-devpg --bin leasehold-devpg || exit 1
built=$(cd "${CARGO_TARGET_DIR:-target}/debug" && pwd) || exit 1
guests=$PWD/target/guests
module=$PWD/examples/change-freeze/target/change-freeze.component.wasm
mkdir "$work/bin" "$work/home"
ln -s "$built/leasehold" "$work/bin/leasehold"
PATH=$work/bin:$PATH
if ! command -v psql >/dev/null; then
  for directory in "${LEASEHOLD_PG_BIN:-/none}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
    [ ! -x "$directory/psql" ] || PATH=$PATH:$directory
  done
fi
command -v psql >/dev/null || { echo "demo: psql is missing: run \`make demo\`, which installs it" >&2; exit 1; }
# `login` keeps its token in a file in the home directory: not in yours.
export HOME=$work/home
cd "$work" || exit 1

chapter "A private PostgreSQL and a Leasehold server"
mkfifo "$work/keeper"
"$built/leasehold-devpg" <"$work/keeper" >"$work/devpg.out" 2>"$work/devpg.err" &
postgresql=$!
exec 8>"$work/keeper"
devpg_open=1
postgresql_told() { grep -q '^process' "$work/devpg.out" || ! alive "$postgresql"; }
eventually "PostgreSQL is up" 120 postgresql_told
if ! grep -q '^process' "$work/devpg.out"; then cat "$work/devpg.err" >&2; exit 1; fi
told() { awk -v key="$1" '$1 == key {print $2; exit}' "$work/devpg.out"; }
admin_url=$(told admin) superuser=$(told superuser) pg_data=$(told data)
pg_place=${admin_url##*@}
say "PostgreSQL $(sql 'SHOW server_version'), its admin for us is no superuser: $(sql "SELECT rolname || ' ' || CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'no superuser' END || CASE WHEN rolcreaterole THEN ', CREATEROLE' ELSE '' END FROM pg_roles WHERE rolname = 'leasehold_admin'")"

start_server() {
  local port=$((20000 + RANDOM % 12000))
  address=http://127.0.0.1:$port
  leasehold server -dev -dev-root-token-id="$root_token" -dev-listen-address="127.0.0.1:$port" >"$work/server.log" 2>&1 </dev/null 8>&- &
  server=$!
}
answers() { curl -sf -o /dev/null "$address/v1/sys/health"; }
# Another program may have the port: then the server ends at once, and another port is tried.
server_up() {
  answers && alive "$server" && return 0
  alive "$server" && return 1
  starts=$((starts + 1))
  [ "$starts" -lt 5 ] || { check "the server starts" false; }
  start_server
  return 1
}
root_token=demo-root-$RANDOM$RANDOM
starts=0
start_server
eventually "Leasehold answers" 60 server_up
export VAULT_ADDR=$address
run leasehold status -detailed
check "it is unsealed" test "$(row Sealed)" = false
acl_digest=$(awk '$2 == "acl.component.wasm" {print $1}' "$guests/SHA256SUMS")
check "it runs the ACL component that was built here" has "$acl_digest"

# ---- the guide ------------------------------------------------------------------------------------------------------

chapter "Policy requirements: a token for the admin"
persona=root
export VAULT_TOKEN=$root_token
say "From now on no answer leaves before a line about it is in this file:"
run leasehold audit enable file "file_path=$work/audit.log"
check "audited" has 'Enabled the file audit device'
file admin.hcl <<'H'
# Mount secret backends
path "sys/mounts/*" {
  capabilities = [ "create", "read", "update", "delete", "list" ]
}
# Configure the database backend and create roles
path "database/*" {
  capabilities = [ "create", "read", "update", "delete", "list" ]
}
# Write ACL policies
path "sys/policies/acl/*" {
  capabilities = [ "create", "read", "update", "delete", "list" ]
}
path "sys/policy/*" {
  capabilities = [ "create", "read", "update", "delete", "list" ]
}
# Manage tokens for verification
path "auth/token/create" {
  capabilities = [ "create", "read", "update", "delete", "list", "sudo" ]
}
# End leases
path "sys/leases/revoke" {
  capabilities = [ "update" ]
}
path "sys/leases/revoke/*" {
  capabilities = [ "update" ]
}
path "sys/leases/revoke-prefix/*" {
  capabilities = [ "update", "sudo" ]
}
H
run leasehold policy write admin admin.hcl
check "the policy is stored" succeeded
run leasehold token create -policy=admin -field=token
check "the admin has a token" succeeded
admin_token=$out

chapter "Step 1: mount the database engine"
persona=admin
VAULT_TOKEN=$admin_token
run leasehold secrets enable database
check "mounted" has 'Enabled the database secrets engine at: database/'

chapter "Step 2: configure PostgreSQL"
run leasehold write database/config/postgresql plugin_name=postgresql-database-plugin allowed_roles=readonly,short "connection_url=$admin_url"
check "the connection was tried and is stored" succeeded
run leasehold read database/config/postgresql
check "the password is not read back" lacks "$(printf '%s' "$admin_url" | sed 's/.*:\([^@]*\)@.*/\1/')"

chapter "Step 3: create a role"
say "The guide's statement gives no rights; IN ROLE makes the leased login a member of a group that may read."
file readonly.sql <<'S'
CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;
S
run leasehold write database/roles/readonly db_name=postgresql creation_statements=@readonly.sql default_ttl=1h max_ttl=24h
check "the role is stored" succeeded

chapter "Step 4: request credentials"
file apps-policy.hcl <<'H'
# Get credentials from the database backend
path "database/creds/readonly" {
  capabilities = [ "read" ]
}
H
run leasehold policy write apps apps-policy.hcl
check "the policy is stored" succeeded
run leasehold token create -policy=apps
check "the app has a token" succeeded
app_token=$(row token)
persona=app
unset VAULT_TOKEN
run leasehold login "$app_token"
check "logged in" succeeded
run leasehold read database/creds/readonly
check "credentials came" succeeded
lease=$(row lease_id) user=$(row username) password=$(row password)
check "the lease is named after its path" test "${lease%/*}" = database/creds/readonly
say "and by curl, with another result each time:"
run curl -s -H "X-Vault-Token: $app_token" "$address/v1/database/creds/readonly"
curl_lease=$(json_text lease_id) curl_user=$(json_text username)
check "another credential" test -n "$curl_user" -a "$curl_user" != "$user"
say "What the policy does not grant is denied:"
run leasehold read database/roles/readonly
check "403, permission denied" eval 'failed && has "Code: 403" && has "permission denied"'
say "The audit file says who decided: the ACL component, by its digest, with the rule's policy, line and column where one matched."
audited 'creds/readonly"' '"policy_results":{[^}]*}[^}]*}\]*[^}]*}'
check "the credential was granted by a rule of apps, decided by the component" eval 'has "\"policy\":\"apps\"" && has "\"acl_module\":\"$acl_digest\""'
audited 'roles/readonly"' '"policy_results":{"allowed":false[^}]*}'
check "and the denial is there too" has '"allowed":false'
say "The password is there only as an HMAC."
check "no line of the audit file holds the password" eval '! grep -qF -- "$password" "$work/audit.log"'

chapter "Validation: PostgreSQL knows the logins"
persona=postgres
run psql -X -c '\du v-*' "$superuser"
check "both roles are there" eval 'role_exists "$user" && role_exists "$curl_user"'
persona=app
run psql -X -c 'SELECT name, city FROM customers' "$(login_url "$user" "$password")"
check "the login may SELECT" eval 'succeeded && has Ada'
run psql -X -c "INSERT INTO customers (name, city) VALUES ('Mallory', 'Nowhere')" "$(login_url "$user" "$password")"
check "and may not INSERT" eval 'failed && has "permission denied for table customers"'

chapter "Validation: renew the lease"
before=$(valid_until "$user")
sleep 1.1 # PostgreSQL's VALID UNTIL counts whole seconds: one later is another.
run leasehold lease renew "$lease"
check "renewed" eval 'succeeded && has "$lease"'
check "PostgreSQL's VALID UNTIL has moved" test "$(valid_until "$user")" -gt "$before"
say "the guide's spelling of 2018, and curl:"
run leasehold renew "$lease"
check "renewed" eval 'succeeded && has "$lease"'
run curl -s -X PUT -H "X-Vault-Token: $app_token" -d "{\"lease_id\":\"$lease\"}" "$address/v1/sys/leases/renew"
check "renewed" test "$(json_text lease_id)" = "$lease"

chapter "Validation: revoke, while the application has a session open"
# Held open by its own input, so that it ends when PostgreSQL ends it and not before.
mkfifo "$work/session"
psql -X -At "$(login_url "$user" "$password")" <"$work/session" >"$work/session.out" 2>&1 &
session=$!
exec 7>"$work/session"
fifo_open=1
echo "SELECT 'connected as ' || current_user;" >&7
session_told() { grep -q "connected as $user" "$work/session.out"; }
eventually "a session of $user is open" 30 session_told
persona=admin
export VAULT_TOKEN=$admin_token
run leasehold lease revoke -sync "$lease"
check "revoked" succeeded
check "the role is gone" role_is_gone "$user"
trap '' PIPE
echo 'SELECT name FROM customers;' >&7 2>/dev/null
eventually "the open session has ended" 30 dead "$session"
sed 's/^/    /' "$work/session.out"
check "PostgreSQL ended it, and it read nothing more" eval '! grep -q Ada "$work/session.out"'
exec 7>&-
fifo_open=''
check "the login is refused" cannot_log_in "$user" "$password"
check "the other credential still stands" role_exists "$curl_user"
run curl -s -o /dev/null -w '%{http_code}\n' -X PUT -H "X-Vault-Token: $admin_token" -d "{\"lease_id\":\"$curl_lease\"}" "$address/v1/sys/leases/revoke"
check "revoked by curl" has 204
check "its role is gone too" role_is_gone "$curl_user"

chapter "Validation: revoke a whole prefix"
users=()
for _ in 1 2 3; do
  out=$(VAULT_TOKEN=$app_token leasehold read database/creds/readonly 2>&1)
  status=$?
  users+=("$(row username)")
done
check "three more credentials are out: $(leased_roles) roles" test "$(leased_roles)" = 3
run leasehold lease revoke -prefix=true database/creds/readonly
check "accepted" succeeded
eventually "all three are gone" 60 no_leased_role

chapter "A lease of ten seconds ends by itself"
run leasehold write database/roles/short db_name=postgresql creation_statements=@readonly.sql default_ttl=10s max_ttl=1m
check "the role is stored" succeeded
begun=$SECONDS
run leasehold read database/creds/short
user=$(row username) password=$(row password)
check "a lease of 10 s" eval 'succeeded && test "$(row lease_duration)" = 10s'
check "its login works" logs_in "$user" "$password"
say "Nobody revokes it."
eventually "the role is gone by itself" 60 role_is_gone "$user"
past=$((SECONDS - begun))
# Both ends were read in whole seconds.
check "after $past s, not before its time" test "$past" -ge 9
check "the login is refused" cannot_log_in "$user" "$password"
persona=postgres
run psql -X -c '\du v-*' "$superuser"
check "no leased role is left" no_leased_role

# ---- the module -----------------------------------------------------------------------------------------------------

chapter "A third party's policy module: no credentials in a change freeze"
persona=root
VAULT_TOKEN=$root_token
say "A WebAssembly component that imports nothing; its source is examples/change-freeze."
cp "$module" change-freeze.wasm || give_up
module_digest=$(sha256sum change-freeze.wasm 2>/dev/null || shasum -a 256 change-freeze.wasm)
module_digest=${module_digest%% *}
run leasehold module inspect change-freeze.wasm
check "it would be let in" succeeded
run leasehold module push change-freeze change-freeze.wasm
check "it passed the load gate and is stored by its digest" succeeded

# Moments as the module's configuration writes them; date differs between systems.
moment() { date -u -d "@$1" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r "$1" +%Y-%m-%dT%H:%M:%SZ; }
# freeze FROM TO: writes the configuration.
freeze() {
  file freeze.json <<J
{
  "windows": [ { "from": "$(moment "$1")", "to": "$(moment "$2")", "message": "$reason" } ],
  "max_ttl": "15m"
}
J
}
reason='quarterly close'
now=$(date +%s)
freeze $((now - 3600)) $((now + 3600))
say "One verdict without a server, for a read at this moment:"
run leasehold module check change-freeze.wasm -config=@freeze.json "-request={\"path\":\"database/creds/readonly\",\"operation\":\"read\",\"now\":$now}"
check "it denies" eval 'test "$status" = 2 && has "$reason"'
run leasehold write sys/policies/egp/freeze module=change-freeze config=@freeze.json 'paths=database/creds/*' enforcement_level=hard-mandatory
check "the module has read its configuration, and is bound" succeeded
persona=app
VAULT_TOKEN=$app_token
run leasehold read database/creds/readonly
check "refused in the freeze, with the module's words" eval 'failed && has "Code: 403" && has "$reason"'
check "PostgreSQL has no new role" no_leased_role
persona=root
say "The freeze is called off: it ends in three seconds."
now=$(date +%s)
freeze $((now - 3600)) $((now + 3))
VAULT_TOKEN=$root_token
run leasehold write sys/policies/egp/freeze module=change-freeze config=@freeze.json 'paths=database/creds/*' enforcement_level=hard-mandatory
check "bound anew" succeeded
run leasehold read sys/policies/egp/freeze
check "the binding names the module by digest" has "$module_digest"
persona=app
VAULT_TOKEN=$app_token
granted() { leasehold read database/creds/readonly >"$work/granted" 2>&1 </dev/null; }
eventually "credentials are granted after the freeze" 60 granted
run cat granted
check "for a quarter of an hour, the module's ceiling, and not the role's hour" test "$(row lease_duration)" = 15m
check "PostgreSQL has the role" role_exists "$(row username)"
persona=root
say "Verdict, digest and fuel stand in the audit file."
audited 'creds/readonly"' '{"policy":"freeze"[^}]*}'
check "by the module's digest" has "$module_digest"
VAULT_TOKEN=$root_token
run leasehold lease revoke -sync -prefix=true database/creds/readonly
check "revoked" succeeded
check "no leased role is left" no_leased_role
run leasehold delete sys/policies/egp/freeze
check "unbound" succeeded
run leasehold module delete change-freeze
check "and deleted" succeeded

# ---- the end --------------------------------------------------------------------------------------------------------

chapter "All $checked checks hold"
[ "$mode" = stay ] || exit 0

up=1
cat <<T

Leasehold      $address
root token     $root_token
PostgreSQL     $superuser

Three commands to try in another terminal:

  export VAULT_ADDR=$address VAULT_TOKEN=$root_token
  $built/leasehold read database/creds/readonly
  curl -s -H "X-Vault-Token: \$VAULT_TOKEN" "\$VAULT_ADDR/v1/sys/leases/lookup/database/creds/readonly?list=true"
  psql -c '\du v-*' $superuser

Ctrl-C stops both and removes everything.
T
# Until a signal comes, or one of the two ends by itself.
while alive "$server" && alive "$postgresql"; do
  sleep 1 &
  wait $!
done
echo "A server ended by itself:" >&2
give_up
