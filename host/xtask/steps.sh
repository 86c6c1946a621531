#!/usr/bin/env bash
# What the Makefile's targets do, one function each. Everything is built in the dev profile (dependencies are optimised in
# it), except for what `build` and `bench` measure or ship.
set -euo pipefail
cd "$(dirname "$0")/../.."

bootstrap() {
  host/xtask/bootstrap.sh "$@"
  # Tools that were installed for us alone, and rustup's, which a fresh login may not have on PATH yet.
  export PATH="$PWD/target/tools/bin:$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
}

guests() {
  cargo xtask guests
  cargo xtask precompile "$@"
}

# The workspaces outside ours: third-party examples.
examples() {
  local manifest
  for manifest in examples/*/Cargo.toml; do
    [ ! -e "$manifest" ] || dirname "$manifest"
  done
}

modules() {
  local example
  for example in $(examples); do cargo xtask module "$example"; done
}

# Other people's client libraries, for the tests that walk them (tests/all/clients.rs): hvac, Ansible's modules,
# node-vault, vaultrs.
clients() {
  export LEASEHOLD_PYTHON=$PWD/target/tools/venv/bin/python3
  # The same Python has a validator of OpenAPI documents and a program that walks them (tests/all/openapi.rs).
  export LEASEHOLD_OPENAPI_PYTHON=$LEASEHOLD_PYTHON
  export LEASEHOLD_ANSIBLE=$PWD/target/tools/venv/bin/ansible-playbook
  export LEASEHOLD_ANSIBLE_COLLECTIONS=$PWD/target/tools/ansible
  export LEASEHOLD_NODE_MODULES=$PWD/target/tools/node/node_modules
  cargo build --manifest-path tests/clients/vaultrs/Cargo.toml --target-dir target/clients
  export LEASEHOLD_VAULTRS_WALK=$PWD/target/clients/debug/vaultrs-walk
}

demo() {
  bootstrap
  guests
  modules
  exec host/xtask/demo.sh "$@"
}

run_tests() {
  bootstrap clients
  guests
  modules
  clients
  # Of the simulation of several servers (host/core/tests/simulation).
  export LEASEHOLD_HISTORIES=${LEASEHOLD_HISTORIES:-5000}
  # The real OpenBao to compare with, when there is one.
  if [ -z "${BAO:-}" ] && BAO=$(command -v bao); then export BAO; fi
  local log=target/test.log
  mkdir -p target
  # The function's own status: `set -e` does not reach into what stands before `||`.
  if every_workspace 2>&1 | tee "$log"; then
    closing_lines "$log"
    echo "make test: passed"
  else
    closing_lines "$log"
    echo "make test: FAILED"
    exit 1
  fi
}

# All of them, whatever fails on the way.
every_workspace() {
  local example failed=0
  cargo test --workspace --no-fail-fast || failed=1
  cargo test --manifest-path guests/Cargo.toml --no-fail-fast || failed=1
  for example in $(examples); do
    cargo test --manifest-path "$example/Cargo.toml" --no-fail-fast || failed=1
  done
  return "$failed"
}

closing_lines() {
  echo
  echo "The runners' closing lines:"
  grep -E '^test result: ' "$1" | grep -v '^test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered' || true
  awk '/^test result: /{passed += $4; failed += $6} END {printf "in all: %d passed, %d failed\n", passed, failed}' "$1"
  if [ -z "${BAO:-}" ]; then
    echo "OpenBao was not there (BAO is not set and no \`bao\` is on PATH): nothing was compared with it"
  fi
}

lint() {
  bootstrap lint
  cargo fmt --all --check
  cargo fmt --all --check --manifest-path guests/Cargo.toml
  # The server embeds the components: without them it does not even type-check.
  guests
  cargo xtask guests --check-reproducible
  cargo clippy --workspace --all-targets -- -D warnings
  cargo clippy --manifest-path guests/Cargo.toml --workspace --all-targets -- -D warnings
  local example
  for example in $(examples); do
    cargo fmt --check --manifest-path "$example/Cargo.toml"
    cargo clippy --manifest-path "$example/Cargo.toml" --all-targets -- -D warnings
  done
  cargo xtask check-tree
  for manifest in Cargo.toml guests/Cargo.toml; do
    cargo deny --manifest-path "$manifest" --config "$PWD/.deny.toml" check --hide-inclusion-graph licenses bans sources
  done
  advisories
  echo "make lint: passed"
}

# Known vulnerabilities. The database is a git repository that cargo-deny fetches; without a network, the copy of an
# earlier run serves.
advisories() {
  local manifest
  if ! cargo deny --config "$PWD/.deny.toml" fetch db >/dev/null 2>&1 \
    && ! compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/crates" >/dev/null; then
    echo "make lint: advisories were NOT checked: there is no advisory database here and it could not be fetched"
    return
  fi
  for manifest in Cargo.toml guests/Cargo.toml; do
    cargo deny --offline --manifest-path "$manifest" --config "$PWD/.deny.toml" check --hide-inclusion-graph advisories
  done
}

build() {
  bootstrap
  guests --release
  cargo build --release --package leasehold-server --bin leasehold
  echo "target/release/leasehold"
}

bench() {
  bootstrap
  guests
  modules
  cargo build --release --package leasehold-server
  if [ -z "${BAO:-}" ] && BAO=$(command -v bao); then export BAO; fi
  # The store is measured by itself.
  [ -n "${STORES:-}${SCALE:-}${NODES:-}${ENTITIES:-}${KEYS:-}" ] || cargo bench --package leasehold-sandbox
  if [ -n "${SCALE:-}" ]; then
    cargo build --profile dev --package leasehold-storage --example fill
    export FILL="${CARGO_TARGET_DIR:-$PWD/target}/debug/examples/fill"
  fi
  # The clients need no second optimised build of everything: what is measured is target/release/leasehold.
  cargo bench --profile dev --package leasehold-tests --bench whole
}

# Changes the code in small ways and looks whether the crate's own tests notice. Takes hours as a whole: SHARD=K/N runs the
# K-th of N parts, the first being 0/N.
mutants() {
  bootstrap mutants
  local shard=${SHARD:-0/1} caught=0
  cargo mutants --dir . --package leasehold-core --test-package leasehold-core --sharding round-robin --shard "$shard" --output target/mutants/core || caught=$?
  cargo mutants --dir guests --package leasehold-acl --test-package leasehold-acl --sharding round-robin --shard "$shard" --output target/mutants/acl || caught=$?
  echo "what was missed stands in target/mutants/*/mutants.out/missed.txt"
  return "$caught"
}

# Histories of three servers from seeds: HISTORIES of them, from LEASEHOLD_SEED on. A failure prints its history and its seed.
fuzz() {
  bootstrap
  LEASEHOLD_HISTORIES=${HISTORIES:-1000000} cargo test \
    --config 'profile.dev.package.leasehold-core.opt-level=2' \
    --config 'profile.dev.package.leasehold-storage.opt-level=2' \
    --package leasehold-core --test simulation -- --nocapture whatever_befalls
}

torture() {
  bootstrap
  guests
  cargo build --release --package leasehold-server
  cargo bench --profile dev --package leasehold-tests --bench torture
}

# MINUTES of faults (30), by the plan of SEED, over STORE: one, synchronous or asynchronous.
chaos() {
  bootstrap chaos
  guests --release
  cargo build --release --package leasehold-server
  export LEASEHOLD_PATRONI=${LEASEHOLD_PATRONI:-$PWD/target/tools/patroni/bin/patroni}
  cargo bench --profile dev --package leasehold-tests --bench chaos
}

task=${1:?demo, test, bench, torture, chaos, fuzz, lint, build or mutants}
shift
case $task in
  demo | bench | torture | chaos | fuzz | lint | build | mutants) "$task" "$@" ;;
  test) run_tests ;;
  *) echo "unknown step: $task" >&2; exit 2 ;;
esac
