#!/usr/bin/env bash
# A one-node Slurm on this machine, as root: `slurm.sh start DIR` and `slurm.sh stop DIR`.
# Needs Debian's slurm-wlm and munge. All state is in DIR, but for munge's key and /etc/slurm.
set -euo pipefail
action=$1 dir=$2 host=$(hostname -s)

start() {
    mkdir -p "$dir"/{state,spool} /etc/munge /run/munge /etc/slurm
    [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom > /etc/munge/munge.key
    chown -R munge: /etc/munge /run/munge
    chmod 400 /etc/munge/munge.key
    chmod 755 /run/munge
    # A socket alone says nothing: one whose munged was killed makes all of Slurm wait.
    timeout 5 munge -n >/dev/null 2>&1 || runuser -u munge -- munged --force
    cat > /etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=6000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=01:00:00 State=UP
CONF
    slurmctld
    slurmd
    for _ in $(seq 60); do
        sinfo -h -o %T 2>/dev/null | grep -q idle && exit 0
        sleep 0.5
    done
    cat "$dir"/*.log >&2
    exit 1
}

stop() {
    for name in slurmd slurmctld; do
        [ -s "$dir/$name.pid" ] && kill "$(cat "$dir/$name.pid")" || true
    done
}

"$action"
