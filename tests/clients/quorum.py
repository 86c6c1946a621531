"""Walks hvac over what takes a quorum of key shares: a root token, new shares with verification and without, data keys.

Needs VAULT_ADDR, VAULT_TOKEN (root) and UNSEAL_KEYS, two shares that are enough. The server has other shares afterwards.
Every step asserts what it got; the last line says how many held.
"""

import base64
import os

import hvac

held = 0


def check(text, holds):
    global held
    assert holds, text
    held += 1


root = hvac.Client()
keys = os.environ["UNSEAL_KEYS"].split(",")

# A root token.
check("no attempt", root.sys.read_root_generation_progress()["started"] is False)
root.sys.start_root_token_generation()
root.sys.cancel_root_generation()
begun = root.sys.start_root_token_generation()
check("begun", begun["started"] and begun["required"] == 2)
first = root.sys.generate_root(keys[0], begun["nonce"])
check("one share", first["progress"] == 1 and first["complete"] is False)
made = root.sys.generate_root(keys[1], begun["nonce"])
encoded = made["encoded_root_token"]
encoded = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
token = bytes(a ^ b for a, b in zip(encoded, begun["otp"].encode())).decode()
check("root token", hvac.Client(token=token).lookup_token()["data"]["policies"] == ["root"])

# New shares.
check("no rekeying", root.sys.read_rekey_progress()["started"] is False)
root.sys.start_rekey(secret_shares=5, secret_threshold=3)
root.sys.cancel_rekey()
begun = root.sys.start_rekey(secret_shares=3, secret_threshold=2, require_verification=True)
dealt = root.sys.rekey_multi(keys, begun["nonce"])
check("dealt", dealt["complete"] and len(dealt["keys"]) == 3 and dealt["verification_required"])
check("verification", root.sys.read_rekey_verify_progress()["progress"] == 0)
root.sys.cancel_rekey_verify()
nonce = root.sys.read_rekey_verify_progress()["nonce"]
done = root.sys.rekey_verify_multi(dealt["keys_base64"][1:], nonce)
check("verified", done["complete"])
begun = root.sys.start_rekey(secret_shares=1, secret_threshold=1)
dealt = root.sys.rekey_multi(dealt["keys"][:2], begun["nonce"])
check("without verification", len(dealt["keys"]) == 1)
check("the seal", root.sys.read_seal_status()["t"] == 1)
root.sys.seal()
check("sealed", root.sys.is_sealed())
root.sys.submit_unseal_key(dealt["keys"][0])
check("the new share opens it", not root.sys.is_sealed())

# Data keys.
term = root.sys.read_encryption_key_status if hasattr(root.sys, "read_encryption_key_status") else root.sys.get_encryption_key_status
before = term()["data"]["term"]
root.sys.rotate_encryption_key()
check("rotated", term()["data"]["term"] == before + 1)

print(f"hvac: all {held} steps held")
