#!/bin/bash
# Reserves, shows and releases hugepages for the engine and the intercept.
#
# No hugetlbfs mount is needed: both run EAL with --in-memory, which takes pages from the kernel and
# leaves nothing behind. What is reserved here is gone after a reboot; for good, put
# vm.nr_hugepages=N into /etc/sysctl.d, or hugepagesz= and hugepages= on the kernel's command line
# (the surest way to get 1 GiB pages).
set -euo pipefail

# Where sysfs is: tests put a tree of their own here.
SYSFS=${HUGEPAGES_SYSFS:-/sys}

usage() {
    cat <<'TEXT'
usage: hugepages.sh [reserve] [--size 2M|1G] [--count N | --mib M] [--node N] [--dry-run]
       hugepages.sh show
       hugepages.sh release [--size 2M|1G] [--node N] [--dry-run]

reserve   have at least this many pages (default: 512 MiB of 2 MiB pages); pages that are there already count,
          and more than asked for are left alone
show      pages of each size on each NUMA node, and how many are free
release   give pages back that are not in use (default: all sizes, all nodes)

--node N    only this NUMA node; without it the kernel spreads the pages over all nodes
--dry-run   print what would be written, and write nothing
TEXT
}

die() {
    echo "hugepages.sh: $*" >&2
    exit 1
}

bad_usage() {
    echo "hugepages.sh: $*; see hugepages.sh --help" >&2
    exit 2
}

# A whole number from 1, without leading zeros (which bash reads as octal), that can be multiplied
# without overflow.
is_number() {
    [[ $1 =~ ^[1-9][0-9]{0,8}$ ]]
}

# The folder that has the pages of all nodes, or of one.
pages_of() { # size in kB
    if [[ -n $node ]]; then
        echo "$SYSFS/devices/system/node/node$node/hugepages/hugepages-$1kB"
    else
        echo "$SYSFS/kernel/mm/hugepages/hugepages-$1kB"
    fi
}

check_node() {
    [[ -z $node || -d $SYSFS/devices/system/node/node$node ]] ||
        die "--node $node: there is no such NUMA node; this machine has $(nodes)"
}

nodes() {
    local found=() folder
    for folder in "$SYSFS"/devices/system/node/node[0-9]*; do
        [[ -d $folder ]] && found+=("${folder##*node}")
    done
    [[ ${#found[@]} -gt 0 ]] && echo "node ${found[*]}" || echo "none"
}

check_size() { # size in kB
    [[ -d $(pages_of "$1") ]] ||
        die "$(pages_of "$1") is not there: this kernel or CPU has no hugepages of $(($1 / 1024)) MiB; try another --size"
}

# Writes a number of pages, or says so.
write() { # file, number
    if [[ -n $dry_run ]]; then
        echo "would write $2 to $1"
        return
    fi
    [[ -w $1 ]] || die "$1 cannot be written; run as root"
    # The kernel may refuse (no memory, no permission in a container), or take the number and give
    # fewer pages: read back.
    echo "$2" 2>/dev/null >"$1" || die "the kernel refused $2 pages in $1"
}

reserve() {
    local kb=${size:-2048} folder want have
    check_node
    check_size "$kb"
    folder=$(pages_of "$kb")
    if [[ -n $count ]]; then
        want=$count
    else
        want=$(((${mib:-512} * 1024 + kb - 1) / kb))
    fi
    have=$(<"$folder/nr_hugepages")
    if ((have >= want)); then
        echo "$have pages of $((kb / 1024)) MiB are reserved already, $want asked for"
        return
    fi
    write "$folder/nr_hugepages" "$want"
    [[ -z $dry_run ]] || return 0
    have=$(<"$folder/nr_hugepages")
    if ((have < want)); then
        die "the kernel gave $have of $want pages of $((kb / 1024)) MiB: memory is too full or fragmented;" \
            "ask for fewer, free memory, or reserve at boot"
    fi
    echo "$have pages of $((kb / 1024)) MiB are reserved ($((have * kb / 1024)) MiB)"
}

show() {
    local base folder kb where any=
    printf '%-6s %-10s %8s %8s\n' node size pages free
    for base in "$SYSFS"/devices/system/node/node[0-9]* "$SYSFS/kernel/mm"; do
        where=${base##*node}
        if [[ $base == */kernel/mm ]]; then
            # Without NUMA there are no nodes, and this is all there is.
            [[ -z $any ]] || continue
            where=-
        fi
        for folder in "$base"/hugepages/hugepages-*kB; do
            [[ -d $folder ]] || continue
            any=yes
            kb=${folder##*hugepages-}
            kb=${kb%kB}
            printf '%-6s %-10s %8s %8s\n' "$where" "$((kb / 1024))MiB" "$(<"$folder/nr_hugepages")" "$(<"$folder/free_hugepages")"
        done
    done
    [[ -n $any ]] || die "$SYSFS has no hugepages: the kernel was built without them"
}

release() {
    local kb folder left found=
    check_node
    [[ -z $size ]] || check_size "$size"
    for kb in ${size:-2048 1048576}; do
        folder=$(pages_of "$kb")
        [[ -d $folder ]] || continue
        found=yes
        if (($(<"$folder/nr_hugepages") == 0)); then
            echo "no pages of $((kb / 1024)) MiB are reserved"
            continue
        fi
        write "$folder/nr_hugepages" 0
        [[ -z $dry_run ]] || continue
        left=$(<"$folder/nr_hugepages")
        ((left == 0)) || die "$left pages of $((kb / 1024)) MiB are still in use; stop the programs that hold them"
        echo "pages of $((kb / 1024)) MiB are released"
    done
    [[ -n $found ]] || die "$SYSFS has no hugepages of 2 MiB or 1 GiB"
}

action=reserve size='' count='' mib='' node='' dry_run=''
case ${1:-} in
    reserve | show | release)
        action=$1
        shift
        ;;
esac
while (($# > 0)); do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        --dry-run) dry_run=yes ;;
        --size | --count | --mib | --node)
            option=$1
            (($# > 1)) || bad_usage "$option needs a value"
            shift
            case $option in
                --size)
                    case $1 in
                        2M) size=2048 ;;
                        1G) size=1048576 ;;
                        *) bad_usage "--size $1: give 2M or 1G" ;;
                    esac
                    ;;
                --node)
                    [[ $1 =~ ^(0|[1-9][0-9]{0,3})$ ]] || bad_usage "--node $1: give a NUMA node's number, such as 0"
                    node=$1
                    ;;
                *)
                    is_number "$1" || bad_usage "$option $1: give a whole number from 1 to 999999999"
                    if [[ $option == --count ]]; then count=$1; else mib=$1; fi
                    ;;
            esac
            ;;
        *) bad_usage "$1: not an option or an action that is known" ;;
    esac
    shift
done
[[ -z $count || -z $mib ]] || bad_usage "--count and --mib say the same thing; give one of them"
[[ $action == reserve || -z $count$mib ]] || bad_usage "--count and --mib are for reserve"
[[ $action != show || -z $size$node$dry_run ]] || bad_usage "show takes no options"
"$action"
