#!/usr/bin/env bash
# A leased credential by curl: read, look up, renew, give back. Needs VAULT_ADDR and VAULT_TOKEN; the token must be allowed to read
# database/creds/readonly and to update sys/leases/revoke.
set -euo pipefail

call() { # METHOD PATH [JSON]
  curl --silent --show-error --fail-with-body --request "$1" --header "X-Vault-Token: $VAULT_TOKEN" ${3:+--data "$3"} "$VAULT_ADDR/v1/$2"
}

credentials=$(call GET database/creds/readonly)
lease=$(sed -n 's/.*"lease_id":"\([^"]*\)".*/\1/p' <<<"$credentials")
echo "$credentials"

call PUT sys/leases/lookup "{\"lease_id\":\"$lease\"}"
call PUT sys/leases/renew "{\"lease_id\":\"$lease\",\"increment\":600}"
call PUT sys/leases/revoke "{\"lease_id\":\"$lease\"}"
echo "revoked $lease"
