#!/bin/bash
# Makes a Debian package of the release binaries, the units, the examples and the documents:
# packaging/build-deb.sh [FOLDER]
#
# FOLDER is where the .deb is put (default: the build folder). Build first:
# cargo build --release -p engine -p intercept. Needs dpkg-dev, which comes with build-essential; no
# root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
    echo "build-deb.sh: $*" >&2
    exit 1
}

NAME=replay-appliance
target=${CARGO_TARGET_DIR:-target}
out=${1:-$target}
binaries=("$target/release/engine" "$target/release/intercept")
for binary in "${binaries[@]}"; do
    [[ -x $binary ]] || die "$binary is not there; run: cargo build --release -p engine -p intercept"
done
command -v dpkg-shlibdeps >/dev/null || die "dpkg-shlibdeps is missing; install dpkg-dev"
[[ -d $out ]] || die "$out: no such folder"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
arch=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
root=$stage/root

install -D -m 755 -t "$root/usr/libexec/$NAME" "${binaries[@]}" scripts/hugepages.sh
install -D -m 644 -t "$root/lib/systemd/system" packaging/systemd/*.service
install -D -m 644 -t "$root/usr/lib/sysusers.d" packaging/sysusers.d/*.conf
install -D -m 640 examples/replay.toml "$root/etc/replay/replay.toml"
install -D -m 640 examples/intercept.toml "$root/etc/replay/intercept.toml"
install -D -m 644 -t "$root/usr/share/doc/$NAME" README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md
install -D -m 644 -t "$root/usr/share/doc/$NAME/docs" docs/*.md
install -D -m 644 -t "$root/usr/share/doc/$NAME/examples" examples/*.toml
install -D -m 644 -t "$root/usr/share/doc/$NAME/packaging" packaging/README.md
install -D -m 644 LICENSE "$root/usr/share/doc/$NAME/copyright"

# Which packages the binaries' libraries come from; DPDK opens its drivers at run time, so these are
# named.
mkdir -p "$stage/debian"
printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$NAME" "$NAME" >"$stage/debian/control"
depends=$(cd "$stage" && dpkg-shlibdeps -O --ignore-missing-info "root/usr/libexec/$NAME/engine" "root/usr/libexec/$NAME/intercept" |
    sed -n 's/^shlibs:Depends=//p')
mkdir -p "$root/DEBIAN"
printf '/etc/replay/%s.toml\n' replay intercept >"$root/DEBIAN/conffiles"
cat >"$root/DEBIAN/control" <<CONTROL
Package: $NAME
Version: $version
Architecture: $arch
Maintainer: The maintainers <root@localhost>
Installed-Size: $(du -k -s "$root" | cut -f1)
Depends: ${depends:+$depends, }systemd | systemd-sysusers, librte-meta-net, librte-meta-bus, librte-meta-mempool
Recommends: dpdk
Section: net
Priority: optional
Description: replays mirrored TCP sessions, live, against a server under test
 The engine takes production's traffic from a mirror port and re-creates client
 sessions against a target. The intercept absorbs the target's responses.
 Nothing is started on installation: edit /etc/replay first.
CONTROL
# Newly installed units are known; running ones are the administrator's to restart. What is the
# group's in /etc/replay becomes that of the units' user; what the administrator gave another group
# stays so.
reload='[ ! -d /run/systemd/system ] || systemctl daemon-reload'
cat >"$root/DEBIAN/postinst" <<SCRIPT
#!/bin/sh
set -e
systemd-sysusers replay-appliance.conf
find /etc/replay -maxdepth 1 -type f -group root -perm -g=r -exec chgrp replay {} +
$reload
SCRIPT
printf '#!/bin/sh\nset -e\n%s\n' "$reload" >"$root/DEBIAN/postrm"
chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/postrm"
deb=$out/${NAME}_${version}_$arch.deb
dpkg-deb --root-owner-group --build "$root" "$deb" >/dev/null
echo "$deb"
