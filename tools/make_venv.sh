#!/bin/sh
# make_venv.sh PYTHON DIR: make the virtual environment DIR that can build gort.
# Say what is missing on this machine instead of failing in the middle.
set -eu
python=$1 dir=$2

die() {
    echo "gort: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || die "no $python here; name an interpreter: make PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$python is $("$python" -V 2>&1); 3.11 or later is needed: make PYTHON=/path/to/python3"
command -v "${CC:-cc}" >/dev/null || die "no C compiler here (Debian, Ubuntu: apt-get install gcc)"
header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[ -e "$header" ] || die "$header is missing (Debian, Ubuntu: apt-get install python3-dev)"

rm -rf "$dir"
if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$dir"
elif "$python" -m virtualenv --version >/dev/null 2>&1; then
    "$python" -m virtualenv --quiet "$dir"
else
    die "$python has neither venv with pip nor virtualenv (Debian, Ubuntu: apt-get install python3-venv)"
fi
# The build requirements of pyproject.toml, once, so that rebuilding needs no isolated environment.
"$dir/bin/python" -m pip --disable-pip-version-check install -qq --upgrade pip "setuptools>=77" "Cython>=3.1"
