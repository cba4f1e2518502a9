#!/usr/bin/env bash
# Drives the real window with real keys and clicks on a virtual display, and checks what it writes and draws.
#
#   tests/end_to_end.sh [--data PATH] [--soak MINUTES] [--shots FOLDER] [BOXWRIGHT]
#
# BOXWRIGHT is the program: the argument, or $BOXWRIGHT, or target/release/boxwright. PATH is a data set with annotated
# objects and two images or more; a small built-in one without it. Screenshots stay in FOLDER, where one is named.
# --soak repeats actions for so long and fails when the memory in use grows by more than a quarter after the first
# quarter of the time. Exits with 0 when all is well, 1 when a check failed, 2 when something needed is missing.
# Debian: apt-get install xvfb xdotool imagemagick mesa-vulkan-drivers libxkbcommon-x11-0
set -uo pipefail

usage() { echo "usage: end_to_end.sh [--data PATH] [--soak MINUTES] [--shots FOLDER] [BOXWRIGHT]" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
data=shapes:train=24,val=12,test=12 soak=0 shots='' program=${BOXWRIGHT:-$here/target/release/boxwright}
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=${2:-}; shift 2 || usage ;;
    --soak) soak=${2:-}; shift 2 || usage ;;
    --shots) shots=${2:-}; shift 2 || usage ;;
    -*) usage ;;
    *) program=$1; shift ;;
  esac
done
[[ $soak =~ ^[0-9]+$ && -n $data ]] || usage
missing=()
for tool in Xvfb xdotool import compare identify; do command -v "$tool" >/dev/null || missing+=("$tool"); done
[ -x "$program" ] || missing+=("$program (build it with cargo build --release, or name it)")
[ ${#missing[@]} = 0 ] || { printf 'missing: %s\n' "${missing[@]}" >&2; exit 2; }
program=$(realpath "$program")
[ -e "$data" ] && data=$(realpath "$data")

work=$(mktemp -d) pid='' display=''
cleanup() {
  for child in $pid $display; do kill "$child" 2>/dev/null; done
  wait 2>/dev/null
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
mkdir -p "$work"/{home,run,bin,out} && chmod 700 "$work/run"
[ -n "$shots" ] || shots=$work/shots
mkdir -p "$shots" && shots=$(realpath "$shots")
log=$work/log failures=0

pass() { printf 'ok    %s\n' "$1"; }
fail() { printf 'FAIL  %s\n' "$1"; failures=$((failures + 1)); }
check() { local what=$1; shift; if "$@" >/dev/null 2>&1; then pass "$what"; else fail "$what"; fi; }
alive() { kill -0 "$pid" 2>/dev/null; }
healthy() { alive && ! grep -Eiq 'panicked|validation error|wgpu error|device lost|out of memory|GL_INVALID' "$log"; }
give_up() { fail "$1"; alive || { wait "$pid"; echo "it ended with status $?"; }; tail -n 20 "$log" >&2; exit 1; }
# within SECONDS COMMAND…: waits for the command to succeed. The pointer moves, so that the window draws.
within() {
  local last=$((SECONDS + $1)) x=700; shift
  while ! "$@" 2>/dev/null; do
    alive && [ $SECONDS -lt $last ] || return 1
    x=$((1401 - x)); xdotool mousemove $x 12; sleep 0.5
  done
}
key() { local name; for name; do xdotool key "$name"; sleep 0.3; done; }
click() { xdotool mousemove "$1" "$2"; sleep 0.3; xdotool click 1; sleep 0.7; }
# Starts an action by its name in the palette.
act() { key ctrl+p; sleep 0.4; xdotool type --delay 30 "$1"; sleep 0.5; key Return; sleep 0.7; }
panel() { act "Panel: $1"; }
shot() { xdotool mousemove 700 12; sleep 1; import -window root "$shots/$1.png"; }
colours() { [ "$(identify -format %k "$shots/$1.png")" -gt 50 ]; }
# Whether two screenshots differ in more than a few pixels.
differ() {
  local count; count=$(compare -metric AE "$shots/$1.png" "$shots/$2.png" null: 2>&1)
  awk -v n="${count%% *}" 'BEGIN { exit !(n > 500) }'
}
# written FILE COMMAND…: the command opens a file dialog that answers FILE; waits until it is there.
written() { local file=$work/out/$1; shift; rm -f "$file"; echo "$file" >"$work/answer"; "$@"; within 30 test -s "$file"; }
# What the panel used last shows, as a table.
table() { written "$1" key ctrl+e; }
steps() { table losses.csv && [ "$(grep -c '^loss,' "$work/out/losses.csv")" -ge "$1" ]; }
memory() { awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status"; }

# Without a desktop's file dialogs the program asks zenity: this one answers at once.
printf '#!/bin/sh\ncat "%s" 2>/dev/null\n' "$work/answer" >"$work/bin/zenity"
chmod +x "$work/bin/zenity"
Xvfb -displayfd 3 -screen 0 1440x900x24 -nolisten tcp 3>"$work/display" >/dev/null 2>&1 &
display=$!
for _ in $(seq 50); do [ -s "$work/display" ] && break; sleep 0.2; done
[ -s "$work/display" ] || { echo "no virtual display" >&2; exit 2; }
export DISPLAY=:$(<"$work/display") HOME=$work/home XDG_CONFIG_HOME=$work/home/.config XDG_RUNTIME_DIR=$work/run
export PATH=$work/bin:$PATH NO_COLOR=1 DBUS_SESSION_BUS_ADDRESS=unix:path=$work/none
unset WAYLAND_DISPLAY WAYLAND_SOCKET
# Mesa's software Vulkan keeps memory of every frame, its OpenGL does not: only there does memory say something.
[ "$soak" = 0 ] || export WGPU_BACKEND=${WGPU_BACKEND:-gl}
cd "$work" || exit 2
"$program" --verbose "$data" >"$log" 2>&1 &
pid=$!

for _ in $(seq 300); do grep -q 'first detections' "$log" && break; alive || break; sleep 0.4; done
grep -q 'first detections' "$log" || give_up "the window shows detections"
grep -E '^first (frame|detections)' "$log"
window=$(xdotool search --onlyvisible --name '^Boxwright$' | tail -n 1)
[ -n "$window" ] || give_up "there is a window called Boxwright"
xdotool windowfocus "$window"
sleep 1
start_memory=$(memory)
echo "memory at the start: $start_memory MiB"

shot 1-start; check "the window is not one flat colour" colours 1-start
panel Image
check "Ctrl+E writes the picture's boxes" table first.csv
key Right; sleep 2; shot 2-next; check "the next image looks different" differ 1-start 2-next
table second.csv; check "the next image has other boxes" test -n "$(diff "$work/out/first.csv" "$work/out/second.csv")"
key Left; sleep 2
table back.csv; check "the way back leads to the same boxes" diff "$work/out/first.csv" "$work/out/back.csv"
key bracketright bracketright
check "two score keys make 0.40 to 0.50" within 20 grep -Eq '"score": 0\.(5|49)' home/.config/boxwright/settings.json
key bracketleft bracketleft g; shot 3-no-truth; check "G hides the ground truth" differ 1-start 3-no-truth
key g question; shot 4-keys; check "? shows the keys" differ 1-start 4-keys
key Escape

click 1094 249 # “write the run to runs/…” in the Step panel
panel Losses
key period
check "the Step key begins a run and writes its metrics" within 120 eval 'grep -q . runs/*/metrics.jsonl'
key period; key period
check "three steps make three points of the loss" within 120 steps 3
shot 5-losses; check "the curves are drawn" differ 1-start 5-losses
panel Suppression; sleep 2; shot 6-suppression; check "the Suppression panel comes up" differ 5-losses 6-suppression
panel Image

act "Evaluate on the open data"
echo "$work/out/results.json" >"$work/answer"
saved() { act "Save COCO results"; sleep 1; test -s "$work/out/results.json"; }
check "an evaluation ends and its results are saved" within 300 saved
key Escape # what failed while there was nothing to save
shot 7-numbers
panel Evaluation
click 463 684 # “Precision and recall”
shot 8-curves; check "a click opens the curves" differ 7-numbers 8-curves
check "the page on show has precision and recall" table curves.csv
check "its table is that of the curves" grep -q '^class,iou,score,precision,recall' "$work/out/curves.csv"
for name in Log Features Compare Runs Anchors Data Model; do panel $name; sleep 1; shot "9-$name"; done
check "panels differ" differ 9-Log 9-Features

soak_round() {
  local name
  key Right Right Left
  panel Losses; key period
  act "Evaluate on the open data"
  for name in Evaluation Features Runs Compare Image Anchors Suppression Step; do panel $name; done
  key bracketright bracketleft g g h h
}
if [ "$soak" -gt 0 ]; then
  # A run keeps its last states to step back to: let them all be there first.
  panel Losses
  for count in 13 23; do key shift+period; check "Shift+Period takes ten steps" within 180 steps $count; done
  began=$SECONDS end=$((SECONDS + soak * 60)) next=$SECONDS base='' rounds=0
  echo "seconds MiB rounds"
  while [ $SECONDS -lt $end ] && healthy; do
    soak_round; rounds=$((rounds + 1))
    [ $SECONDS -ge $next ] || continue
    echo "$((SECONDS - began)) $(memory) $rounds"; next=$((SECONDS + 20))
    # The first value after a quarter of the time is what later ones are held against.
    [ -z "$base" ] && [ $((SECONDS - began)) -ge $((soak * 15)) ] && base=$(memory)
  done
  last=$(memory); shot soak-end; colours soak-end || fail "the window is one flat colour after the soak"
  base=${base:-$start_memory} last=${last:-0}
  check "memory stays within a quarter of $base MiB (now $last MiB)" test "$last" -gt 0 -a $((last * 4)) -le $((base * 5))
fi

panel Log; sleep 1
echo "$work/out/log.csv" >"$work/answer"
click 1052 615 # Export at the right of the lower tabs
click 1052 640 # its first entry; the ending of the name decides
check "the log is written by the Export menu" within 20 test -s "$work/out/log.csv"
cp "$work/out/"{log,losses,curves}.csv "$log" "$shots" 2>/dev/null
# “results”: asked for before the evaluation had ended.
errors=$(grep '^error,' "$work/out/log.csv" 2>/dev/null | grep -v '^error,results,')
if [ -z "$errors" ]; then pass "the program's log has no other error"; else fail "the program's log: $errors"; fi
check "it lives, and there is no validation error or panic" healthy
alive || { wait "$pid"; echo "it ended with status $?"; }
alive && echo "memory at the end: $(memory) MiB"
[ $failures = 0 ] && echo "all is well" || { echo "$failures checks failed"; exit 1; }
