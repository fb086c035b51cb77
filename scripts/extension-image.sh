#!/usr/bin/env bash
# Makes an extension image for CloudNativePG's image volumes of a Debian package of `make deb`, without a container
# engine: dist/coco-extension-PG.tar, an OCI archive with /lib, /share/extension and /licenses. To push it:
#   skopeo copy oci-archive:dist/coco-extension-18.tar docker://REGISTRY/coco-extension:18-0.2.0-trixie
# extension-image.sh DEB
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# = 1 ] || { sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
deb=$1
package=$(dpkg-deb --field "$deb" Package)
[[ $package =~ ^postgresql-([0-9]+)-coco$ ]] || die "$deb is no package of coco"
major=${BASH_REMATCH[1]}
[ "$major" -ge 18 ] || die "PostgreSQL $major has no extension_control_path: image volumes need 18 or later"
work=$(mktemp -d "${TMPDIR:-/tmp}/coco.XXXXXX")
trap 'rm -rf "$work"' EXIT
dpkg-deb -x "$deb" "$work/deb"
mkdir -p "$work/root/share" "$work/root/licenses/$package" "$ROOT/dist"
cp -r "$work/deb/usr/lib/postgresql/$major/lib" "$work/root/lib"
cp -r "$work/deb/usr/share/postgresql/$major/extension" "$work/root/share/extension"
cp "$work/deb/usr/share/doc/$package/copyright" "$work/root/licenses/$package/"
image=$ROOT/dist/coco-extension-$major.tar
# The same package always gives the same image.
python3 - "$work/root" "$image" "$(dpkg-deb --field "$deb" Architecture)" "$(dpkg-deb --field "$deb" Version)" <<'PY'
import gzip, hashlib, io, json, os, sys, tarfile

root, image, architecture, version = sys.argv[1:]


def add(archive, name, data=None):
    member = tarfile.TarInfo(name)
    member.mode = 0o755 if data is None else 0o644
    if data is None:
        member.type = tarfile.DIRTYPE
    else:
        member.size = len(data)
    archive.addfile(member, None if data is None else io.BytesIO(data))


layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w") as archive:
    for folder, folders, files in os.walk(root):
        folders.sort()
        inner = os.path.relpath(folder, root)
        if inner != ".":
            add(archive, inner)
        for name in sorted(files):
            with open(os.path.join(folder, name), "rb") as file:
                add(archive, os.path.normpath(os.path.join(inner, name)), file.read())
packed = gzip.compress(layer.getvalue(), 9, mtime=0)
blobs = {}


def blob(media_type, data):
    digest = hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}


def as_json(value):
    return json.dumps(value, sort_keys=True).encode()


config = blob("application/vnd.oci.image.config.v1+json", as_json({
    "architecture": architecture, "os": "linux", "config": {"User": "65532:65532"},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
}))
manifest = blob("application/vnd.oci.image.manifest.v1+json", as_json({
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
    "layers": [blob("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
    "annotations": {"org.opencontainers.image.title": "coco", "org.opencontainers.image.version": version,
                    "org.opencontainers.image.licenses": "PostgreSQL"},
}))
manifest["platform"] = {"architecture": architecture, "os": "linux"}
with tarfile.open(image, "w") as archive:
    add(archive, "oci-layout", as_json({"imageLayoutVersion": "1.0.0"}))
    add(archive, "index.json", as_json({"schemaVersion": 2, "manifests": [manifest]}))
    add(archive, "blobs")
    add(archive, "blobs/sha256")
    for digest, data in sorted(blobs.items()):
        add(archive, "blobs/sha256/" + digest, data)
PY
(cd "$ROOT/dist" && sha256sum -- * | grep -v ' SHA256SUMS$' >SHA256SUMS)
say "$image"
