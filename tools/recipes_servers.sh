#!/bin/sh
# recipes_servers.sh: install the servers that tests/recipes starts, from Debian's
# packages, where they are missing. As root. None of them is started here, and no
# database is made: the tests do that by themselves, in temporary directories.
set -eu

missing=
need() { # need PROGRAM PACKAGE...: PROGRAM is a path or a name, * may stand in it
    program=$1
    shift
    for path in $program; do
        [ -x "$path" ] && return
    done
    command -v "$program" >/dev/null 2>&1 || missing="$missing $*"
}
need redis-server redis-server
need /usr/sbin/mariadbd mariadb-server-core
need my_print_defaults mariadb-client-core # for mariadb-install-db
need '/usr/lib/postgresql/*/bin/initdb' postgresql
need openssl openssl
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || {
    echo "recipes_servers.sh: no apt-get here; missing:$missing" >&2
    exit 1
}
echo "recipes_servers.sh: installing$missing"

# Packages start their servers unless a policy forbids it, and PostgreSQL's makes a database.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
log=$(mktemp)
# shellcheck disable=SC2086
if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    -o Dpkg::Options::=--force-confold $missing; } >"$log" 2>&1; then
    tail -n 20 "$log"
    echo "recipes_servers.sh: apt-get could not install$missing; see $log" >&2
    exit 1
fi
rm -f "$log"
