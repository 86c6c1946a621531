# Several servers over one PostgreSQL: what one of them answers counts on all, and a credential ends on time when the one that issued it
# is gone. Sourced by demo.sh; host/docs/several-servers.md tells the same.

chapter "$nodes servers, each joined by its configuration alone"
store_password=$RANDOM$RANDOM$RANDOM
sql "CREATE ROLE leasehold_store LOGIN PASSWORD '$store_password'" >/dev/null || give_up
sql 'CREATE DATABASE store OWNER leasehold_store' >/dev/null || give_up
store_place=${pg_place%%/*}
say "The store is a database of the same PostgreSQL here; in production it is one of its own."

# A port that nobody listens on, above the last one that was given out.
last_port=$((20000 + RANDOM % 10000))
free_port() {
  last_port=$((last_port + 1))
  while (exec 3<>"/dev/tcp/127.0.0.1/$last_port") 2>/dev/null; do last_port=$((last_port + 1)); done
}
addresses=() configs=()
for ((n = 1; n <= nodes; n++)); do
  free_port
  addresses[n]=http://127.0.0.1:$last_port
  configs[n]=leasehold-$n.hcl
  cat >"${configs[n]}" <<H
storage "postgresql" {
  connection_url = "postgresql://leasehold_store:$store_password@$store_place/store?sslmode=disable"
}
listener "tcp" {
  address     = "127.0.0.1:$last_port"
  tls_disable = true
}
api_addr = "http://127.0.0.1:$last_port"
H
done
persona=ops
run sed 's/:[^:@]*@/:…@/' "${configs[1]}"

# at N COMMAND…: with server N, by name, as the address that the command goes to.
at() {
  local was=$persona
  persona="$was@server-$1" VAULT_ADDR=${addresses[$1]}
  export VAULT_ADDR
  shift
  "$@"
  persona=$was
}
start_server() {
  leasehold server -config="${configs[$1]}" >>"$work/server-$1.log" 2>&1 </dev/null 8>&- &
  servers[$1]=$!
  eventually "server $1 answers" 60 curl -s -o /dev/null "${addresses[$1]}/v1/sys/seal-status"
}
for ((n = 1; n <= nodes; n++)); do start_server "$n"; done

say "Initialised once, on any of them; each is unsealed by itself, with the same shares."
at 1 run leasehold operator init -key-shares=1 -key-threshold=1 -format=json
check "initialised" succeeded
root_token=$(json_text root_token)
share=$(printf '%s\n' "$out" | tr -d '\n ' | sed -n 's/.*"unseal_keys_b64":\["\([^"]*\)".*/\1/p')
export VAULT_TOKEN=$root_token
unseal() {
  at "$1" run leasehold operator unseal "$share"
  check "server $1 is unsealed" test "$(row Sealed)" = false
}
for ((n = 1; n <= nodes; n++)); do unseal "$n"; done
at "$nodes" run leasehold operator members
check "each of them is a member, and active" test "$(grep -c '127.0.0.1.* true ' <<<"$out")" = "$nodes"

chapter "Written on one server, there on all of them"
persona=admin
at 1 run leasehold secrets enable database
check "mounted" succeeded
at 2 run leasehold write database/config/postgresql plugin_name=postgresql-database-plugin allowed_roles='*' "connection_url=$admin_url"
check "the connection is stored" succeeded
file readonly.sql <<'S'
CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE readonly;
S
at "$nodes" run leasehold write database/roles/readonly db_name=postgresql creation_statements=@readonly.sql default_ttl=1h
check "the role is stored" succeeded
file app.hcl <<'H'
path "database/creds/*" {
  capabilities = [ "read" ]
}
H
at 1 run leasehold policy write app app.hcl
check "the policy is stored" succeeded
at 2 run leasehold token create -policy=app -field=token
check "a token of the application" succeeded
app_token=$out

chapter "Issued on one, used, revoked on another"
persona=app
VAULT_TOKEN=$app_token
at 1 run leasehold read database/creds/readonly
check "credentials came" succeeded
lease=$(row lease_id) user=$(row username) password=$(row password)
run psql -X -c 'SELECT name, city FROM customers' "$(login_url "$user" "$password")"
check "the login may SELECT" eval 'succeeded && has Ada'
persona=admin
VAULT_TOKEN=$root_token
at 2 run leasehold lease revoke -sync "$lease"
check "revoked" succeeded
check "the role is gone" role_is_gone "$user"
check "the login is refused" cannot_log_in "$user" "$password"

chapter "A right that ends on one server has ended on all of them"
at "$nodes" run leasehold policy delete app
check "deleted" succeeded
persona=app
VAULT_TOKEN=$app_token
for ((n = 1; n <= nodes; n++)); do
  at "$n" run leasehold read database/creds/readonly
  check "server $n denies at once" eval 'failed && has "permission denied"'
done

chapter "The server that issued a credential is killed"
persona=admin
VAULT_TOKEN=$root_token
at 2 run leasehold policy write app app.hcl
check "the policy is back" succeeded
at 2 run leasehold write database/roles/short db_name=postgresql creation_statements=@readonly.sql default_ttl=10s
check "a role for ten seconds" succeeded
persona=app
VAULT_TOKEN=$app_token
begun=$SECONDS
at 1 run leasehold read database/creds/short
check "credentials came" succeeded
user=$(row username) password=$(row password)
persona=ops
say "kill -9 of server 1"
kill -KILL "${servers[1]}" 2>/dev/null
wait "${servers[1]}" 2>/dev/null
check "its login works on" logs_in "$user" "$password"
persona=app
at 2 run leasehold read database/creds/readonly
check "another server serves the application" succeeded
eventually "the role of ten seconds is gone by itself" 60 role_is_gone "$user"
past=$((SECONDS - begun))
check "after $past s, not before its time" test "$past" -ge 9
persona=ops
VAULT_TOKEN=$root_token
one_less() { VAULT_ADDR=${addresses[2]} leasehold operator members 2>/dev/null </dev/null | grep -c '127.0.0.1.* true ' | grep -qx $((nodes - 1)); }
eventually "the others have found out" 60 one_less
at 2 run leasehold operator members

chapter "It comes back"
start_server 1
unseal 1
persona=app
VAULT_TOKEN=$app_token
at 1 run leasehold read database/creds/readonly
check "it serves as before" succeeded
persona=admin
VAULT_TOKEN=$root_token
at 1 run leasehold lease revoke -sync -prefix=true database/creds
check "revoked" succeeded
check "no leased role is left" no_leased_role

# Shown at the end of a demo that stays up.
left_up() {
  cat <<T

Leasehold      ${addresses[*]}
root token     $root_token
unseal key     $share
PostgreSQL     $superuser

Three commands to try in another terminal:

  export VAULT_ADDR=${addresses[1]} VAULT_TOKEN=$root_token
  $built/leasehold operator members
  VAULT_ADDR=${addresses[2]} $built/leasehold read database/creds/readonly
  psql -c '\du v-*' $superuser

T
}
