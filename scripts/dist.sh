#!/usr/bin/env bash
# The committed sources as an archive for PGXN, with its checksum: dist/coco-VERSION.zip.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$ROOT"
version=$(sed -n "s/^default_version *= *'\(.*\)'/\1/p" coco.control)
for stated in "META.json" "sql/install/coco--$version.sql" "Cargo.toml"; do
  [ -f "$stated" ] || die "$stated is missing"
done
[ "$(python3 -c 'import json; print(json.load(open("META.json"))["version"])')" = "$version" ] ||
  die "META.json is not of version $version"
grep -qx "version = \"$version\"" Cargo.toml || die "Cargo.toml is not of version $version"
git diff --quiet HEAD || die "there are changes that are not committed: the archive would not have them"
mkdir -p dist
git archive --format=zip --prefix="coco-$version/" --output="dist/coco-$version.zip" HEAD
(cd dist && sha256sum -- * | grep -v ' SHA256SUMS$' >SHA256SUMS)
say "dist/coco-$version.zip"
