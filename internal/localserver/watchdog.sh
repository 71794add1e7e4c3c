# Outlives the process that started it, and then cleans up.
#
# Argument: the directory to remove. Standard input is a pipe of which only our
# starter holds the other end (and each server for the moment before its exec):
#   + PID SIGNAL   a server has been started; SIGNAL is what ends it
#   - PID          it has been reaped
# End of file means that our starter has closed the home, or has died.
dir=$1
servers=" " # "PID:SIGNAL PID:SIGNAL "

while read -r verb pid signal; do
	case $verb in
	+) servers="$servers$pid:$signal " ;;
	-)
		kept=" "
		for s in $servers; do
			[ "${s%%:*}" = "$pid" ] || kept="$kept$s "
		done
		servers=$kept
		;;
	esac
done

# "PID PPID STATE" of every process.
table() {
	if [ -r /proc/self/stat ]; then
		for f in /proc/[0-9]*/stat; do
			read -r line 2>/dev/null <"$f" || continue
			after=${line##*) } # the name before it may hold blanks
			state=${after%% *}
			after=${after#* }
			echo "${line%% *} ${after%% *} $state"
		done 2>/dev/null
	else
		ps -A -o pid= -o ppid= -o state=
	fi
}

# Adds to $family the descendants of its members. Each PostgreSQL backend has a
# session and a process group of its own, so a group signal would miss them.
grow() {
	processes=$(table)
	before=
	while [ "$before" != "$family" ]; do
		before=$family
		while read -r pid ppid _; do
			case $family in
			*" $pid "*) continue ;;
			*" $ppid "*) family="$family$pid " ;;
			esac
		done <<-TABLE
			$processes
		TABLE
	done
}

# Tells whether process $1 runs. A zombie, which waits to be reaped, does not.
runs() {
	kill -0 "$1" || return 1
	if [ -r "/proc/$1/stat" ]; then
		read -r line <"/proc/$1/stat" || return 1
		line=${line##*) }
	else
		line=$(ps -o state= -p "$1")
	fi
	case $line in Z* | '') return 1 ;; esac
}

# Waits until none of the processes given runs, or $1 times 20 ms have passed.
ended() {
	tries=$1
	shift
	for pid; do
		while runs "$pid"; do
			tries=$((tries - 1))
			[ "$tries" -gt 0 ] || return 1
			sleep 0.02
		done
	done
}

if [ "$servers" != " " ]; then
	leaders=
	for s in $servers; do leaders="$leaders ${s%%:*}"; done
	family="$leaders "
	grow
	for pid in $family; do kill -CONT "$pid"; done
	for s in $servers; do kill -"${s##*:}" "${s%%:*}"; done
	ended 100 $leaders || {
		for pid in $leaders; do kill -STOP "$pid"; done # so that it forks no more
		grow
	}
	for pid in $family; do kill -KILL "$pid"; done
	ended 250 $family
fi 2>/dev/null

# A killed postmaster leaves its System V segment behind; line 7 of its lock
# file names it.
for lock in "$dir"/*/postmaster.pid; do
	[ -f "$lock" ] && ipcrm -m "$(sed -n '7s/.* //p' "$lock")"
done >/dev/null 2>&1

rm -rf "$dir"
