#!/usr/bin/env bash
# First process of a virtual cluster: brings SLURM up on so many nodes, and waits.
#
#   unshare --net --uts --mount --pid --fork --mount-proc bash tests/slurm/init.sh NODES CPUS FOLDER
#
# It owns its network, host name, mounts and process numbers, so it may use SLURM's default ports and
# places; FOLDER takes configuration and logs, and `up` when all nodes are idle. A node is a network
# and a host name of its own: n1 at 10.213.7.1 and so on, on a bridge with the head node. No systemd,
# no cgroups. Written for SLURM 22.05, Debian 12's.
set -euo pipefail
nodes=$1 cpus=$2 folder=$3
net=10.213.7

# Places: sockets and pids in a /run of our own, configuration where SLURM looks for it.
mkdir -p "$folder"/{etc,log,state,spool}
mount -t tmpfs run /run
mount --bind "$folder/etc" /etc/slurm
hostname head

# Network. The names in /etc/hosts are what ranks and SLURM resolve, on every node.
{
  echo "127.0.0.1 localhost"
  echo "$net.254 head"
  for i in $(seq "$nodes"); do echo "$net.$i n$i"; done
} >"$folder/etc/hosts"
mount --bind "$folder/etc/hosts" /etc/hosts
ip link set lo up
ip link add bridge type bridge
ip address add $net.254/24 dev bridge
ip link set bridge up
for i in $(seq "$nodes"); do
  ip netns add "n$i"
  ip link add "to-n$i" type veth peer name eth0 netns "n$i"
  ip link set "to-n$i" master bridge up
  ip -n "n$i" address add "$net.$i/24" dev eth0
  ip -n "n$i" link set eth0 up
  ip -n "n$i" link set lo up
done

# Munge vouches for who asks; its key lives as long as the cluster.
install -d -m 755 /run/munge
dd if=/dev/urandom of=/run/munge/key bs=64 count=2 status=none
chmod 400 /run/munge/key
munged --key-file=/run/munge/key --seed-file=/run/munge/seed --log-file=/run/munge/log \
  >"$folder/log/munged" 2>&1

# Limits are short, so that tests see their ends; jobs may be preempted, requeued and resized.
memory=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
cat >/etc/slurm/slurm.conf <<END
ClusterName=virtual
SlurmctldHost=head($net.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd.%n
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmdTimeout=10
MessageTimeout=5
TCPTimeout=2
UnkillableStepTimeout=10
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0,permit_job_expansion
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=DEFAULT CPUs=$cpus CoresPerSocket=$cpus RealMemory=$memory State=UNKNOWN
NodeName=n[1-$nodes]
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=scavenge Nodes=ALL PriorityTier=1 GraceTime=5
END
printf 'CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n' >/etc/slurm/cgroup.conf

slurmctld -i
for i in $(seq "$nodes"); do
  mkdir "$folder/spool/n$i"
  # `exec` in the order of what has to be left last: mounts are those of all, the name is its own.
  ip netns exec "n$i" unshare --uts sh -c "hostname n$i && exec slurmd -N n$i"
done
until [ "$(sinfo -hN -p main -t idle -o %N 2>/dev/null | wc -l)" = "$nodes" ]; do sleep 0.05; done
touch "$folder/up"

# Bash takes leave of whatever process loses its parent; the end of this one is the end of all.
while :; do sleep 3600 & wait $!; done
