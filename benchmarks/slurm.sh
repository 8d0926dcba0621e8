#!/bin/sh
# A Slurm of one node on loopback, for `syn2real bench executor` and for trying things out. Debian or Ubuntu, as root.
#   slurm.sh start DIR    installs slurm-wlm and munge where they lack, and starts them with all their files below DIR
#   slurm.sh lose DIR     kills the node with all that runs on it, as if its power had failed, and waits until Slurm has noticed
#   slurm.sh return DIR   starts that node again
#   slurm.sh stop DIR     stops what `start` started
# /etc/slurm/slurm.conf is a link to DIR/slurm.conf as long as it runs: Snakemake's plug-in takes SLURM_CONF out of the
# environment of a job. A machine that has that file belongs to a cluster, and is left alone.
# No systemd and no cgroups are needed. Accounts, limits and accounting (slurmdbd) are not set up.
set -eu

die() { echo "error: $*" >&2; exit 2; }

conf=/etc/slurm/slurm.conf

install_slurm() {
	command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && return
	command -v apt-get >/dev/null || die "no Slurm here and no apt-get to install it: needs Debian or Ubuntu"
	export DEBIAN_FRONTEND=noninteractive
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >"$dir/apt.log" 2>&1 ||
		die "apt-get cannot install slurm-wlm and munge: $(tail -n 1 "$dir/apt.log")"
}

write_conf() {
	host=$(hostname -s)
	memory=$(awk '/MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo) # MB
	cat >"$dir/slurm.conf" <<-EOF
		ClusterName=loopback
		SlurmctldHost=$host(127.0.0.1)
		SlurmctldPort=16817
		SlurmdPort=16818
		SlurmUser=root
		AuthType=auth/munge
		AuthInfo=socket=$dir/munge.socket
		StateSaveLocation=$dir/state
		SlurmdSpoolDir=$dir/spool
		SlurmctldPidFile=$dir/slurmctld.pid
		SlurmdPidFile=$dir/slurmd.pid
		SlurmctldLogFile=$dir/slurmctld.log
		SlurmdLogFile=$dir/slurmd.log
		ProctrackType=proctrack/linuxproc
		TaskPlugin=task/none
		MpiDefault=none
		SelectType=select/cons_tres
		SelectTypeParameters=CR_CPU_Memory
		# Snakemake asks squeue for jobs that have ended: keep them longer than it waits between two questions
		MinJobAge=3600
		KillWait=5
		# a node that has said nothing for these seconds is lost
		SlurmdTimeout=20
		ReturnToService=2
		NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory
		PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
	EOF
}

start() {
	[ "$(id -u)" = 0 ] || die "a Slurm of one's own needs root"
	[ ! -e "$conf" ] || die "$conf is there: this machine belongs to a cluster, or slurm.sh start was called before"
	install_slurm
	mkdir -p "$dir/state" "$dir/spool" "$(dirname "$conf")"
	write_conf
	ln -sfn "$dir/slurm.conf" "$conf"
	(umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
	# --force: the folder may lie below one that others may write to
	munged --force --num-threads=2 --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
		--seed-file="$dir/munge.seed" --log-file="$dir/munged.log" || die "munged does not start: see $dir/munged.log"
	slurmctld || die "slurmctld does not start: see $dir/slurmctld.log"
	start_node
}

start_node() {
	slurmd || die "slurmd does not start: see $dir/slurmd.log"
	wait_until 'idle|alloc|mix' "the node does not come up"
}

# wait until the node's state is one of $1
wait_until() {
	tries=90
	until sinfo --noheader --format=%t 2>/dev/null | grep -Eq "^($1)$"; do
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || die "$2: see the logs in $dir"
		sleep 1
	done
}

# a process and all that it started
tree() {
	echo "$1"
	for child in $(pgrep -P "$1"); do tree "$child"; done
}

lose() {
	[ -f "$dir/slurmd.pid" ] || die "no node runs here: call slurm.sh start first"
	# shellcheck disable=SC2046 # the numbers are words
	kill -9 $(for first in $(cat "$dir/slurmd.pid") $(pgrep -x slurmstepd); do tree "$first"; done | sort -u)
	rm "$dir/slurmd.pid"
	wait_until 'down\*?' "Slurm does not notice that the node is lost"
}

stop() {
	for daemon in slurmd slurmctld munged; do
		[ ! -f "$dir/$daemon.pid" ] || kill "$(cat "$dir/$daemon.pid")" 2>/dev/null || true
	done
	[ "$(readlink "$conf")" != "$dir/slurm.conf" ] || rm "$conf"
}

[ $# = 2 ] || die "use slurm.sh start|lose|return|stop DIR"
mkdir -p "$2"
dir=$(cd "$2" && pwd)
case $1 in
start) start ;;
lose) lose ;;
return) start_node ;;
stop) stop ;;
*) die "use slurm.sh start|lose|return|stop DIR" ;;
esac
