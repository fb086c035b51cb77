#!/usr/bin/env bash
# Thousands of real documents, chunked by a flow and kept up to date, on a throw-away server.
# DEMO_DOCUMENTS=5000 is how many at most.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
limit=${DEMO_DOCUMENTS:-5000}
enough=$((limit < 3000 ? limit : 3000))

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
cleanup() {
  "$ROOT/scripts/cluster.sh" stop "$work/pg" || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
chmod 755 "$work"   # the server's user passes through

# The kernel's documentation, from Debian's package, unpacked into the checkout: needs no root.
# Prints the directory; false when it cannot be had.
kernel_documentation() {
  local corpus="$ROOT/.tools/corpus" package
  if [ ! -d "$corpus" ]; then
    have apt-get && have dpkg-deb || return 1
    mkdir "$work/deb"
    # linux-doc only depends on the one of the current kernel.
    package=$(apt-cache depends linux-doc 2>/dev/null | sed -n 's/^ *Depends: \(linux-doc-[0-9.]*\)$/\1/p')
    if [ -z "$package" ]; then
      as_root apt-get update >&2 || return 1
      package=$(apt-cache depends linux-doc | sed -n 's/^ *Depends: \(linux-doc-[0-9.]*\)$/\1/p')
    fi
    say "fetching ${package:-linux-doc} for its documents"
    (cd "$work/deb" && apt-get download -q "${package:-linux-doc}" >&2) || return 1
    mkdir "$work/corpus"
    dpkg-deb --fsys-tarfile "$work"/deb/*.deb |
      tar -x -C "$work/corpus" --wildcards '*/Documentation/*' || return 1
    mkdir -p "$ROOT/.tools"
    mv "$work/corpus" "$corpus"
  fi
  echo "$corpus"
}

corpus() { python3 "$ROOT/examples/demo/corpus.py" "$limit" "$@" >"$work/documents"; }

say "looking for documents"
own=(/usr/share/doc /usr/share/perl /usr/share/perl5)
corpus "${own[@]}"
if [ "$(wc -l <"$work/documents")" -lt "$enough" ]; then
  if kernel=$(kernel_documentation); then
    corpus "$kernel" "${own[@]}"
  else
    say "this machine has fewer than $enough documents, and linux-doc cannot be fetched: going on with those"
  fi
fi
[ "$(wc -l <"$work/documents")" -ge 100 ] || die "there are too few documents in ${own[*]}"

say "release build"
install_extension --release

url=$("$ROOT/scripts/cluster.sh" start "$work/pg")
psql=("$PG_BIN/psql" --no-psqlrc --set ON_ERROR_STOP=1 --quiet "$url")
"${psql[@]}" -c 'CREATE TABLE documents (path text PRIMARY KEY, title text, body text NOT NULL, modified timestamptz)'
"${psql[@]}" -c 'COPY documents FROM STDIN' <"$work/documents"
"${psql[@]}" -c 'VACUUM ANALYZE documents'
"${psql[@]}" -f "$ROOT/examples/demo/demo.sql"
