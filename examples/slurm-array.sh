#!/bin/bash
# An archive of captures, replayed by 16 engines at the same time: each takes its part of the
# sessions (docs/scale.md).
#   sbatch examples/slurm-array.sh /archive
#   engine merge reports/report-*.json > all.json      # when all are done
#SBATCH --job-name=replay
#SBATCH --array=1-16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=1G
set -euo pipefail

archive=${1:?the folder of the captures}
mkdir -p reports
config=$(mktemp --suffix=.toml)
trap 'rm -f "$config"' EXIT

cat >"$config" <<TOML
[mirror]
file = "$archive/"
speed = "max"

[replay]
port = "net_af_packet0,iface=replay0"
address = ["10.20.0.9/24"]
next_hop_mac = "02:00:00:00:00:01"

[[transfer]]
from = "10.10.0.2:80"
to = "10.20.0.2:8080"

# Each engine has clients of its own, and the target has a route to them by way of its node.
[clients]
pool = ["62.135.$SLURM_ARRAY_TASK_ID.0/24"]

[traffic]
shard = "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"

[report]
json = "$PWD/reports/report-$SLURM_ARRAY_TASK_ID.json"

[eal]
lcores = [$(taskset -cp $$ | sed 's/.*[:,-] *//')]
memory = "no-huge"
TOML

engine --config "$config"
