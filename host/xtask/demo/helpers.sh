# What both demos use; sourced by demo.sh. Shows commands and answers, checks them, and takes everything down at the end.

# ---- showing and checking -------------------------------------------------------------------------------------------

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' cyan=$'\e[36m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' cyan='' plain=''
fi

checked=0 persona='' status=0 out='' fifo_open='' work='' servers=() postgresql='' devpg_open=''

chapter() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '%s# %s%s\n' "$dim" "$*" "$plain"; }

# Shows a command as one would type it, runs it, shows its answer. Leaves $out (stdout and stderr) and $status.
run() {
  local word line=''
  for word in "$@"; do
    case $word in
      *[\"\$\`\\!]*) line+=" '${word//\'/\'\\\'\'}'" ;;
      *\'*) line+=" \"$word\"" ;;
      '' | *[!A-Za-z0-9_./:=,@%+-]*) line+=" '$word'" ;;
      *) line+=" $word" ;;
    esac
  done
  printf '%s%s$%s%s\n' "$cyan" "$persona" "$plain" "$line"
  out=$("$@" 2>&1 </dev/null)
  status=$?
  [ -z "$out" ] || printf '%s\n' "$out" | sed 's/^/    /'
}

# Shows a file that is made on the way.
file() {
  cat >"$1"
  printf '%s%s$%s cat %s\n' "$cyan" "$persona" "$plain" "$1"
  sed 's/^/    /' "$1"
}

# check TEXT COMMAND…: the command must succeed.
check() {
  local text=$1
  shift
  if "$@"; then
    checked=$((checked + 1))
    printf '    %sok%s  %s\n' "$green" "$plain" "$text"
  else
    printf '    %sNOT SO%s  %s\n' "$red" "$plain" "$text"
    give_up
  fi
}

give_up() {
  local log
  for log in "$work"/server*.log; do
    [ -s "$log" ] || continue
    echo "The end of the server's log ($(basename "$log")):" >&2
    tail -n 20 "$log" >&2
  done
  exit 1
}

succeeded() { [ "$status" -eq 0 ]; }
failed() { [ "$status" -ne 0 ]; }
has() { case $out in *"$1"*) ;; *) return 1 ;; esac; }
lacks() { ! has "$1"; }

# eventually TEXT SECONDS COMMAND…: the command must succeed within the limit; shows that time passes.
eventually() {
  local text=$1 limit=$2 begun=$SECONDS told=0 past
  shift 2
  until "$@"; do
    past=$((SECONDS - begun))
    if [ "$past" -ge "$limit" ]; then
      [ ! -t 1 ] || printf '\r\e[K'
      check "$text, within $limit s" false
    fi
    if [ "$past" -ge 2 ] && [ "$past" -gt "$told" ]; then
      told=$past
      if [ -t 1 ]; then
        printf '\r\e[K    %s… %s s%s' "$dim" "$past" "$plain"
      elif [ $((past % 5)) -eq 0 ]; then
        printf '    … %s s\n' "$past"
      fi
    fi
    sleep 0.2
  done
  [ ! -t 1 ] || printf '\r\e[K'
  check "$text" true
}

# The value of a text field in JSON, enough for the ids and names that are looked for here.
json_text() { printf '%s\n' "$out" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }
json_number() { printf '%s\n' "$out" | sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" | head -n 1; }
# The value of a row in the command line's table.
row() { printf '%s\n' "$out" | awk -v key="$1" '$1 == key {print $2; exit}'; }

# audited PATH PART: shows a part of the last audit line about a path.
audited() {
  printf '%s%s$%s grep %s audit.log | tail -n 1\n' "$cyan" "$persona" "$plain" "$1"
  out=$(grep -F "\"path\":\"database/$1" "$work/audit.log" | tail -n 1 | grep -o "$2")
  printf '%s\n' "$out" | sed 's/^/    … /; s/$/ …/'
}

# ---- PostgreSQL, looked at from outside -----------------------------------------------------------------------------

sql() { psql -X -At -v ON_ERROR_STOP=1 -c "$1" "$superuser" 2>&1 </dev/null; }
role_exists() { [ "$(sql "SELECT count(*) FROM pg_roles WHERE rolname = '$1'")" = 1 ]; }
role_is_gone() { [ "$(sql "SELECT count(*) FROM pg_roles WHERE rolname = '$1'")" = 0 ]; }
leased_roles() { sql "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'"; }
no_leased_role() { [ "$(leased_roles)" = 0 ]; }
valid_until() { sql "SELECT extract(epoch FROM rolvaliduntil)::bigint FROM pg_roles WHERE rolname = '$1'"; }
login_url() { printf 'postgresql://%s:%s@%s' "$1" "$2" "$pg_place"; }
logs_in() { psql -X -At -c 'SELECT 1' "$(login_url "$1" "$2")" >/dev/null 2>&1 </dev/null; }
cannot_log_in() { ! logs_in "$@"; }

# ---- what was started, and its end -------------------------------------------------------------------------------------

alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
dead() { ! alive "$1"; }

# Waits for a process of ours; takes it down the hard way after 15 s.
end_of() {
  local tries=0
  while alive "$1" && [ "$tries" -lt 150 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  if alive "$1"; then kill -KILL "$1" 2>/dev/null; fi
  wait "$1" 2>/dev/null
}

clean_up() {
  local result=$? tries=0 server
  trap - EXIT
  trap '' INT TERM HUP
  [ -z "$fifo_open" ] || exec 7>&-
  for server in ${servers[@]+"${servers[@]}"}; do kill -TERM "$server" 2>/dev/null; done
  for server in ${servers[@]+"${servers[@]}"}; do end_of "$server"; done
  # PostgreSQL's keeper stops it, and removes its files, when its standard input ends.
  [ -z "$devpg_open" ] || exec 8>&-
  [ -z "$postgresql" ] || end_of "$postgresql"
  while [ -n "${pg_data:-}" ] && [ -e "$pg_data" ] && [ "$tries" -lt 150 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  if [ -n "${pg_data:-}" ] && [ -e "$pg_data" ]; then
    echo "demo: $pg_data is still there" >&2
    result=1
  fi
  [ -z "$work" ] || rm -rf -- "$work"
  [ "${#servers[@]}" = 0 ] || echo "Leasehold and PostgreSQL are stopped, their files are removed."
  exit "$result"
}
trap clean_up EXIT
# Ctrl-C is how a demo that stays up is meant to end.
up=''
trap '[ -n "$up" ] && exit 0; exit 130' INT
trap '[ -n "$up" ] && exit 0; exit 143' TERM HUP
