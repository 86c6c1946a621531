#!/usr/bin/env python3
"""A leased credential by hvac, a client library for Vault. Needs VAULT_ADDR and VAULT_TOKEN, and `pip install hvac`."""

import os

import hvac

client = hvac.Client(url=os.environ["VAULT_ADDR"], token=os.environ["VAULT_TOKEN"])
assert client.is_authenticated()

credential = client.secrets.database.generate_credentials(name="readonly")
lease = credential["lease_id"]
print("user", credential["data"]["username"], "for", credential["lease_duration"], "s")

try:
    pass  # Connect to PostgreSQL with credential["data"]["username"] and ["password"] here.
    renewed = client.sys.renew_lease(lease_id=lease, increment=600)
    print("renewed for", renewed["lease_duration"], "s")
finally:
    client.sys.revoke_lease(lease_id=lease)
    print("revoked", lease)
