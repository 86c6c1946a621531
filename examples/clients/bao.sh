#!/usr/bin/env bash
# The same with OpenBao's own command line, which knows nothing of Leasehold. Needs VAULT_ADDR and VAULT_TOKEN.
set -euo pipefail
export BAO_ADDR=$VAULT_ADDR BAO_TOKEN=$VAULT_TOKEN

credentials=$(bao read -format=json database/creds/readonly)
lease=$(sed -n 's/.*"lease_id": "\([^"]*\)".*/\1/p' <<<"$credentials")
echo "$credentials"

bao lease lookup "$lease"
bao lease renew -increment=10m "$lease"
bao lease revoke -sync "$lease"
