#!/bin/sh
# The guest's only process of its own. The host's files are its root; the lab's folder is shared
# with the host, and this runs in `vm` below it.
#
# The host leaves a script there as NAME.job. It is run at once, beside others: its output goes to
# NAME.log in the lab's folder, its exit code to NAME.code. `beat` grows for as long as the guest
# lives.
cd "$1" || exit 1
ip link set lo up
beat=0
while :; do
    beat=$((beat + 1))
    echo "$beat" >beat
    for job in *.job; do
        [ -e "$job" ] || continue
        name=${job%.job}
        mv "$job" "$name.sh"
        (
            sh "$name.sh" >"../$name.log" 2>&1
            echo "$?" >"$name.code.new"
            mv "$name.code.new" "$name.code"
        ) &
    done
    sleep 0.2
done
