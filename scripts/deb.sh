#!/usr/bin/env bash
# A Debian package of the release for PG_CONFIG's server, which is of a Debian package itself: dist/*.deb.
#   PG_CONFIG=/usr/lib/postgresql/17/bin/pg_config scripts/deb.sh
# COCO_PROFILE=dev packages the build of the tests, which takes less time.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
"$ROOT/scripts/setup.sh"
use_server
case $("$PG_CONFIG" --pkglibdir) in
  /usr/lib/postgresql/"$PG_MAJOR"/lib) ;;
  *) die "the server of $PG_CONFIG is not of a Debian package: give PG_CONFIG=/usr/lib/postgresql/VERSION/bin/pg_config" ;;
esac
missing=()
for command in dpkg-deb dpkg-shlibdeps lintian; do have "$command" || missing+=("$command"); done
[ ${#missing[@]} = 0 ] || apt_install dpkg-dev lintian || die "missing: ${missing[*]}, please install dpkg-dev and lintian"

build_extension "${COCO_PROFILE:-release}"

package=postgresql-$PG_MAJOR-coco
version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" "$ROOT/coco.control")-1
architecture=$(dpkg --print-architecture)
# Who builds it, as Debian's own tools are told.
maintainer="${DEBFULLNAME:-The coco authors} <${DEBEMAIL:-coco@packages.invalid}>"
date=$(git -C "$ROOT" log -1 --format=%cD 2>/dev/null || date -R)

work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/debian/$package
documents=$tree/usr/share/doc/$package
mkdir -p "$tree/DEBIAN" "$documents" "$ROOT/dist"

DESTDIR=$tree install_files
library=$tree$("$PG_CONFIG" --pkglibdir)/coco.so
chmod 644 "$library"   # as Debian's own modules
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$library"

# What LICENSE says, in Debian's form.
{
  printf '%s\n' 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/' \
    'Upstream-Name: coco' '' 'Files: *'
  sed -n 's/^\(Portions \)\{0,1\}Copyright (c) /Copyright: /p' "$ROOT/LICENSE" | head -n 1
  echo 'License: PostgreSQL'
  sed -n '/^Permission/,$p' "$ROOT/LICENSE" | sed -e 's/^$/./' -e 's/^/ /'
} >"$documents/copyright"
printf '%s (%s) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- %s  %s\n' \
  coco "$version" "$maintainer" "$date" | gzip -9n >"$documents/changelog.Debian.gz"
gzip -9nc "$ROOT/CHANGELOG.md" >"$documents/changelog.gz"

# The libraries that coco.so needs, as dpkg-shlibdeps finds them. The server provides the symbols that are left.
printf 'Source: coco\nMaintainer: %s\n\nPackage: %s\nArchitecture: any\n' "$maintainer" "$package" >"$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O --ignore-missing-info "$library" 2>"$work/shlibdeps.log" |
  sed -n 's/^shlibs:Depends=//p') || { cat "$work/shlibdeps.log" >&2; die "dpkg-shlibdeps failed"; }
[ -n "$libraries" ] || { cat "$work/shlibdeps.log" >&2; die "dpkg-shlibdeps found no library"; }

cat >"$tree/DEBIAN/control" <<EOF
Package: $package
Source: coco
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f 1)
Depends: postgresql-$PG_MAJOR, $libraries
Section: database
Priority: optional
Description: incremental flows from tables to targets, for PostgreSQL $PG_MAJOR
 A flow is a query that coco evaluates once per source row. The result is
 kept in a table or in a target outside the database, and an update touches
 only what a change affects. Targets outside the database are another
 PostgreSQL, Qdrant, Neo4j, Kafka and webhooks.
EOF
(cd "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
# mktemp and DESTDIR leave directories as the umask says, which packages do not.
find "$work/debian" -type d -exec chmod 755 {} +
chmod 644 "$tree/DEBIAN/md5sums" "$tree/DEBIAN/control" "$documents"/*

deb=$ROOT/dist/${package}_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$tree" "$deb" >/dev/null
# Warnings count as errors. The tag is about packages for Debian's own archive.
lintian --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$deb" >&2
(cd "$ROOT/dist" && sha256sum -- * | grep -v ' SHA256SUMS$' >SHA256SUMS)
say "$deb"
