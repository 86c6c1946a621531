"""Walks hvac over mounts, policies, tokens, leases, userpass, approle, kv, identity and rate limits.

Needs VAULT_ADDR and VAULT_TOKEN (root), a database role `readonly` at `database/`, and in STATIC_USER a PostgreSQL role for a static role.
Every step asserts what it got; the last line says how many held.
"""

import os

import hvac
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest

held = 0


def check(text, holds):
    global held
    assert holds, text
    held += 1


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return True
    return False


root = hvac.Client()


def with_token(token):
    return hvac.Client(token=token)


# What answers, and who we are.
check("authenticated", root.is_authenticated())
check("health", root.sys.read_health_status(method="GET")["sealed"] is False)
check("seal status", root.sys.read_seal_status()["initialized"] is True)
check("leader", "ha_enabled" in root.sys.read_leader_status())

# Mounts.
root.sys.enable_secrets_engine("kv", path="walk-kv", options={"version": "1"}, description="walked")
mounts = root.sys.list_mounted_secrets_engines()["data"]
check("kv is mounted", mounts["walk-kv/"]["type"] == "kv" and mounts["walk-kv/"]["description"] == "walked")
check("a mount by its path", root.sys.read_mount_configuration("walk-kv")["data"]["max_lease_ttl"] > 0)
root.sys.tune_mount_configuration("walk-kv", default_lease_ttl="1h", description="tuned")
check("tuned", root.sys.read_mount_configuration("walk-kv")["data"]["default_lease_ttl"] == 3600)
check("a taken path", refused(InvalidRequest, root.sys.enable_secrets_engine, "kv", path="walk-kv"))

# kv version 1.
kv = root.secrets.kv.v1
kv.create_or_update_secret("app/db", {"user": "u", "size": 5}, mount_point="walk-kv")
check("read", kv.read_secret("app/db", mount_point="walk-kv")["data"] == {"user": "u", "size": 5})
kv.create_or_update_secret("app/db", {"user": "v"}, method="PUT", mount_point="walk-kv")
check("written over", kv.read_secret("app/db", mount_point="walk-kv")["data"] == {"user": "v"})
kv.create_or_update_secret("top", {"a": "b"}, mount_point="walk-kv")
check("list", kv.list_secrets("", mount_point="walk-kv")["data"]["keys"] == ["app/", "top"])
kv.delete_secret("app/db", mount_point="walk-kv")
check("deleted", refused(InvalidPath, kv.read_secret, "app/db", mount_point="walk-kv"))

# kv version 2, where hvac looks for it by itself, and upgraded from version 1.
kv2 = root.secrets.kv.v2
made = kv2.create_or_update_secret("app/db", {"user": "u", "size": 5}, cas=0)["data"]
check("first version", made["version"] == 1 and made["destroyed"] is False)
check("a wrong version", refused(InvalidRequest, kv2.create_or_update_secret, "app/db", {"user": "x"}, cas=0))
check("patched", kv2.patch("app/db", {"size": 6})["data"]["version"] == 2)
read = kv2.read_secret_version("app/db", raise_on_deleted_version=True)["data"]
check("read", read["data"] == {"user": "u", "size": 6} and read["metadata"]["version"] == 2)
old = kv2.read_secret_version("app/db", version=1, raise_on_deleted_version=True)["data"]
check("read the first", old["data"]["size"] == 5)
check("the number of versions", kv2.read_secret_metadata("app/db")["data"]["current_version"] == 2)
kv2.delete_latest_version_of_secret("app/db")
check("deleted", refused(InvalidPath, kv2.read_secret_version, "app/db", raise_on_deleted_version=True))
soft = kv2.read_secret_version("app/db", raise_on_deleted_version=False)["data"]
check("what is left of it", soft["data"] is None and soft["metadata"]["deletion_time"] != "")
kv2.undelete_secret_versions("app/db", [2])
kv2.delete_secret_versions("app/db", [1])
kv2.destroy_secret_versions("app/db", [1])
versions = kv2.read_secret_metadata("app/db")["data"]["versions"]
check("destroyed", versions["1"]["destroyed"] is True and versions["2"]["deletion_time"] == "")
kv2.update_metadata("app/db", max_versions=3, cas_required=True, delete_version_after="1h", custom_metadata={"owner": "web"})
metadata = kv2.read_secret_metadata("app/db")["data"]
check("metadata", metadata["custom_metadata"] == {"owner": "web"} and metadata["delete_version_after"] == "1h0m0s")
check("list", kv2.list_secrets("")["data"]["keys"] == ["app/"] and kv2.list_secrets("app")["data"]["keys"] == ["db"])
kv2.configure(max_versions=20, cas_required=False)
check("configuration", kv2.read_configuration()["data"]["max_versions"] == 20)
kv2.delete_metadata_and_all_versions("app/db")
check("all gone", refused(InvalidPath, kv2.read_secret_metadata, "app/db"))
root.sys.enable_secrets_engine("kv", path="walk-old", options={"version": "1"})
root.secrets.kv.v1.create_or_update_secret("a", {"b": "c"}, mount_point="walk-old")
root.sys.tune_mount_configuration("walk-old", options={"version": "2"})
upgraded = kv2.read_secret_version("a", mount_point="walk-old", raise_on_deleted_version=True)["data"]
check("upgraded", upgraded["data"] == {"b": "c"} and upgraded["metadata"]["version"] == 1)
root.sys.disable_secrets_engine("walk-old")

# Policies.
root.sys.create_or_update_policy(
    "walk", 'path "walk-kv/*" { capabilities = ["read", "list"] }\npath "database/creds/readonly" { capabilities = ["read"] }'
)
check("policy listed", "walk" in root.sys.list_policies()["data"]["policies"])
check("policy read", "walk-kv/*" in root.sys.read_policy("walk")["data"]["rules"])

# Tokens.
made = root.auth.token.create(policies=["walk"], ttl="1h", meta={"team": "a"}, display_name="walk")["auth"]
check("policies", made["policies"] == ["default", "walk"])
child = with_token(made["client_token"])
check("lookup-self", child.auth.token.lookup_self()["data"]["meta"] == {"team": "a"})
check("lookup", root.auth.token.lookup(made["client_token"])["data"]["accessor"] == made["accessor"])
check("accessor", root.auth.token.lookup_accessor(made["accessor"])["data"]["id"] == "")
check("accessors", made["accessor"] in root.auth.token.list_accessors()["data"]["keys"])
check("renew-self", child.auth.token.renew_self(increment="30m")["auth"]["lease_duration"] == 1800)
check("renew", root.auth.token.renew(made["client_token"])["auth"]["renewable"] is True)
capabilities = child.sys.get_capabilities(["walk-kv/top", "sys/mounts"])["data"]
check("capabilities", capabilities["walk-kv/top"] == ["list", "read"] and capabilities["sys/mounts"] == ["deny"])
check("allowed", child.secrets.kv.v1.read_secret("top", mount_point="walk-kv")["data"] == {"a": "b"})
check("denied", refused(Forbidden, child.secrets.kv.v1.create_or_update_secret, "top", {"a": "c"}, mount_point="walk-kv"))

# Leases.
lease = child.secrets.database.generate_credentials("readonly")
check("credentials", lease["data"]["username"].startswith("v-") and lease["renewable"])
check("lookup", root.sys.read_lease(lease["lease_id"])["data"]["id"] == lease["lease_id"])
check("listed", root.sys.list_leases("database/creds/readonly")["data"]["keys"])
check("renewed", root.sys.renew_lease(lease["lease_id"], increment=600)["lease_duration"] == 600)
root.sys.revoke_lease(lease["lease_id"])
check("revoked", refused(InvalidRequest, root.sys.read_lease, lease["lease_id"]))
child.secrets.database.generate_credentials("readonly")
root.sys.revoke_prefix("database/creds/readonly")
check("prefix", refused(InvalidPath, root.sys.list_leases, "database/creds/readonly"))

# userpass.
root.sys.enable_auth_method("userpass", path="walk-users")
check("auth listed", root.sys.list_auth_methods()["data"]["walk-users/"]["type"] == "userpass")
users = root.auth.userpass
users.create_or_update_user("ada", password="first-one", policies="walk", mount_point="walk-users")
check("users", users.list_user(mount_point="walk-users")["data"]["keys"] == ["ada"])
check("no password", "password" not in users.read_user("ada", mount_point="walk-users")["data"])
person = hvac.Client()
person.token = None
login = person.auth.userpass.login("ada", "first-one", mount_point="walk-users")
check("login", login["auth"]["metadata"]["username"] == "ada" and "walk" in login["auth"]["policies"])
check("logged in", person.auth.token.lookup_self()["data"]["path"] == "auth/walk-users/login/ada")
users.update_password_on_user("ada", "second-one", mount_point="walk-users")
stranger = hvac.Client()
check("old password", refused(InvalidRequest, stranger.auth.userpass.login, "ada", "first-one", mount_point="walk-users"))
check("nobody", refused(InvalidRequest, stranger.auth.userpass.login, "eve", "first-one", mount_point="walk-users"))
users.delete_user("ada", mount_point="walk-users")
root.sys.disable_auth_method("walk-users")
check("its tokens are gone", refused(Forbidden, person.auth.token.lookup_self))

# approle.
root.sys.enable_auth_method("approle", path="walk-roles")
approle = root.auth.approle
approle.create_or_update_approle(
    "web", token_policies=["walk"], token_ttl="20m", secret_id_num_uses=2, mount_point="walk-roles"
)
check("roles", approle.list_roles(mount_point="walk-roles")["data"]["keys"] == ["web"])
check("role", approle.read_role("web", mount_point="walk-roles")["data"]["token_policies"] == ["walk"])
role_id = approle.read_role_id("web", mount_point="walk-roles")["data"]["role_id"]
approle.update_role_id("web", "web-role-id", mount_point="walk-roles")
check("role id", approle.read_role_id("web", mount_point="walk-roles")["data"]["role_id"] == "web-role-id" != role_id)
secret = approle.generate_secret_id("web", metadata={"host": "h1"}, mount_point="walk-roles")["data"]
accessors = approle.list_secret_id_accessors("web", mount_point="walk-roles")["data"]["keys"]
check("accessors", accessors == [secret["secret_id_accessor"]])
looked = approle.read_secret_id("web", secret["secret_id"], mount_point="walk-roles")["data"]
check("secret id", looked["secret_id_num_uses"] == 2 and looked["metadata"] == {"host": "h1"})
for _ in range(2):
    login = stranger.auth.approle.login("web-role-id", secret["secret_id"], use_token=False, mount_point="walk-roles")
check("approle login", login["auth"]["metadata"]["role_name"] == "web" and login["auth"]["lease_duration"] == 1200)
check(
    "used up",
    refused(
        InvalidRequest,
        stranger.auth.approle.login,
        "web-role-id",
        secret["secret_id"],
        use_token=False,
        mount_point="walk-roles",
    ),
)
custom = approle.create_custom_secret_id("web", "my-own-secret-id", mount_point="walk-roles")["data"]
check("custom", custom["secret_id"] == "my-own-secret-id")
approle.destroy_secret_id("web", "my-own-secret-id", mount_point="walk-roles")
app = with_token(login["auth"]["client_token"])
check("the app reads", app.secrets.kv.v1.read_secret("top", mount_point="walk-kv")["data"] == {"a": "b"})
root.sys.disable_auth_method("walk-roles")
check("its tokens are gone too", refused(Forbidden, app.auth.token.lookup_self))

# Static roles.
databases = root.secrets.database
databases.create_static_role("walk-static", "pg", os.environ["STATIC_USER"], [], rotation_period=3600)
made_static = databases.read_static_role("walk-static")["data"]
check("static role", made_static["username"] == os.environ["STATIC_USER"] and made_static["rotation_period"] == 3600)
check("listed static role", databases.list_static_roles()["data"]["keys"] == ["walk-static"])
fixed = databases.get_static_credentials("walk-static")["data"]
check("static credentials", fixed["password"] and 0 < fixed["ttl"] <= 3600)
databases.rotate_static_role_credentials("walk-static")
check("rotated", databases.get_static_credentials("walk-static")["data"]["password"] != fixed["password"])
databases.delete_static_role("walk-static")
check("no static role", refused(InvalidPath, databases.read_static_role, "walk-static"))

# Moving, and the end.
root.sys.move_backend("walk-kv", "walk-moved")
for _ in range(100):
    if "walk-moved/" in root.sys.list_mounted_secrets_engines()["data"]:
        break
check("moved", kv.read_secret("top", mount_point="walk-moved")["data"] == {"a": "b"})
root.sys.disable_secrets_engine("walk-moved")
check("disabled", "walk-moved/" not in root.sys.list_mounted_secrets_engines()["data"])
root.auth.token.revoke_accessor(made["accessor"])
check("revoked token", refused(Forbidden, child.auth.token.lookup_self))
root.sys.delete_policy("walk")
check("policy gone", "walk" not in root.sys.list_policies()["data"]["policies"])

# Identity.
who = root.secrets.identity
root.sys.enable_auth_method("userpass", path="walk-people")
accessor = root.sys.list_auth_methods()["data"]["walk-people/"]["accessor"]
ann = who.create_or_update_entity(name="walk-ann", metadata={"team": "shop"}, policies="walk")["data"]["id"]
who.create_or_update_entity_by_name("walk-bob", metadata={"team": "ops"})
bob = who.read_entity_by_name("walk-bob")["data"]["id"]
who.update_entity(entity_id=ann, metadata={"team": "till"})
check("an entity", who.read_entity(ann)["data"]["metadata"] == {"team": "till"})
check("entities", {ann, bob} <= set(who.list_entities()["data"]["keys"]))
check("entities by name", {"walk-ann", "walk-bob"} <= set(who.list_entities_by_name()["data"]["keys"]))
alias = who.create_or_update_entity_alias(name="ann", canonical_id=ann, mount_accessor=accessor)["data"]["id"]
who.update_entity_alias(alias_id=alias, name="anna", canonical_id=ann, mount_accessor=accessor)
check("an alias", who.read_entity_alias(alias)["data"]["name"] == "anna")
check("aliases", alias in who.list_entity_aliases()["data"]["keys"])
group = who.create_or_update_group(name="walk-g", member_entity_ids=bob, policies="walk")["data"]["id"]
# What is not named is sent as null, and emptied.
who.update_group(group_id=group, name="walk-g", group_type="internal", member_entity_ids=bob, policies="walk-2")
check("a group", who.read_group(group)["data"]["member_entity_ids"] == [bob])
check("its policies", who.read_group_by_name("walk-g")["data"]["policies"] == ["walk-2"])
external = who.create_or_update_group(name="walk-e", group_type="external")["data"]["id"]
team = who.create_or_update_group_alias(name="team", mount_accessor=accessor, canonical_id=external)["data"]["id"]
check("a group's alias", who.read_group_alias(team)["data"]["canonical_id"] == external)
check("groups", {group, external} <= set(who.list_groups()["data"]["keys"]))
found = who.lookup_entity(alias_name="anna", alias_mount_accessor=accessor)
check("looked up", found["data"]["id"] == ann and who.lookup_group(name="walk-e")["data"]["id"] == external)
who.merge_entities(from_entity_ids=bob, to_entity_id=ann)
check("merged", who.read_entity(ann)["data"]["merged_entity_ids"] == [bob])
check("in the group of the other", who.read_group(group)["data"]["member_entity_ids"] == [ann])
who.delete_group_alias(team)
who.delete_group(group)
who.delete_group_by_name("walk-e")
who.delete_entity_alias(alias)
who.delete_entity(ann)
check("deleted", refused(InvalidPath, who.read_entity, ann) and refused(InvalidPath, who.read_group, group))
root.sys.disable_auth_method("walk-people")

# Rate limits.
root.sys.create_or_update_quota(name="walk", rate=1000.0, path="database")
check("a quota", root.sys.read_quota("walk")["data"]["rate"] == 1000)
check("quotas", "walk" in root.sys.list_quotas()["data"]["keys"])
root.sys.delete_quota("walk")
check("no quota", refused(InvalidPath, root.sys.read_quota, "walk"))

print(f"hvac: all {held} steps held")
