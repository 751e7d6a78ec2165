#!/usr/bin/env bash
# Installs the Debian packages that building, testing and the demo need. Says which; does nothing when all are there.
# usage: deps.sh [arm64]       arm64: also the cross compiler, qemu-user and the libraries of Debian's arm64 port
set -eu
say() { echo "deps: $*" >&2; }
packages="gcc libc6-dev make pkg-config python3 python3-venv python3-pip ca-certificates
  libgrpc-dev libprotobuf-c-dev protobuf-c-compiler liblmdb-dev libsodium-dev libmbedtls-dev
  libcurl4-openssl-dev libmicrohttpd-dev libjansson-dev libzstd-dev liblzma-dev libssl-dev libcmocka-dev
  openssl valgrind"
if [ "${1:-}" = arm64 ]; then
  packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    libgrpc-dev:arm64 libprotobuf-c-dev:arm64 liblmdb-dev:arm64 libsodium-dev:arm64 libmbedtls-dev:arm64
    libcurl4-openssl-dev:arm64 libmicrohttpd-dev:arm64 libjansson-dev:arm64 libzstd-dev:arm64 liblzma-dev:arm64
    libssl-dev:arm64 libcmocka-dev:arm64"
fi

command -v dpkg-query >/dev/null || { say "not a Debian system; install by hand: $(echo $packages)"; exit 1; }
have=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}:${Architecture}\n' 2>/dev/null | sed -n 's/^ii *//p')
native=$(dpkg --print-architecture)
missing=
for p in $packages; do
  case $p in *:*) name=$p ;; *) name=$p:$native ;; esac
  echo "$have" | grep -qxE "${name//./\\.}|${p%%:*}:all" || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

say "installing:$missing"
sudo=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { say "needs root: run 'apt-get install$missing' as root, then this again"; exit 1; }
  sudo=sudo
fi
export DEBIAN_FRONTEND=noninteractive
case "$missing" in *:arm64*) $sudo dpkg --add-architecture arm64 ;; esac
log=$(mktemp)
if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
  tail -5 "$log" >&2
  say "apt-get could not install them"
  exit 1
fi
rm -f "$log"
