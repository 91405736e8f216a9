#!/bin/bash
# build.sh ARCH DESCRIBED makes bin/hailo-clip_VERSION_ARCH.deb, and hailo-clip-fleet's, of the tree at version DESCRIBED; make deb runs it.
# bin/hailo-clip, of this machine, prints what is the same for all: completions, manual, unit.
set -euo pipefail
cd "$(dirname "$0")/../.."
arch=$1 described=$2 here=configs/deb
out=bin/deb/$arch
ROOT=$out/root
VERSION=$($here/version.sh "$described" "$(git rev-list --count HEAD 2>/dev/null || echo 0)")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH # nfpm's, too
MAINTAINER=${MAINTAINER:-hailo-clip maintainers <hailo-clip@users.noreply.github.com>}
umask 022
rm -rf "$out" && mkdir -p "$ROOT"

file() { install -D -m 644 "$1" "$ROOT/$2"; }
zipped() { mkdir -p "$ROOT/$(dirname "$1")" && gzip -9n >"$ROOT/$1"; }

install -d "$ROOT/usr/bin"
GOOS=linux GOARCH=$arch CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$described" -o "$ROOT/usr/bin/hailo-clip" ./cmd/hailo-clip
runtime=$(bin/hailo-clip setup --arch "$arch" | sed -n 's/^ONNX Runtime .*: //p')
file "$runtime" "usr/lib/hailo-clip/$(basename "$runtime")"
machine() { od -An -tx1 -j18 -N1 "$1" | tr -d ' '; } # of an ELF file: b7 is arm64, 3e is amd64
if [ -e bin/hailo-clip-npu ] && [ "$(machine bin/hailo-clip-npu)" = "$(machine "$ROOT/usr/bin/hailo-clip")" ]; then
    install -D -m 755 bin/hailo-clip-npu "$ROOT/usr/lib/hailo-clip/hailo-clip-npu"
fi
for source in hailo/npu/worker/src/*; do file "$source" "usr/share/hailo-clip/worker/$(basename "$source")"; done
file $here/worker.mk usr/share/hailo-clip/worker/Makefile

file configs/hailo-clip.yaml usr/share/hailo-clip/hailo-clip.yaml
file configs/etc.yaml usr/share/hailo-clip/etc.yaml
install -d "$ROOT/usr/lib/systemd/system"
unit() { env -i PATH="$PATH" HOME="$HOME" bin/hailo-clip config unit --config configs/etc.yaml "$@"; }
unit --arch "$arch" >"$ROOT/usr/lib/systemd/system/hailo-clip.service"
unit --socket >"$ROOT/usr/lib/systemd/system/hailo-clip.socket"
file $here/sysusers.conf usr/lib/sysusers.d/hailo-clip.conf
file $here/udev.rules usr/lib/udev/rules.d/70-hailo-clip.rules

bin/hailo-clip completion bash | install -D -m 644 /dev/stdin "$ROOT/usr/share/bash-completion/completions/hailo-clip"
bin/hailo-clip completion zsh | install -D -m 644 /dev/stdin "$ROOT/usr/share/zsh/vendor-completions/_hailo-clip"
bin/hailo-clip completion fish | install -D -m 644 /dev/stdin "$ROOT/usr/share/fish/vendor_completions.d/hailo-clip.fish"
bin/hailo-clip man | zipped usr/share/man/man1/hailo-clip.1.gz

doc=usr/share/doc/hailo-clip
file $here/copyright $doc/copyright
zipped $doc/README.md.gz <README.md
zipped $doc/changelog.gz <CHANGELOG.md
zipped $doc/changelog.Debian.gz <<END
hailo-clip ($VERSION) unstable; urgency=medium

  * Built from $described. What has changed: changelog.gz in this folder.

 -- $MAINTAINER  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
END
# notices prints the licences of all that is linked into a program.
notices() {
    echo "Go: the standard library"; cat "$(go env GOROOT)/LICENSE"
    GOOS=linux GOARCH=$arch go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' "$1" |
        sort -u | while read -r module version dir; do
            printf '\n==== %s %s\n\n' "$module" "$version"
            find "$dir" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' \) | sort | xargs -r -d '\n' cat
        done
}
notices ./cmd/hailo-clip | zipped $doc/NOTICES.gz
for folder in docs examples; do # pages and samples, where there are any
    [ ! -d configs/$folder ] || (cd configs/$folder && find . -type f ! -name '*.go' ! -path '*/testdata/*') | while read -r f; do file "configs/$folder/$f" "$doc/$folder/$f"; done
done
[ ! -d configs/monitoring ] || (cd configs/monitoring && find . -type f ! -name '*.go' ! -path '*/testdata/*') |
    while read -r f; do file "configs/monitoring/$f" "usr/share/hailo-clip/monitoring/$f"; done
file $here/lintian usr/share/lintian/overrides/hailo-clip

find "$ROOT" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
sed "s|@ARCH@|$arch|; s|@VERSION@|$VERSION|; s|@MAINTAINER@|$MAINTAINER|; s|@ROOT@|$ROOT|; s|@COMPRESSION@|${DEB_COMPRESSION:-gzip}|" $here/nfpm.yaml >"$out/nfpm.yaml"
bin/tools/nfpm package --config "$out/nfpm.yaml" --packager deb --target "bin/hailo-clip_${VERSION}_$arch.deb"

# The broker is a package of its own: most installations need none.
main=$ROOT
ROOT=$out/fleet doc=usr/share/doc/hailo-clip-fleet
install -d "$ROOT/usr/bin"
GOOS=linux GOARCH=$arch CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$described" -o "$ROOT/usr/bin/hailo-clip-fleet" ./cmd/hailo-clip-fleet
install -d "$ROOT/usr/lib/systemd/system"
file configs/hailo-clip-fleet.service usr/lib/systemd/system/hailo-clip-fleet.service
file $here/copyright $doc/copyright
for f in changelog.gz changelog.Debian.gz; do file "$main/usr/share/doc/hailo-clip/$f" $doc/$f; done
gzip -dc "$main/usr/share/doc/hailo-clip/changelog.Debian.gz" | sed '1s/^hailo-clip /hailo-clip-fleet /' | zipped $doc/changelog.Debian.gz
file $here/fleet/lintian usr/share/lintian/overrides/hailo-clip-fleet
notices ./cmd/hailo-clip-fleet | zipped $doc/NOTICES.gz
find "$ROOT" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
sed "s|@ARCH@|$arch|; s|@VERSION@|$VERSION|; s|@MAINTAINER@|$MAINTAINER|; s|@ROOT@|$ROOT|; s|@COMPRESSION@|${DEB_COMPRESSION:-gzip}|" $here/fleet/nfpm.yaml >"$out/nfpm-fleet.yaml"
bin/tools/nfpm package --config "$out/nfpm-fleet.yaml" --packager deb --target "bin/hailo-clip-fleet_${VERSION}_$arch.deb"
