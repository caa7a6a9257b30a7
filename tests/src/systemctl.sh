#!/bin/bash
# The part of systemctl and journalctl that the guides in deploy/ use, for a machine of a test (machine.rs), where no systemd runs.
#
#   systemctl daemon-reload | enable [--now] UNIT… | disable [--now] UNIT… | start | stop | restart | reload | is-active UNIT…
#   systemctl kill -s SIGNAL UNIT…
#   journalctl -u UNIT
#
# It reads the unit and its drop-ins: from /etc/systemd/system, from deploy/, and from the packages of the system. Of a unit it knows
# Environment, EnvironmentFile, ExecStartPre, ExecStart, ExecReload, User, DynamicUser, StateDirectory, RuntimeDirectory, and Type=oneshot.
# It restarts nothing.
set -euo pipefail
mkdir -p /run/services

unit_file() {
  local folder
  for folder in /etc/systemd/system "$GUIDE_UNITS" /usr/lib/systemd/system /lib/systemd/system; do
    if [ -f "$folder/$1.service" ]; then echo "$folder/$1.service"; return; fi
  done
  echo "no unit $1" >&2
  return 5
}

# Prints the values of a key, those of the drop-ins last.
values() {
  local file
  file=$(unit_file "$1")
  { cat "$file" /etc/systemd/system/"$1".service.d/*.conf 2>/dev/null || true; } | sed -n "s/^$2=//p"
}

# Succeeds if the main process of the unit runs.
is_active() {
  local pid
  pid=$(cat "/run/services/$1.pid" 2>/dev/null) || return 3
  grep -qs '^State:.[^ZX]' "/proc/$pid/status" || return 3
}

# Prints the process and its children.
family() {
  echo "$1"
  cat "/proc/$1/task/$1/children" 2>/dev/null || true
}

start() (
  is_active "$1" && return
  # Each line is one or more assignments, quoted or not.
  while IFS= read -r assignment; do export "${assignment?}"; done < <(values "$1" Environment | xargs -r -n 1 printf '%s\n')
  for file in $(values "$1" EnvironmentFile | sed 's/^-//'); do
    if [ -f "$file" ]; then
      while IFS= read -r assignment; do export "${assignment?}"; done < <(grep -v '^ *\(#\|$\)' "$file" || true)
    fi
  done
  user=$(values "$1" User | tail -n 1)
  if [ -z "$user" ] && [ "$(values "$1" DynamicUser | tail -n 1)" = yes ]; then
    user=nobody
    if id "$1" >/dev/null 2>&1; then user=$1; fi
  fi
  user=${user:-root}
  for folder in $(values "$1" StateDirectory | sed 's,^,/var/lib/,') $(values "$1" RuntimeDirectory | sed 's,^,/run/,'); do
    mkdir -p "$folder"
    chown "$user" "$folder"
  done
  # A unit of deploy/ is installed in one folder, and the program under test is in another one: PATH decides.
  local_path() { sed -E 's,^[-+!]*,,; s,^/usr/(local/)?s?bin/(standin-),\2,'; }
  values "$1" ExecStartPre | local_path | while read -r command; do bash -c "$command"; done
  command=$(values "$1" ExecStart | tail -n 1 | local_path)
  if [ "$(values "$1" Type | tail -n 1)" = oneshot ]; then bash -c "$command"; return; fi
  as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups)
  if [ "$user" = root ]; then as=(); fi
  setsid "${as[@]}" bash -c "exec $command" </dev/null >>"/run/services/$1.log" 2>&1 &
  pid=$!
  echo "$pid" >"/run/services/$1.pid"
  # As with Type=notify: the unit is started when it listens. A program that does not listen is started after a moment.
  for _ in $(seq 100); do
    is_active "$1" || { cat "/run/services/$1.log" >&2; return 1; }
    for one in $(family "$pid"); do
      if ss -Hltnp | grep "pid=$one," >/dev/null; then return; fi
    done
    if [ "$1" = standin-announce ]; then return; fi
    sleep 0.05
  done
)

stop() {
  local pid
  is_active "$1" || return 0
  pid=$(cat "/run/services/$1.pid")
  kill -TERM "$pid"
  for _ in $(seq 900); do
    is_active "$1" || return 0
    sleep 0.05
  done
  kill -KILL "$pid"
}

reload() {
  local MAINPID
  is_active "$1"
  MAINPID=$(cat "/run/services/$1.pid")
  export MAINPID
  values "$1" ExecReload | sed -E 's,^/usr/(local/)?s?bin/(standin-),\2,' | while read -r command; do bash -c "$command"; done
}

if [ "$(basename "$0")" = journalctl ]; then
  cat "/run/services/$2.log"
  exit
fi

verb=$1
shift
now=no signal=TERM units=()
while [ $# -gt 0 ]; do
  case $1 in
    --now) now=yes ;;
    -s) signal=$2; shift ;;
    *) units+=("$1") ;;
  esac
  shift
done
for unit in "${units[@]}"; do
  case $verb in
    start) start "$unit" ;;
    stop) stop "$unit" ;;
    restart) stop "$unit"; start "$unit" ;;
    reload) reload "$unit" ;;
    is-active) is_active "$unit" && echo active ;;
    kill) kill -s "$signal" "$(cat "/run/services/$unit.pid")" ;;
    enable) unit_file "$unit" >/dev/null; if [ "$now" = yes ]; then start "$unit"; fi ;;
    disable) if [ "$now" = yes ]; then stop "$unit"; fi ;;
    *) echo "this systemctl does not know $verb" >&2; exit 1 ;;
  esac
done
