#!/usr/bin/env bash
# A container engine and base images for a machine that has neither an engine nor a registry: BASES=debian.
#
#   debian_bases.sh WORK      as root on Debian 12, x86-64, where Debian's packages can be had
#
# The engine is Debian's Podman with runc (crun 1.8 refuses machines with mixed control groups). It gets a configuration
# and a storage of its own in WORK, so that another Podman's images and containers stay out of its sight. The images that
# the Dockerfile and docker-compose.yml name are made of Debian's packages and get those names: Valkey of Debian 13,
# HAProxy and Prometheus of Debian 12, and a Python laid out as in `python:*-slim`. They stand in for the real ones, in
# nearly the same versions; remove WORK to have them made anew. Not among them: Grafana, which Debian does not have.
set -euo pipefail
ROOT=$(realpath "$(dirname "$0")/..")
WORK=$(realpath -m "$1")
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
BIN=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

say() { printf '%s %s\n' "$(date +%T)" "$*"; }
fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

install_engine() {
  local needed=(podman buildah runc conmon netavark aardvark-dns iptables catatonit mmdebstrap binutils ca-certificates)
  dpkg-query --show "${needed[@]}" >/dev/null 2>&1 && return
  say "packages"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update --quiet=2
  apt-get install --quiet=2 --yes --no-install-recommends "${needed[@]}" >"$WORK/logs/apt.log" 2>&1 ||
    fail "Debian's packages could not be installed, see $WORK/logs/apt.log: is a mirror configured?"
}

configure_engine() {
  # Limits that root may set without CAP_SYS_RESOURCE too.
  cat >"$WORK/conf/containers.conf" <<END
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=8192:8192"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[network]
network_backend = "netavark"
END
  cat >"$WORK/conf/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$WORK/storage"
runroot = "$WORK/run"
END
  export CONTAINERS_CONF=$WORK/conf/containers.conf CONTAINERS_STORAGE_CONF=$WORK/conf/storage.conf
}

# As slim as official images: no manuals, translations or documents but licences. /usr is merged beforehand, because
# the package that would do it brings all of Perl.
SLIM=(--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright'
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*'
  --dpkgopt='path-exclude=/usr/share/info/*' --hook-directory=/usr/share/mmdebstrap/hooks/merged-usr)
root_of() { # root_of NAME SUITE PACKAGE,…: a root file system in WORK/roots/NAME
  rm -rf "roots/$1"
  mkdir -p "roots/$1"
  mmdebstrap --quiet --variant=minbase "${SLIM[@]}" --include="$3" "$2" - 2>"logs/$1.log" |
    tar --extract --directory "roots/$1" --exclude='./dev/*' || fail "$1 could not be made, see $WORK/logs/$1.log"
}

image_of() { # image_of NAME TAG CHANGE…
  local name=$1 tag=$2 changes=() change
  shift 2
  for change; do changes+=(--change "$change"); done
  tar --create --directory "roots/$name" . | podman import --quiet "${changes[@]}" - "docker.io/$tag" >/dev/null
  rm -rf "roots/$name"
}

entrypoint_of() { install -m 755 /dev/stdin "roots/$1/usr/local/bin/docker-entrypoint.sh"; }

# The interpreter that runs here, in /usr/local, over the libraries that it was built with.
make_python() {
  local prefix version
  prefix=$(python3 -c 'import sys; print(sys.base_prefix)')
  version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  test "$prefix" != /usr || fail "python3 has to be one with a prefix of its own (pyenv's, or made from source): it is copied into the base image."
  root_of python bookworm ca-certificates,netbase,tzdata,libbz2-1.0,libffi8,liblzma5,libreadline8,libsqlite3-0,libssl3,zlib1g,libncursesw6,libgdbm6,libuuid1,libexpat1
  local into=roots/python/usr/local
  mkdir -p "$into/lib" roots/python/etc/uv
  cp -a "$prefix/include" "$into/"
  find "$prefix/lib" -maxdepth 1 -name 'libpython3*.so*' -exec cp -a -t "$into/lib" {} +
  tar --create --directory "$prefix/lib" --exclude=site-packages --exclude=__pycache__ --exclude=test --exclude=idlelib \
    --exclude='*.a' "python$version" | tar --extract --directory "$into/lib"
  cp "$prefix/bin/python$version" "$into/bin/"
  ln -sf "python$version" "$into/bin/python3"
  ln -sf python3 "$into/bin/python"
  mkdir -p "$into/lib/python$version/site-packages"
  chroot roots/python /sbin/ldconfig
  chroot roots/python /usr/local/bin/python3 -m ensurepip >logs/ensurepip.log 2>&1
  ln -sf pip3 "$into/bin/pip"
  find "$into" -name __pycache__ -prune -exec rm -rf {} +
  find "$into" -type f \( -name '*.so*' -o -name "python$version" \) -exec strip --strip-unneeded {} +
  # The authorities that this machine trusts: a registry in between may have one of its own.
  cp -L "$CERTIFICATES" "roots/python$CERTIFICATES"
  printf '[global]\ncert = %s\n' "$CERTIFICATES" >roots/python/etc/pip.conf
  echo 'system-certs = true' >roots/python/etc/uv/uv.toml
  image_of python "library/$PYTHON_IMAGE" "ENV PATH=$BIN" 'ENV LANG=C.UTF-8' 'CMD ["python3"]'
}

make_valkey() {
  root_of valkey trixie valkey-server,valkey-tools
  entrypoint_of valkey <<'END'
#!/bin/sh
set -e
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- valkey-server "$@"; fi
exec "$@"
END
  install -d -o "$(chroot roots/valkey id -u valkey)" -g "$(chroot roots/valkey id -g valkey)" roots/valkey/data
  image_of valkey "$(tag_of valkey)" "ENV PATH=$BIN" 'ENTRYPOINT ["docker-entrypoint.sh"]' 'WORKDIR /data' \
    'CMD ["valkey-server"]'
}

make_haproxy() {
  root_of haproxy bookworm haproxy,busybox
  entrypoint_of haproxy <<'END'
#!/bin/sh
set -e
if [ "${1#-}" != "$1" ]; then set -- haproxy "$@"; fi
if [ "$1" = haproxy ]; then shift; set -- haproxy -W -db "$@"; fi
exec "$@"
END
  ln -sf /bin/busybox roots/haproxy/usr/local/bin/wget
  ln -sf /bin/busybox roots/haproxy/usr/local/bin/nc
  image_of haproxy "library/$(tag_of haproxy)" "ENV PATH=$BIN" 'ENTRYPOINT ["docker-entrypoint.sh"]' 'USER haproxy' \
    'STOPSIGNAL SIGUSR1' 'WORKDIR /var/lib/haproxy'
}

make_prometheus() {
  root_of prometheus bookworm prometheus,busybox
  ln -sf /bin/busybox roots/prometheus/usr/local/bin/wget
  install -d -o 65534 -g 65534 roots/prometheus/prometheus
  image_of prometheus "$(tag_of prometheus)" "ENV PATH=$BIN" 'ENTRYPOINT ["/usr/bin/prometheus"]' 'USER nobody' \
    'WORKDIR /prometheus'
}

tag_of() { sed -n 's/^ *image: *\([^$]*\)$/\1/p' "$ROOT/docker-compose.yml" | grep -m 1 "$1"; }

# shellcheck source=/dev/null
. /etc/os-release
test "$(id -u)" = 0 || fail "BASES=debian makes root file systems: it needs root."
test "$ID $VERSION_ID $(uname -m)" = "debian 12 x86_64" || fail "BASES=debian is for Debian 12 on x86-64, and this is $PRETTY_NAME."
PYTHON_IMAGE=$(sed -n 's/^ARG PYTHON_IMAGE=//p' "$ROOT/deploy/Dockerfile")
case "$PYTHON_IMAGE $(tag_of valkey) $(tag_of haproxy) $(tag_of prometheus)" in
*@sha256:*) fail "Images are pinned by digest, which nothing made here can have: take an engine with a registry." ;;
esac

mkdir -p "$WORK/conf" "$WORK/logs"
cd "$WORK"
install_engine
configure_engine
make_unless_there() { # make_unless_there TAG NAME
  if ! podman image exists "docker.io/$1"; then
    say "base image of $2"
    "make_$2"
  fi
}
make_unless_there "library/$PYTHON_IMAGE" python
make_unless_there "$(tag_of valkey)" valkey
make_unless_there "library/$(tag_of haproxy)" haproxy
make_unless_there "$(tag_of prometheus)" prometheus
