# Ends a private PostgreSQL and removes its directory ($1) when the owner, who holds the other end of standard input, is
# gone: after an orderly stop (the owner said `stopped`), and just as well after SIGKILL.
directory=$1
trap '' HUP INT QUIT TERM
said=
while read -r word; do said=$word; done

# Is process $1 still the server of our directory? A process id may have been given to somebody else, and a zombie has
# no command line.
ours() {
  if [ -d /proc/self ]; then
    line=$(tr '\0' ' ' <"/proc/$1/cmdline")
  else
    line=$(ps -o command= -p "$1")
  fi 2>/dev/null
  case $line in *"$directory"*) return 0 ;; *) return 1 ;; esac
}

end_server() {
  pid=$(head -n 1 "$directory/data/postmaster.pid" 2>/dev/null)
  case $pid in '' | *[!0-9]*) return ;; esac
  ours "$pid" || return
  # A paused server cannot obey: wake its sessions, then the server.
  kill -CONT $(cat "/proc/$pid/task/$pid/children" 2>/dev/null) "$pid" 2>/dev/null
  kill -QUIT "$pid" 2>/dev/null
  tries=0
  while ours "$pid" && [ "$tries" -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
  done
  kill -KILL "$pid" 2>/dev/null
}

if [ "$said" != stopped ]; then
  end_server
  # The owner may have died between starting the server and the server's writing of its process id.
  [ -d "$directory/data" ] && sleep 1 && end_server
fi
rm -rf -- "$directory" || { sleep 1 && rm -rf -- "$directory"; }
