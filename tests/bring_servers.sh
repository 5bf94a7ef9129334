#!/bin/sh
# Brings the real servers that the tests talk to (Prometheus, promtool, Alertmanager, node_exporter)
# into target/servers/bin. Debian packages are downloaded and unpacked there: nothing is installed
# and no service is started. What is on PATH already is linked instead.
#
# Where neither is possible it says what to install and succeeds: the tests that need a server then
# skip with a notice, or fail if CI=true.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
servers=${CARGO_TARGET_DIR:-$root/target}/servers
bin=$servers/bin
programs="prometheus promtool prometheus-alertmanager prometheus-node-exporter"
packages="prometheus prometheus-alertmanager prometheus-node-exporter"

missing() {
    for program in $programs; do
        [ -x "$bin/$program" ] || { echo "$program"; return; }
    done
}

mkdir -p "$bin"
for program in $programs; do
    if [ ! -x "$bin/$program" ] && found=$(command -v "$program"); then
        ln -sf "$found" "$bin/$program"
    fi
done
[ -n "$(missing)" ] || exit 0

if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    work=$(mktemp -d "$servers/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    if ! apt-cache show $packages >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
        apt-get update -q || true
    fi
    # Old lists name packages that are gone: refresh them once and try again.
    if ! apt-get download -q $packages && [ "$(id -u)" = 0 ]; then
        apt-get update -q || true
        apt-get download -q $packages || true
    fi
    for package in *.deb; do
        [ -e "$package" ] && dpkg-deb -x "$package" "$work/unpacked"
    done
    for program in $programs; do
        if [ ! -x "$bin/$program" ] && [ -x "$work/unpacked/usr/bin/$program" ]; then
            cp "$work/unpacked/usr/bin/$program" "$bin/$program"
        fi
    done
    # Debian's Alertmanager reads its templates from a fixed folder. Where it was not installed that
    # folder is missing, so the copy is moved: it reads them from its working directory instead
    # (a path of the same length, as it stands in a binary).
    share=/usr/share/prometheus/alertmanager
    if [ -d "$work/unpacked$share" ] && [ ! -d "$servers/alertmanager" ]; then
        here=$(printf %s "$share" | sed 's#..#./#g')
        LC_ALL=C sed "s#$share#$here#g" "$bin/prometheus-alertmanager" > "$work/moved"
        chmod +x "$work/moved"
        mv "$work/moved" "$bin/prometheus-alertmanager"
        cp -r "$work/unpacked$share" "$servers/alertmanager"
    fi
fi

if [ -n "$(missing)" ]; then
    echo "tests/bring_servers.sh: $(missing) could not be brought." >&2
    echo "Install Debian's packages $packages (or put these programs on PATH): $programs" >&2
    echo "Until then the tests with real servers skip; with CI=true they fail." >&2
fi
