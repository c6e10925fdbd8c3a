# shellcheck shell=bash

# Helper functions of the kind test: timed steps, queries of the cluster, and collecting data after
# a failure.

CLUSTER=${CLUSTER:-gaocache-test}
REPLICAS=${REPLICAS:-3}
KEEP_ON_FAILURE=${KEEP_ON_FAILURE:-}
OUT=${OUT:-target/kind-test}
RELEASE=cache NS=gaocache NAME=cache-gaocache
# The name under which the nodes find each other, and the beginning of their keys in etcd.
SERVICE=$NS.$NAME
# The chart's replicasKeptBy, and what upgrades have changed.
KEPT_BY=autoscaler
CHANGED=()
# The worker that stands still, if one does.
FROZEN=""
export KUBECONFIG=$PWD/$OUT/kubeconfig

TABLE=() CASES=() STEP="" STARTED=$SECONDS

say() { printf '%4d s  %s\n' $((SECONDS - STARTED)) "$*"; }
note() { TABLE+=("$1|$2|${3:-}"); say "   $1: $2${3:+ (goal $3)}"; }
fail() { echo "FAILED in '$STEP': $*" >&2; exit 1; }
now_ms() { date +%s%3N; }

# step NAME FUNCTION: one step of the test. No get of the load may fail during it.
step() {
  local began=$SECONDS before
  STEP=$1
  say "== $1"
  before=$(failed_gets)
  "$2"
  local failed=$(($(failed_gets) - before))
  note "$1: failed gets" "$failed" 0
  [ "$failed" = 0 ] || fail "$failed gets failed: $(load_stats)"
  CASES+=("<testcase classname=\"kind\" name=\"$1\" time=\"$((SECONDS - began))\"/>")
}

k() { kubectl -n "$NS" "$@"; }
raw() { kubectl get --raw "/api/v1/namespaces/$NS/pods/$1/proxy/$2"; }
load_stats() { raw demo-load:8001 stats 2>/dev/null || echo '{"failed":0}'; }
failed_gets() { load_stats | jq .failed; }
origin_counts() {
  local pod
  # Skip a terminating pod: it has its own counts.
  pod=$(k get pods -l app=demo-origin -o json | jq -r '[.items[] | select(.metadata.deletionTimestamp == null)][0].metadata.name')
  raw "$pod:8000" counts
}
origin_loads() { origin_counts | jq .loads; }

# Gets every key once, so that the origin sees a load for every entry that the cache lost.
sweep() {
  local failed
  failed=$(raw demo-load:8001 sweep | jq .failed) || fail "the sweep was aborted"
  [ "$failed" = 0 ] || fail "$failed gets of the sweep failed: $(load_stats)"
}
origin_watched() { LOADS_BEFORE=$(origin_loads); }
origin_noticed() { # origin_noticed WHAT MAX: loads since origin_watched, after a get of every key
  local loads
  sweep
  loads=$(($(origin_loads) - LOADS_BEFORE))
  note "$1: origin loads (of $KEYS keys)" "$loads" "$2"
  [ "$loads" -le "$2" ] || fail "$1 cost the origin $loads loads"
}

# The pods that exist and are not terminating, as the ring should contain them: "id address" lines.
pods() {
  k get pods -l app.kubernetes.io/component=node -o json |
    jq -r '.items[] | select(.metadata.deletionTimestamp == null) | "\(.metadata.name) \(.status.podIP):7070"' | sort
}

pod_names() { pods | cut -d' ' -f1; }

# Whether every pod's ring consists of exactly the existing pods, all of them serving, and all rings
# have the same revision and fingerprint.
rings_agree() { # rings_agree COUNT
  local expected pod ring seen="" these
  expected=$(pods)
  [ "$(wc -l <<<"$expected")" = "$1" ] || return 1
  for pod in $(pod_names); do
    ring=$(raw "$pod:9090" ring 2>/dev/null) || return 1
    these=$(jq -r '.members[] | select(.state == "serving") | "\(.id) \(.address)"' <<<"$ring" | sort)
    [ "$these" = "$expected" ] || return 1
    [ "$(jq '.members | length' <<<"$ring")" = "$1" ] || return 1
    seen+="$(jq -r '"\(.revision) \(.fingerprint)"' <<<"$ring")"$'\n'
  done
  [ "$(printf %s "$seen" | sort -u | wc -l)" = 1 ]
}

# until_agreed COUNT SECONDS WHAT: waits until all rings agree, and records how long that takes.
# SECONDS is the goal; the test fails after three times that.
until_agreed() {
  local began took
  began=$(now_ms)
  until rings_agree "$1"; do
    took=$(($(now_ms) - began))
    [ "$took" -lt $(($2 * 3000)) ] || fail "$3: no agreement on $1 within $(($2 * 3)) s"
    sleep 0.2
  done
  took=$(($(now_ms) - began))
  note "$3: every ring agrees after" "$((took / 1000)).$(printf %03d $((took % 1000))) s" "$2 s"
}

until_scaled() { # waits until the StatefulSet has that number of ready pods
  local bound=$((SECONDS + 120))
  until [ "$(k get "statefulset/$NAME" -o jsonpath='{.spec.replicas} {.status.readyReplicas}')" = "$1 $1" ]; do
    [ $SECONDS -lt $bound ] || fail "the autoscaler did not set $1 nodes: $(k describe hpa)"
    sleep 0.2
  done
}

rolled_out() { k rollout status "statefulset/$1" --timeout=240s >/dev/null || fail "$1 did not roll out"; }
pods_gone() { # waits until at most COUNT pods are left, including terminating ones
  local bound=$((SECONDS + 120))
  until [ "$(k get pods -l app.kubernetes.io/component=node --no-headers 2>/dev/null | wc -l)" -le "$1" ]; do
    [ $SECONDS -lt $bound ] || fail "pods do not terminate"
    sleep 0.2
  done
}

install_or_upgrade() { # the chart with the test's values and further arguments
  helm upgrade --install "$RELEASE" charts/gaocache -n "$NS" -f tests/kind/values.yaml --set "replicas=$REPLICAS" --set "replicasKeptBy=$KEPT_BY" "${CHANGED[@]}" --wait --timeout 4m "$@" >/dev/null
}

collect() { # collects everything that may explain the failure in one directory
  local pod
  # If something can't be collected, collect the rest anyway.
  set +e
  mkdir -p "$OUT/failure"
  k get all,pvc,pdb,events -o wide >"$OUT/failure/objects.txt" 2>&1
  for pod in $(k get pods -o name 2>/dev/null); do
    k logs "$pod" --all-containers --prefix >"$OUT/failure/${pod#pod/}.log" 2>&1
    k logs "$pod" --all-containers --previous >"$OUT/failure/${pod#pod/}.previous.log" 2>/dev/null
    raw "${pod#pod/}:9090" ring >"$OUT/failure/${pod#pod/}.ring.json" 2>/dev/null
  done
  k exec "$NAME-etcd-0" -- etcdctl get --prefix "$SERVICE/" >"$OUT/failure/etcd-keys.txt" 2>&1
  load_stats >"$OUT/failure/load.json" 2>&1
  echo "diagnostics are in $OUT/failure" >&2
}

junit() { # junit FAILED
  {
    echo "<testsuite name=\"kind\" tests=\"$((${#CASES[@]} + $1))\" failures=\"$1\">"
    [ ${#CASES[@]} = 0 ] || printf '%s\n' "${CASES[@]}"
    [ "$1" = 0 ] || echo "<testcase classname=\"kind\" name=\"$STEP\"><failure/></testcase>"
    echo "</testsuite>"
  } >"$OUT/junit.xml"
}

table() {
  echo
  printf '%-70s %-14s %s\n' what figure goal
  local row
  for row in "${TABLE[@]}"; do
    IFS='|' read -r what figure goal <<<"$row"
    printf '%-70s %-14s %s\n' "$what" "$figure" "$goal"
  done
}

finish() {
  local status=$?
  trap - EXIT
  [ -z "$FROZEN" ] || docker unpause "$FROZEN" >/dev/null
  if [ "$status" = 0 ]; then junit 0; else junit 1; collect; fi
  [ ${#TABLE[@]} = 0 ] || table
  if [ "$status" = 0 ] || [ -z "$KEEP_ON_FAILURE" ]; then
    kind delete cluster --name "$CLUSTER" >/dev/null 2>&1
  else
    echo "kept: KUBECONFIG=$KUBECONFIG, cluster $CLUSTER"
  fi
  echo "${#CASES[@]} passed, $([ "$status" = 0 ] && echo 0 || echo 1) failed"
  exit "$status"
}
