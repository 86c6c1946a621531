# HashiCorp's guide "Dynamic Secrets", chapter by chapter, against one development server; then a policy module is pushed and refuses
# credentials during a change freeze. Sourced by demo.sh.

chapter "A Leasehold server"
start_server() {
  local port=$((20000 + RANDOM % 12000))
  address=http://127.0.0.1:$port
  leasehold server -dev -dev-root-token-id="$root_token" -dev-listen-address="127.0.0.1:$port" >"$work/server.log" 2>&1 </dev/null 8>&- &
  server=$!
  servers=("$server")
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

chapter "A program logs in: nobody on the way sees its secret id"
persona=root
VAULT_TOKEN=$root_token
run leasehold auth enable approle
check "enabled" succeeded
run leasehold write auth/approle/role/shop token_policies=apps token_ttl=20m secret_id_ttl=10m
check "the role is stored" succeeded
run leasehold read -field=role_id auth/approle/role/shop/role-id
role_id=$out
say "In place of the secret id comes a token that stands for it, and is good for one use."
run leasehold write -f -wrap-ttl=2m -field=wrapping_token auth/approle/role/shop/secret-id
check "a wrapping token came" succeeded
persona=shop
VAULT_TOKEN=$out
run leasehold unwrap -field=secret_id
check "the program takes the secret id out" succeeded
secret_id=$out
run leasehold unwrap -field=secret_id
check "nobody takes it out again" eval 'failed && has "wrapping token is not valid or does not exist"'
run leasehold write -field=token auth/approle/login "role_id=$role_id" "secret_id=$secret_id"
check "it logs in" succeeded
VAULT_TOKEN=$out
run leasehold read database/creds/readonly
user=$(row username) password=$(row password)
check "its credentials work" logs_in "$user" "$password"
run leasehold token revoke -self
check "it logs out" succeeded
eventually "and its role is gone" 60 role_is_gone "$user"

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

# Shown at the end of a demo that stays up.
left_up() {
  cat <<T

Leasehold      $address
root token     $root_token
PostgreSQL     $superuser

Three commands to try in another terminal:

  export VAULT_ADDR=$address VAULT_TOKEN=$root_token
  $built/leasehold read database/creds/readonly
  curl -s -H "X-Vault-Token: \$VAULT_TOKEN" "\$VAULT_ADDR/v1/sys/leases/lookup/database/creds/readonly?list=true"
  psql -c '\du v-*' $superuser

T
}
