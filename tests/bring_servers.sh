#!/bin/sh
# Brings real servers into target/servers/bin: the programs named as arguments, or those that the
# tests talk to. Debian packages are downloaded and unpacked there: nothing is installed and no
# service is started. What is on PATH already is linked instead.
#
# Where neither is possible it says what to install and succeeds: the tests that need a server then
# skip with a notice, or fail if CI=true.
set -eu

[ $# -gt 0 ] || set -- prometheus promtool prometheus-alertmanager prometheus-node-exporter

root=$(cd "$(dirname "$0")/.." && pwd)
servers=${CARGO_TARGET_DIR:-$root/target}/servers
mkdir -p "$servers/bin"
servers=$(cd "$servers" && pwd)
bin=$servers/bin

# The programs among those asked for that are not there.
missing() {
    for program in "$@"; do
        [ -x "$bin/$program" ] || echo "$program"
    done
}

# The Debian packages of programs.
packages() {
    for program in "$@"; do
        case $program in
            promtool) echo prometheus ;;
            *) echo "$program" ;;
        esac
    done | sort -u
}

# Downloads each package by itself, so that one that is gone does not cost the others.
download() {
    failed=
    for package in "$@"; do
        apt-get download -q "$package" || failed="$failed $package"
    done
    [ -z "$failed" ]
}

for program in "$@"; do
    if [ ! -x "$bin/$program" ] && found=$(command -v "$program"); then
        ln -sf "$found" "$bin/$program"
    fi
done
set -- $(missing "$@")
[ $# -gt 0 ] || exit 0

if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    work=$(mktemp -d "$servers/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    cd "$work"
    wanted=$(packages "$@")
    # Lists that are not there, or so old that they name packages that are gone, are refreshed once.
    if ! download $wanted && [ "$(id -u)" = 0 ]; then
        apt-get update -q || true
        download $wanted || true
    fi
    for package in *.deb; do
        [ -e "$package" ] && dpkg-deb -x "$package" "$work/unpacked"
    done
    for program in "$@"; do
        if [ -x "$work/unpacked/usr/bin/$program" ]; then
            cp "$work/unpacked/usr/bin/$program" "$work/$program"
            mv "$work/$program" "$bin/$program"
        fi
    done
    # Debian's Alertmanager reads its templates from a fixed folder. Where it was not installed that
    # folder is missing, so the copy is moved: it reads them from its working directory instead
    # (a path of the same length, as it stands in a binary).
    share=/usr/share/prometheus/alertmanager
    if [ -d "$work/unpacked$share" ]; then
        here=$(printf %s "$share" | sed 's#..#./#g')
        LC_ALL=C sed "s#$share#$here#g" "$bin/prometheus-alertmanager" > "$work/moved"
        chmod +x "$work/moved"
        mv "$work/moved" "$bin/prometheus-alertmanager"
        rm -rf "$servers/alertmanager"
        cp -r "$work/unpacked$share" "$servers/alertmanager"
    fi
fi

set -- $(missing "$@")
if [ $# -gt 0 ]; then
    echo "tests/bring_servers.sh: could not be brought: $*" >&2
    echo "Install the Debian packages" $(packages "$@") "or put these programs on PATH." >&2
    echo "Until then what needs them is skipped with a notice; with CI=true tests fail." >&2
fi
