# Sourced by the demos, after common.sh: where their documents come from.
# shellcheck shell=bash

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

# find_documents LIMIT ENOUGH: writes at most LIMIT documents to $work/documents, as rows for COPY. Where
# this machine has fewer than ENOUGH, the kernel's documentation is fetched.
find_documents() {
  local limit=$1 enough=$2 kernel own=(/usr/share/doc /usr/share/perl /usr/share/perl5)
  corpus() { python3 "$ROOT/examples/demo/corpus.py" "$limit" "$@" >"$work/documents"; }
  say "looking for documents"
  corpus "${own[@]}"
  if [ "$(wc -l <"$work/documents")" -lt "$enough" ]; then
    if kernel=$(kernel_documentation); then
      corpus "$kernel" "${own[@]}"
    else
      say "this machine has fewer than $enough documents, and linux-doc cannot be fetched: going on with those"
    fi
  fi
  [ "$(wc -l <"$work/documents")" -ge 100 ] || die "there are too few documents in ${own[*]}"
}

# load_documents: makes the table documents, and fills it.
load_documents() {
  "${psql[@]}" -c 'CREATE TABLE documents (path text PRIMARY KEY, title text, body text NOT NULL, modified timestamptz)'
  "${psql[@]}" -c 'COPY documents FROM STDIN' <"$work/documents"
  "${psql[@]}" -c 'VACUUM ANALYZE documents'
}
