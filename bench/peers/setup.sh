#!/bin/bash
# Sets up what we are measured against and the load generators:
#   - wrk (HTTP load), h2load (gRPC load) and a C++ compiler, from Debian's packages, unless they are on PATH already;
#   - Triton Inference Server 2.51 (its C++ front ends, CPU), taken out of the pip package nvidia-pytriton;
#   - for Triton, an identity back end in C, compiled here.
# All but the Debian packages lies in one folder, bench/.peers in the checkout. Running it again does only what is missing.
#
#   setup.sh [--without-triton] [FOLDER]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
triton=yes
if [ "${1:-}" = --without-triton ]; then
  triton=no
  shift
fi
folder=${1:-$here/../.peers}
mkdir -p "$folder"
cd "$folder"

say() { echo "peers: $*" >&2; }

install_load_generators() {
  local missing=()
  command -v wrk >/dev/null || missing+=(wrk)
  command -v h2load >/dev/null || missing+=(nghttp2-client)
  command -v g++ >/dev/null || missing+=(g++)
  [ ${#missing[@]} -gt 0 ] || return 0
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  say "installing ${missing[*]} with apt-get"
  "${root[@]}" apt-get -qq update
  "${root[@]}" apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

unpack_triton() {
  [ ! -x triton/bin/tritonserver ] || return 0
  say "downloading nvidia-pytriton 0.7.0 with pip and taking Triton out of it"
  rm -rf download unpacked triton triton-libs
  [ -x venv/bin/pip ] || python3 -m venv venv
  venv/bin/pip -q download --no-deps -d download nvidia-pytriton==0.7.0
  python3 -m zipfile -e download/nvidia_pytriton-0.7.0*.whl unpacked
  chmod +x unpacked/pytriton/tritonserver/bin/tritonserver
  [ ! -d unpacked/nvidia_pytriton.libs ] || mv unpacked/nvidia_pytriton.libs triton-libs
  mv unpacked/pytriton/tritonserver triton
  rm -rf download unpacked
}

compile_identity_backend() {
  local library=backends/identity_c/libtriton_identity_c.so
  [ ! "$library" -nt "$here/identity_backend.c" ] || return 0
  say "compiling Triton's identity back end"
  mkdir -p backends/identity_c
  gcc -std=gnu11 -O2 -Wall -Wextra -shared -fPIC -o "$library" "$here/identity_backend.c"
}

install_load_generators
if [ $triton = yes ]; then
  unpack_triton
  compile_identity_backend
fi
say "ready in $(pwd)"
