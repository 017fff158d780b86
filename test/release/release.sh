#!/bin/sh
# Packs imgbuild itself: tar.gz, .deb, .rpm and an OCI image, in the folder DIST.
# The same commit gives the same bytes. VERSION is without a "v".
set -eu
cd "$(dirname "$0")/../.."
: "${VERSION:=0.0.0}" "${DIST:=dist}" "${ARCH:=amd64}" "${GO:=go}"
export VERSION ARCH CGO_ENABLED=0 SOURCE_DATE_EPOCH=1767225600 TZ=UTC LC_ALL=C.UTF-8
umask 022
rm -rf "$DIST"
mkdir -p "$DIST"
STAGE=$(mktemp -d)
export STAGE
trap 'rm -rf "$STAGE"' EXIT
share=$STAGE/usr/share

mkdir -p "$STAGE/usr/bin" "$STAGE/usr/libexec/imgbuild" "$share/doc/imgbuild" "$share/man/man1" \
	"$share/bash-completion/completions" "$share/zsh/vendor-completions" "$share/fish/vendor_completions.d"
flags="-s -w -X main.version=$VERSION"
GOARCH=$ARCH $GO build -trimpath -buildvcs=false -ldflags "$flags" -o "$STAGE/usr/bin/imgbuild" ./cmd/imgbuild
for name in initrd firstboot; do
	for node in amd64 arm64; do
		GOARCH=$node $GO build -trimpath -buildvcs=false -ldflags "-s -w" -o "$STAGE/usr/libexec/imgbuild/imgbuild-$name-$node" "./cmd/imgbuild-$name"
	done
done
# Manual pages and completions come from imgbuild, built for this host.
$GO run ./cmd/imgbuild man "$share/man/man1"
gzip -9n "$share"/man/man1/*.1
$GO run ./cmd/imgbuild completion bash >"$share/bash-completion/completions/imgbuild"
$GO run ./cmd/imgbuild completion zsh >"$share/zsh/vendor-completions/_imgbuild"
$GO run ./cmd/imgbuild completion fish >"$share/fish/vendor_completions.d/imgbuild.fish"
cp -r README.md CHANGELOG.md docs "$share/doc/imgbuild/"

name=imgbuild-$VERSION-linux-$ARCH
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$STAGE" -c usr | gzip -9n >"$DIST/$name.tar.gz"
for kind in deb rpm; do
	$GO run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2 package --config test/release/package.yaml --packager $kind --target "$DIST/$name.$kind"
done

# The OCI image: Debian, the .deb, and imgbuild as the entry point.
# shellcheck disable=SC2016 # $1 is for mmdebstrap's hook
mmdebstrap --quiet --variant=apt --include=ca-certificates \
	--customize-hook="copy-in $DIST/$name.deb /tmp" \
	--customize-hook='chroot "$1" apt-get install -qq -y --no-install-recommends /tmp/'"$name.deb" \
	--customize-hook='rm -rf "$1"/tmp/*.deb "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/* "$1"/var/log/*.log "$1"/var/log/apt "$1"/var/cache/ldconfig/aux-cache "$1"/etc/machine-id "$1"/etc/hostname "$1"/etc/resolv.conf' \
	trixie "$STAGE/root.tar"
$GO run ./test/release -root "$STAGE/root.tar" -name "imgbuild:$VERSION" -arch "$ARCH" -out "$DIST/$name-oci.tar"
(cd "$DIST" && sha256sum -- * >SHA256SUMS && cat SHA256SUMS)
