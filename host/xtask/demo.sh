#!/usr/bin/env bash
# Walks a demo against a private PostgreSQL; all that it starts is gone afterwards.
#
#   host/xtask/demo.sh [stay|once] [NODES]
#
# stay (the default): everything stays up until Ctrl-C. once: end with an exit status.
# NODES 1 (the default) is HashiCorp's guide "Dynamic Secrets" and a policy module (demo/guide.sh); more than one: that many servers over
# one PostgreSQL (demo/nodes.sh).
#
# Every step shows its command and its answer, and is checked, in PostgreSQL itself where that is the point: the first one that
# does not do what it says ends the demo with status 1. Nothing here depends on being fast: what takes time is polled, with a limit.
set -uo pipefail
cd "$(dirname "$0")/../.."

usage() { echo "usage: demo.sh [stay|once] [NODES from 1 to 9]" >&2; exit 2; }
mode=${1:-stay} nodes=${2:-1}
case $mode in stay | once) ;; *) usage ;; esac
case $nodes in [1-9]) ;; *) usage ;; esac
steps=$PWD/host/xtask/demo
. "$steps/helpers.sh"

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

chapter "A private PostgreSQL"
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

if [ "$nodes" = 1 ]; then . "$steps/guide.sh"; else . "$steps/nodes.sh"; fi

chapter "All $checked checks hold"
[ "$mode" = stay ] || exit 0

up=1
left_up
echo "Ctrl-C stops everything and removes it."
# Until a signal comes, or one of the programs ends by itself.
all_alive() {
  local process
  for process in "${servers[@]}" "$postgresql"; do alive "$process" || return 1; done
}
while all_alive; do
  sleep 1 &
  wait $!
done
echo "A server ended by itself:" >&2
give_up
