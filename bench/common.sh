# shellcheck shell=bash
# What the comparisons with pgBackRest share: a pgbench database, `dr` and pgBackRest beside each other,
# and a measure of wall time, processor time and memory.
#
# Everything lies in $DR_BENCH_DIRECTORY (target/bench unless set), which has to be on the disk that is to
# be measured, and runs on loopback as one ordinary user. The database is kept from one command to the next.
# What is measured is built with the release profile, or taken from $DR_BENCH_BINARIES.
# Both compress with zstd level 1 in two threads or processes, verify page checksums, hash what they store
# and check the hash when they restore, and synchronise everything they write.

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

bench=${DR_BENCH_DIRECTORY:-$target/bench}
run=$bench/run
results=$run/results

# ---- Programs -------------------------------------------------------------------------------------

# Brings what is needed and builds; $@ are more binaries than `dr`. Sets `pgbackrest` and `programs`.
bring_programs() {
    local environment binary binaries
    need_rust
    environment=$(scripts/packages --print-env bench)
    eval "$environment"
    pgbackrest=${DR_PGBACKREST:-$(command -v pgbackrest)}
    programs=${DR_POSTGRES_BIN:-$(for d in /usr/lib/postgresql/*/bin; do echo "$d"; done | sort -V | tail -n 1)}
    # One choice of packages for all comparisons, so that each crate is built once.
    binaries=${DR_BENCH_BINARIES:-$target/release}
    [[ -n ${DR_BENCH_BINARIES:-} ]] ||
        cargo build --release --quiet --package dr-cli --package dr-s3-testing --bin dr --bin dr-s3-server
    stop_leftovers
    rm -rf "$run"
    mkdir -p "$run/log"
    chmod 755 "$bench" "$run"
    for binary in dr "$@"; do install -m 755 "$binaries/$binary" "$run/$binary"; done
    dr=$run/dr
    : >"$results"
    as=(env "HOME=$run")
    if ((EUID == 0)); then
        as=(setpriv --reuid=postgres --regid=postgres --clear-groups "${as[@]}")
        own "$bench" "$run" "$run/log"
    fi
    "${as[@]}" test -x "$run/dr" || die "the user postgres cannot reach $run" \
        "Set DR_BENCH_DIRECTORY to a directory that others may enter."
}

# Gives files to the user that everything runs as.
own() {
    if ((EUID == 0)); then chown -h postgres: "$@"; fi
}

# Prints a port of loopback that nobody listens on.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# ---- What runs ------------------------------------------------------------------------------------

processes=()

# Starts a program in the background, with its output in a log of the name $1; sets `started`.
start() {
    local name=$1
    shift
    "${as[@]}" "$@" >"$run/log/$name" 2>&1 &
    started=$!
    processes+=("$started")
}

finish() {
    local process
    for process in "${processes[@]}"; do kill "$process" 2>/dev/null || true; done
    for process in "${processes[@]}"; do wait "$process" 2>/dev/null || true; done
    stop_leftovers
    rm -rf "$run"
}
trap finish EXIT

# Stops a server that an earlier run left behind, or this one.
stop_leftovers() {
    local data
    for data in "$bench"/data-*; do
        if [[ -e $data/postmaster.pid ]]; then
            "${as[@]}" "$programs/pg_ctl" --pgdata "$data" --silent --wait --mode immediate stop || true
        fi
    done
}

sql() {
    "${as[@]}" "$programs/psql" --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 \
        --host 127.0.0.1 --port "$port" --username postgres --dbname bench "$@"
}

# Starts the server on a pgbench database of scale $1, which is made unless it is there; $2 is appended to its
# configuration. Sets `data` and `port`.
start_database() {
    local scale=$1 more=${2:-} major pgbench
    major=$("$programs/postgres" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
    data=$bench/data-$major
    port=$(free_port)
    pgbench=$programs/pgbench
    [[ -x $pgbench ]] || pgbench=$(command -v pgbench)
    if [[ $(cat "$data.scale" 2>/dev/null) != "$scale" ]]; then
        rm -rf "$data" "$data.scale"
        mkdir -m 700 -p "$data"
        own "$data"
        "${as[@]}" "$programs/initdb" --pgdata "$data" --username postgres --auth trust --data-checksums --locale C \
            --encoding UTF8 --no-sync >/dev/null
    fi
    cat >"$data/postgresql.auto.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$run'
shared_buffers = 512MB
max_wal_size = 2GB
checkpoint_timeout = 1h
wal_level = replica
max_slot_wal_keep_size = 8GB
autovacuum = off
archive_mode = on
archive_command = '/bin/true'
$more
CONF
    own "$data/postgresql.auto.conf"
    "${as[@]}" "$programs/pg_ctl" --pgdata "$data" --silent --wait --log "$run/log/postgresql" start >/dev/null
    if [[ ! -e $data.scale ]]; then
        say "makes a pgbench database of scale $scale"
        "${as[@]}" "$programs/psql" --no-psqlrc --quiet --host 127.0.0.1 --port "$port" --username postgres \
            --command 'create database bench' postgres
        "${as[@]}" "$pgbench" --initialize --quiet --fillfactor 90 --scale "$scale" --host 127.0.0.1 \
            --port "$port" --username postgres bench >"$run/log/pgbench" 2>&1
        sql --command 'checkpoint'
        echo "$scale" >"$data.scale"
    fi
    # Slots of an earlier run hold back its log.
    sql --command 'select pg_drop_replication_slot(slot_name) from pg_replication_slots' >/dev/null
}

# Writes the configuration of `dr` and starts its daemons: $1 is the store of the primary's region, $2 how backups are
# taken. Sets `worker`, the daemon that takes them. The other region's is needed for the first epoch alone.
start_dr() {
    local store=$1 backup=$2 west
    export DR_CONFIG=$run/config
    as+=("DR_CONFIG=$DR_CONFIG" "DR_POSTGRES_BIN=$programs")
    mkdir -p "$run/config/schedules" "$run/east" "$run/west"
    cat >"$run/config/dr.yaml" <<CONF
version: 1
organization: Bench
regions:
  us-east-1:
    store: $store
    daemon: { listen: "127.0.0.1:$(free_port)", state_directory: $run/east/state }
  us-west-2:
    store: $run/west/store
    daemon: { listen: "127.0.0.1:$(free_port)", state_directory: $run/west/state }
workloads:
  bench:
    objectives: { rpo: 1m, rto: 10m }
    home: us-east-1
    recovery: [us-west-2]
    resources:
      database:
        kind: postgres
        user: postgres
        database: bench
        backup: $backup
        regions:
          us-east-1: { host: local, port: $port, data_directory: $data }
          us-west-2: { host: local, port: $((port + 1)), data_directory: $run/west/data, standby: none }
CONF
    cat >"$run/config/schedules/bench.yaml" <<CONF
version: 1
timezone: UTC
jobs:
  wal:      { job: ship-wal,      resource: bench/database, in: all,     continuous: true }
  snapshot: { job: take-snapshot, resource: bench/database, in: primary, cron: "0 0 1 1 *" }
CONF
    own "$run"/config{,/schedules,/dr.yaml,/schedules/bench.yaml} "$run/east" "$run/west"
    start west "$dr" daemon --region us-west-2
    west=$started
    start east "$dr" daemon --region us-east-1
    worker=$started
    say "waits for the first recovery point"
    until "${as[@]}" "$dr" recovery-point list --json 2>/dev/null | grep -q '"label"'; do
        kill -0 "$worker" "$west" || die "a daemon has ended" "$(tail -n 20 "$run/log/east" "$run/log/west")"
        read -rt 0.5 -u "$never" || true
    done
    kill "$west"
    wait "$west" || true
}

# Makes pgBackRest's repository, and has the server archive into it. $1 is what stands in its configuration beside.
start_pgbackrest() {
    local more=${1:-}
    local block=''
    if at_least "$("$pgbackrest" version | sed 's/^[^0-9]*//')" 2.46; then block='repo1-block=y'; fi
    mkdir -p "$run/rival"
    cat >"$run/pgbackrest.conf" <<CONF
[global]
repo1-path=$run/rival
repo1-bundle=y
$block
$more
repo1-retention-full=1000
expire-auto=n
compress-type=zst
compress-level=1
process-max=2
start-fast=y
log-path=$run/log
lock-path=$run/log
spool-path=$run/log
log-level-console=warn
log-level-file=off
[bench]
pg1-path=$data
pg1-port=$port
pg1-socket-path=$run
pg1-user=postgres
pg1-database=bench
CONF
    own "$run/rival" "$run/pgbackrest.conf"
    rival=("$pgbackrest" "--config=$run/pgbackrest.conf" --stanza=bench)
    "${as[@]}" "${rival[@]}" stanza-create
    sql --command "alter system set archive_command = '${rival[*]} archive-push %p'" \
        --command 'select pg_reload_conf()' >/dev/null
}

# ---- What is done, by each ------------------------------------------------------------------------

backup_dr() { measure "$1" "$worker" "$dr" job run snapshot --region us-east-1 --json; }
backup_pgbackrest() { measure "$1" - "${rival[@]}" "--type=$2" backup; }

# $2… choose what is restored.
restore_dr() {
    local name=$1
    shift
    measure "$name" - "$dr" restore bench/database --in us-east-1 --into "$run/restored" "$@"
    rm -rf "$run/restored"
}
restore_pgbackrest() {
    mkdir -m 700 "$run/restored"
    own "$run/restored"
    measure "$1" - "${rival[@]}" restore "--pg1-path=$run/restored"
    rm -rf "$run/restored"
}

# Changes 1 % of the pages, chosen at random: each by one row, which the page has room for.
change_pages() {
    sql --command "
        update pgbench_accounts set abalance = abalance + 1
        from (select distinct 1 + floor(random() * rows.n)::int as id
              from (select max(aid) as n from pgbench_accounts) rows,
                   generate_series(1, (select relpages / 100 from pg_class where relname = 'pgbench_accounts'))) chosen
        where aid = chosen.id"
}

# Runs both, in turn first: $1 is the number of the run, $2 and $3 the two commands.
in_turn() {
    if (($1 % 2)); then
        $2
        $3
    else
        $3
        $2
    fi
}

# Prints a value of the last answer of measure $1.
answer() { sed -n "s/^ *\"$2\": \"\\{0,1\\}\\([^\",]*\\).*/\\1/p" "$run/log/$1.out" | head -n 1; }

# Reads files into memory, so that both find them there.
warm() { find "$@" -type f -exec cat {} + >/dev/null; }

# Prints what lies below a directory, in MB.
size_of() { du --summarize --bytes "$1" | awk '{ printf "%.2f", $1 / 1e6 }'; }

# ---- Measuring ------------------------------------------------------------------------------------

# Nothing ever comes from it: a pause that starts no process.
exec {never}<> <(:)

# Prints the processor seconds that process $1 has used.
processor_of() { awk -v tick="$(getconf CLK_TCK)" '{ sub(/^.*\) /, ""); printf "%.2f", ($12 + $13) / tick }' "/proc/$1/stat"; }

# Sets `memory` to what all processes of session $1 have, in KiB, each page counted once.
memory_of_session() {
    local stat line fields key value
    memory=0
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        read -ra fields <<<"${line##*) }"
        [[ ${fields[3]:-} == "$1" ]] || continue
        # It may have ended meanwhile.
        while read -r key value _; do
            if [[ $key == Pss: ]]; then
                memory=$((memory + value))
                break
            fi
        done <"${stat%stat}smaps_rollup" || true
    done 2>/dev/null
}

# measure NAME DAEMON COMMAND…: runs the command and adds `NAME wall processor memory` to the results, in seconds,
# seconds and MiB. Counted are all of the command's processes and DAEMON, which works for it; `-` for none.
# Memory is the most seen every 100 ms, a daemon's the most that it ever had meanwhile.
measure() {
    local name=$1 daemon=$2 peak=0 status=0 before=0 after=0 began ended command memory children
    shift 2
    sync
    if [[ $daemon != - ]]; then
        echo 5 >"/proc/$daemon/clear_refs"
        before=$(processor_of "$daemon")
    fi
    began=$EPOCHREALTIME
    (
        setsid "${as[@]}" "$@" >"$run/log/$name.out" 2>"$run/log/$name.err" </dev/null &
        echo $! >"$run/log/$name.pid"
        status=0
        wait $! || status=$?
        times >"$run/log/$name.times"
        exit "$status"
    ) &
    command=$!
    until [[ -s $run/log/$name.pid ]]; do :; done
    while kill -0 "$command" 2>/dev/null; do
        memory_of_session "$(<"$run/log/$name.pid")"
        if ((memory > peak)); then peak=$memory; fi
        read -rt 0.1 -u "$never" || true
    done
    wait "$command" || status=$?
    ended=$EPOCHREALTIME
    rm "$run/log/$name.pid"
    if ((status)); then
        tail -n 20 "$run/log/$name.err" "$run/log/$name.out" "$run/log/east" >&2
        die "\`$*\` ended with $status"
    fi
    if [[ $daemon != - ]]; then
        after=$(processor_of "$daemon")
        memory=$(awk '/^VmHWM:/ { print $2 }' "/proc/$daemon/status")
        peak=$((peak + memory))
    fi
    children=$(awk 'NR == 2 { for (i = 1; i <= 2; i++) { split($i, t, "[ms]"); s += t[1] * 60 + t[2] } print s }' \
        "$run/log/$name.times")
    awk -v name="$name" -v wall="$began $ended" -v processor="$before $after" -v children="$children" -v peak="$peak" \
        'BEGIN {
            split(wall, w, " "); split(processor, p, " ")
            printf "%s %.2f %.2f %.0f\n", name, w[2] - w[1], children + p[2] - p[1], peak / 1024
        }' | tee -a "$results" >&2
}

# Adds a figure to the results that is no measure of time: NAME VALUE.
note() { echo "$1 $2" | tee -a "$results" >&2; }

# Prints median and worst of column $2 (2 wall or the only one, 3 processor, 4 memory) of the results of name $1.
median_and_worst() {
    awk -v n="$1" -v c="$2" '$1 == n { print $c }' "$results" | sort -g |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)], v[NR] }'
}

# Prints who was measured, where, and on what. $1 is the number of runs; the others are versions.
about() {
    local size runs=$1
    size=$(sql --command "select round(sum(pg_database_size(oid)) / 1e9, 2) from pg_database")
    shift
    printf '%s; ' "$@"
    echo "$("$dr" --version); $("$programs/postgres" --version)"
    echo "$(uname -sr), $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1))," \
        "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB; database of $size GB; median and worst of $runs runs"
}

# Prints the head of a table that compares $1 with $2.
columns() {
    echo
    printf '%-28s %12s %12s %12s %12s %-4s %6s %8s\n' measure "$1" worst "$2" worst unit ratio 'at most'
}

# Prints a row of the table: what, the column, ours, theirs, the unit, and the ratio that is aimed at.
compare() {
    # shellcheck disable=SC2046  # two words each
    set -- "$@" $(median_and_worst "$3" "$2") $(median_and_worst "$4" "$2")
    awk -v what="$1" -v unit="$5" -v most="$6" -v o="$7" -v ow="$8" -v t="$9" -v tw="${10}" \
        'BEGIN { printf "%-28s %12.2f %12.2f %12.2f %12.2f %-4s %6.2f %8s\n", what, o, ow, t, tw, unit, t ? o / t : 0, most }'
}
