#!/usr/bin/env bash
# sid_python.sh [DIR]: run the pytest suite on Debian sid's python3.14 and
# python3.15, in a chroot at DIR (build/sid-chroot) that is made if it is not there.
#
# Needs root and some 800 MB; made in under a minute. Mounts live in a mount
# namespace of their own, so nothing stays mounted, however this ends.
# SID_PYTHONS="3.14 3.15" names the interpreters, ARGS what pytest is given,
# SID_COMMAND what is run instead of pytest, in /src inside the chroot.
set -euo pipefail
cd "$(dirname "$0")/.."
chroot=$(realpath -m "${1:-build/sid-chroot}")
pythons=${SID_PYTHONS:-3.14 3.15}

die() { echo "sid_python.sh: $1" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "debootstrap and chroot need root"

if ! command -v debootstrap >/dev/null; then
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap ||
        die "apt-get could not install debootstrap"
fi

if [ ! -e "$chroot/.gort-complete" ]; then
    # The mirror apt uses here; debootstrap's own default where there is none.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        grep -v security | head -n 1 || true)
    packages=ca-certificates,gcc,libc6-dev,make
    for v in $pythons; do packages+=,python$v-dev,python$v-venv; done
    echo "sid_python.sh: making $chroot"
    mkdir -p "$chroot"
    debootstrap --variant=minbase --include="$packages" sid "$chroot" ${mirror:+"$mirror"} >"$chroot.log" 2>&1 ||
        { tail -n 20 "$chroot.log" >&2; die "debootstrap failed; all it said is in $chroot.log"; }
    touch "$chroot/.gort-complete"
fi

# The network as the host has it: names, certificates, pip's settings. Settings
# that name files of the host are left out, the certificates apart.
cp -L /etc/resolv.conf /etc/hosts "$chroot/etc/"
if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    cp -L /etc/ssl/certs/ca-certificates.crt "$chroot/etc/ssl/certs/ca-certificates.crt"
fi
: >"$chroot/etc/pip.conf"
python3 - "$chroot/etc/pip.conf" <<'PY'
import configparser, os, subprocess, sys

keep = configparser.ConfigParser(interpolation=None)
keep["global"] = {"disable-pip-version-check": "true", "root-user-action": "ignore"}
listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
for line in listing.splitlines():
    name, _, value = line.partition("=")
    option = name.rsplit(".", 1)[-1]
    values = [v for v in value.strip("'\"").split() if not (v.startswith(("/", "file:")))]
    if option in ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries") and values:
        keep["global"][option] = " ".join(values)
keep["global"]["cert"] = "/etc/ssl/certs/ca-certificates.crt"
with open(sys.argv[1], "w") as f:
    keep.write(f)
PY

# The tree as it stands, without what builds left in it.
rm -rf "$chroot/src" && mkdir "$chroot/src"
tar -c --exclude=./.git --exclude=./build --exclude='./.venv*' --exclude='*.so' --exclude=__pycache__ . |
    tar -x -C "$chroot/src"

carried=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
    TERM="${TERM:-dumb}" ARGS="${ARGS:-}" SID_COMMAND="${SID_COMMAND:-}" PYTHONS="$pythons")
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY GORT_WERROR GORT_DEBUG_BUILD \
    GORT_STRESS_SCALE; do
    [ -z "${!name:-}" ] || carried+=("$name=${!name}")
done

inside='
cd /src
for v in $PYTHONS; do
    echo "== $(python$v -V) in the sid chroot"
    if [ -n "$SID_COMMAND" ]; then
        PYTHON=python$v VENV=/src/.venv-$v bash -c "$SID_COMMAND"
    else
        make --no-print-directory pytest PYTHON=python$v VENV=/src/.venv-$v ARGS="$ARGS"
    fi
done'
export chroot inside
exec unshare --mount --propagation private bash -euc '
    mount -t proc proc "$chroot/proc"
    mount --bind /dev "$chroot/dev"
    mount -t tmpfs tmpfs "$chroot/dev/shm"
    exec chroot "$chroot" env -i "$@" bash -euc "$inside"
' -- "${carried[@]}"
