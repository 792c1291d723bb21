#!/bin/bash
# Makes ready what the lab's virtual machine needs, below the build folder: QEMU, Debian's kernel
# and an initramfs. Nothing is installed on this machine; apt gets lists and a cache of its own.
#
# It is done once: what is there already is used. About 100 MB are fetched, 150 MB are kept. Only
# the last line goes to stdout: the folder that has `qemu`, `vmlinuz` and `initrd`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Grows with what this script makes, so that what an older one has made is not used.
VERSION=1
# The oldest QEMU that emulates igb.
QEMU_MIN=8
MIRROR=${VM_LAB_MIRROR:-http://deb.debian.org/debian}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# Seconds for all that is fetched.
FETCH=${VM_LAB_FETCH:-150}
# A machine that could not fetch it tries again after so many seconds, not in each test anew.
AGAIN=900

# The guest's modules, with what they need; the order is that of loading.
MODULES=(virtio_pci 9pnet_virtio 9p overlay vfio-pci vfio_iommu_type1)

# What can't be had here: exit code 3, and the last line on stderr says what it is.
MISSING=3

usage() {
    cat <<'TEXT'
usage: vm-lab.sh [--again]

--again   try to fetch even if it failed a short while ago

Exit code 0: all is there; 3: this machine cannot have it, the last line says why; 1: a fault.
CARGO_TARGET_DIR is the build folder (target, if it is not set), VM_LAB_MIRROR Debian's mirror.
TEXT
}

die() {
    echo "vm-lab.sh: $*" >&2
    exit 1
}

again=
case ${1:-} in
    '') ;;
    --again) again=yes ;;
    -h | --help)
        usage
        exit 0
        ;;
    *)
        echo "vm-lab.sh: unknown argument $1; see vm-lab.sh --help" >&2
        exit 2
        ;;
esac

folder=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")/vm-lab
mkdir -p "$folder"
# Two tests may ask at the same time.
exec 9>"$folder/lock"
flock 9

missing() {
    rm -rf "$folder/new"
    echo "$*" >"$folder/missing"
    echo "vm-lab.sh: $*" >&2
    exit $MISSING
}

if [[ $(cat "$folder/version" 2>/dev/null) == "$VERSION" ]]; then
    echo "$folder"
    exit 0
fi
if [[ -z $again && -e $folder/missing ]] && (($(date +%s) - $(stat -c %Y "$folder/missing") < AGAIN)); then
    echo "vm-lab.sh: $(<"$folder/missing")" >&2
    exit $MISSING
fi
rm -rf "$folder"/{missing,version,new}

for tool in apt-get apt-cache dpkg dpkg-deb gzip; do
    command -v "$tool" >/dev/null || missing "$tool is missing: the virtual machine is made of Debian's packages"
done
[[ $(dpkg --print-architecture) == amd64 ]] || missing "the virtual machine is made for amd64 alone"
[[ -r $KEYRING ]] || missing "$KEYRING is missing (package debian-archive-keyring)"

# apt with sources, lists and a cache of its own. What is installed on this machine is not fetched
# again: QEMU uses this machine's libraries.
new=$folder/new
mkdir -p "$new"/apt/{lists,archives}/partial "$new"/{root,initrd/{bin,lib,lower,rw,root,dev,proc,sys}}
{
    echo "deb [signed-by=$KEYRING] $MIRROR bookworm main"
    echo "deb [signed-by=$KEYRING] $MIRROR bookworm-backports main"
} >"$new/apt/sources"
apt=(-q -o "Dir::Etc::sourcelist=$new/apt/sources" -o Dir::Etc::sourceparts=-
    -o "Dir::State::lists=$new/apt/lists" -o "Dir::Cache::archives=$new/apt/archives"
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Acquire::Languages=none
    -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o APT::Sandbox::User=root)
fetch() {
    local left=$((FETCH - SECONDS))
    ((left > 0)) || left=1
    (cd "$new/apt/archives" && timeout "$left" apt-get "${apt[@]}" "$@") >&2
}

echo "vm-lab.sh: fetching QEMU and a kernel from $MIRROR, once" >&2
# apt-get update succeeds with old or no lists where there is no network.
if ! fetch update || ! apt-cache "${apt[@]}" show linux-image-amd64 >/dev/null 2>&1; then
    missing "$MIRROR cannot be reached for QEMU and a kernel: bookworm and bookworm-backports"
fi
kernel=$(apt-cache "${apt[@]}" depends linux-image-amd64/bookworm | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[[ -n $kernel ]] || missing "$MIRROR has no kernel that linux-image-amd64 depends on"
fetch install --yes --download-only --no-install-recommends -t bookworm-backports qemu-system-x86 ||
    missing "$MIRROR: QEMU (qemu-system-x86 of bookworm-backports) cannot be fetched"
fetch download "$kernel" kmod/bookworm busybox-static/bookworm ||
    missing "$MIRROR: $kernel, kmod and busybox-static cannot be fetched"

for package in "$new"/apt/archives/*.deb; do
    case ${package##*/} in
        linux-image-*)
            # The kernel with its file systems and drivers for virtio, VFIO and the IOMMU; the
            # package has 300 MB more.
            mkdir -p "$new/kernel"
            dpkg-deb --fsys-tarfile "$package" | tar -x -C "$new/kernel" --wildcards \
                './boot/vmlinuz-*' './lib/modules/*/modules.*' './lib/modules/*/kernel/drivers/v[fi]*' \
                './lib/modules/*/kernel/virt/*' './lib/modules/*/kernel/net/9p/*' \
                './lib/modules/*/kernel/fs/[9fno]*' './lib/modules/*/kernel/arch/*'
            ;;
        *) dpkg -x "$package" "$new/root" ;;
    esac
done

# An installed QEMU comes in no package.
qemu=$new/root/usr/bin/qemu-system-x86_64
if [[ -x $qemu ]]; then
    cat >"$new/qemu" <<TEXT
#!/bin/sh
here=\$(dirname "\$0")
export LD_LIBRARY_PATH="\$here/root/usr/lib/x86_64-linux-gnu"
exec "\$here/root/usr/bin/qemu-system-x86_64" -L "\$here/root/usr/share/qemu" -L "\$here/root/usr/share/seabios" "\$@"
TEXT
else
    command -v qemu-system-x86_64 >/dev/null || die "apt fetched no QEMU, and none is installed"
    printf '#!/bin/sh\nexec qemu-system-x86_64 "$@"\n' >"$new/qemu"
fi
chmod 755 "$new/qemu"
version=$("$new/qemu" --version | sed -n '1s/.*version \([0-9]*\).*/\1/p')
((${version:-0} >= QEMU_MIN)) || missing "QEMU $version is installed, and igb needs $QEMU_MIN or newer"

vmlinuz=$(echo "$new"/kernel/boot/vmlinuz-*)
release=${vmlinuz##*/vmlinuz-}
mv "$vmlinuz" "$new/vmlinuz"

# The initramfs: busybox, the modules, and an init that makes this machine's files the guest's, with
# all that it writes in memory, and goes on with what the share says.
kmod=$(find "$new/root" -path '*bin/kmod' | head -n 1)
cp "$(find "$new/root" -path '*bin/busybox' | head -n 1)" "$new/initrd/bin/busybox"
ln -s busybox "$new/initrd/bin/sh"
mkdir -p "$new/tools"
for tool in depmod modprobe; do ln -s "$kmod" "$new/tools/$tool"; done
LD_LIBRARY_PATH=$(find "$new/root" -name 'libkmod.so.2' -printf '%h' -quit)
export LD_LIBRARY_PATH
"$new/tools/depmod" -b "$new/kernel" "$release"
for module in "${MODULES[@]}"; do
    "$new/tools/modprobe" -d "$new/kernel" -S "$release" --show-depends "$module" |
        sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' >"$new/modules"
unset LD_LIBRARY_PATH
while read -r module; do
    cp "$module" "$new/initrd/lib/"
    echo "${module##*/}"
done <"$new/modules" >"$new/initrd/lib/order"

cat >"$new/initrd/init" <<'TEXT'
#!/bin/sh
# The first process of the guest.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do insmod "/lib/$module"; done </lib/order
share=$(sed -n 's/.*lab.share=\([^ ]*\).*/\1/p' /proc/cmdline)
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 root /lower
mount -t tmpfs tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /root
mkdir -p "/root$share"
mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000 share "/root$share"
mkdir -p /root/run
mount -t tmpfs tmpfs /root/run
for folder in dev proc sys; do mount --move "/$folder" "/root/$folder"; done
exec switch_root /root /bin/sh "$share/vm/agent.sh" "$share/vm"
TEXT
chmod 755 "$new/initrd/init"
(cd "$new/initrd" && find . | bin/busybox cpio -o -H newc | gzip -1) >"$new/initrd.img"

rm -rf "$folder"/{root,qemu,vmlinuz,initrd}
mv "$new"/{root,qemu,vmlinuz} "$folder/"
mv "$new/initrd.img" "$folder/initrd"
rm -rf "$new"
echo "$VERSION" >"$folder/version"
echo "$folder"
