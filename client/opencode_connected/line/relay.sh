# shellcheck shell=sh
# The relay's end of the line on a plain shell account: docs/contract.md in POSIX sh.
# The launcher sends this text as its first line, with `dir='…'` (the registry directory) and `mark='…'` (the file that a
# provisioned relay has, or nothing) before it, and the account's sh evaluates it. It parses no JSON: it knows its launcher's messages by their fixed order, and copies the registration as it came.

set -fu # -f: nothing here is a pattern for file names, except where `query` says so
umask 077
LC_ALL=C TZ=UTC0
export LC_ALL TZ
unset http_proxy https_proxy all_proxy HTTP_PROXY ALL_PROXY

uid=$(id -u)
id='' name='' file='' port='' # of the last hello
claimed=''                    # yes: that hello was registered
held=''                       # yes: this process holds the name's lock

# ---- processes

command_of() { # pid
	{ IFS= read -r comm <"/proc/$1/comm"; } 2>/dev/null || comm=$(ps -o comm= -p "$1" 2>/dev/null)
	printf %s "$comm"
}

start_of() { # pid; one word, empty where ps does not know it
	# shellcheck disable=SC2046 # splitting is how runs of blanks go
	set -- $(ps -o lstart= -p "$1" 2>/dev/null)
	(IFS=_ && printf %s "$*")
}

since_of() { # pid; this boot and the ticks from it to the start, which no clock moves; empty where there is no /proc
	{ IFS= read -r stat <"/proc/$1/stat" && IFS= read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || return 0
	# shellcheck disable=SC2086 # splitting is what finds the columns; the name before them may have blanks of its own
	set -- ${stat##*) }
	[ -z "${20:-}" ] || printf '%s:%s' "$boot" "${20}"
}

alive() { # pid [start [since]]
	case $1 in '' | 0* | *[!0-9]*) return 1 ;; esac
	kill -0 "$1" 2>/dev/null || return 1
	if [ -n "${3:-}" ]; then # a start is computed from the clock: set, it moves the start of what runs
		now=$(since_of "$1")
		[ -z "$now" ] || [ "$now" = "$3" ]
		return
	fi
	[ -n "${2:-}" ] || return 0
	now=$(start_of "$1")
	[ -z "$now" ] || [ "$now" = "$2" ]
}

nap() { # seconds; not every sleep knows fractions
	sleep "$1" 2>/dev/null || sleep 1
}

# POSIX read has no time limit. The watchdog counts ticks of two seconds, and each message tells it to begin again (the signal
# is handled when its sleep is over). A message may wait behind the tunnel's data, so what the kernel receives on sshd's
# connection counts as well, from a kilobyte on: less is ssh's own keep-alive, and says nothing about the launcher.
# When it fires, ending sshd makes the read see the end of its input; the second signal is for a parent that is no sshd.
# It holds none of the channel's descriptors, or sshd would wait for it: it borrows the program's to tell that we live.
watchdog() {
	trap 'idle=0 before=""' USR1
	idle=0 before=''
	while [ "$idle" -lt 5 ]; do
		idle=$((idle + 1))
		sleep 2
		kill -0 "$$" || exit
		{ beat >"/proc/$$/fd/1"; } 2>/dev/null
		[ "$idle" -ge 3 ] || [ -n "$before" ] || continue
		now=$(received)
		[ -z "$before" ] || [ "${now:-0}" -lt "$((before + 1024))" ] || idle=0
		before=$now
	done
	end_sshd
	kill "$$"
}

beat() {
	echo '{"type":"pong","n":0,"health":"unverified"}'
}

received() { # bytes on sshd's connection so far; nothing where the kernel cannot be asked
	# shellcheck disable=SC2086 # splitting is how its four parts come apart
	set -- ${SSH_CONNECTION:-}
	[ "$#" = 4 ] && command -v ss >/dev/null || return 0
	far="$1 [$1] [::ffff:$1]" far_port=$2 ours=''
	# shellcheck disable=SC2046 # words is what is looked at
	set -- $(ss -Htin sport = ":$4" and dport = ":$2" 2>/dev/null)
	for word; do
		case $word in
		*":$far_port") case " $far " in *" ${word%:*} "*) ours=yes ;; *) ours='' ;; esac ;;
		bytes_received:*) [ -z "$ours" ] || { echo "${word#*:}" && return; } ;;
		esac
	done
}

end_sshd() { # frees the port at once, whatever the connection thinks of itself
	[ -z "$sshd" ] || kill "$sshd" 2>/dev/null
}

# ---- messages

text() { # a string for inside JSON's quotes
	printf %s "$1" | tr '\n\t' '  ' | tr -d '\001-\037\177' | sed 's/[\\"]/\\&/g'
}

fail() { # code message [holder]; always false, so that `|| fail …` hands the failure on
	if [ -n "${3:-}" ]; then
		printf '{"type":"error","code":"%s","message":"%s","holder":"%s"}\n' "$1" "$(text "$2")" "$(text "$3")"
	else
		printf '{"type":"error","code":"%s","message":"%s"}\n' "$1" "$(text "$2")"
	fi
	return 1
}

# ---- the registry directory

check_directory() {
	if [ ! -e "$dir" ] && [ ! -L "$dir" ]; then
		reason=$(mkdir -p -- "$dir" 2>&1) || fail write-failed "cannot create $dir on the relay: ${reason##*: }" || return
	fi
	# shellcheck disable=SC2046 # splitting is what finds the columns
	set -- $(ls -ldn -- "$dir" 2>/dev/null) - - -
	case $1 in
	l*) fail bad-directory "$dir on the relay is a symbolic link" ;;
	[!d]*) fail bad-directory "$dir on the relay is no directory" ;;
	?????w* | ????????w*) fail bad-directory "$dir on the relay may be written by others" ;;
	*) [ "$3" = "$uid" ] || fail bad-directory "$dir on the relay belongs to another user (uid $3)" ;;
	esac
}

lock() {
	[ -z "$held" ] || return 0
	tries=0
	until reason=$(mkdir "$dir/.$name.lock" 2>&1); do
		[ "${reason##*: }" = 'File exists' ] || fail write-failed "cannot write to $dir on the relay: ${reason##*: }" || return
		{ IFS= read -r locker <"$dir/.$name.lock/pid"; } 2>/dev/null || locker=''
		tries=$((tries + 1))
		# Its holder writes the pid right after mkdir: two seconds without one, and it died in between.
		if alive "$locker" || { [ -z "$locker" ] && [ "$tries" -lt 20 ]; }; then
			[ "$tries" -lt 50 ] || fail write-failed "$dir/.$name.lock on the relay is held by process $locker" || return
			nap 0.1
		else # rename first: of several that find the same dead lock, one gets it
			mv "$dir/.$name.lock" "$dir/.$name.lock.$$" 2>/dev/null && rm -rf "$dir/.$name.lock.$$"
		fi
	done
	held=yes
	{ echo "$$" >"$dir/.$name.lock/pid"; } 2>/dev/null || : # on a full disk what is staged next says so
}

unlock() {
	[ -n "$held" ] || return 0
	rm -rf "$dir/.$name.lock"
	held=''
}

stage() { # owner|json line…; whatever needs space on the disk happens before anything is replaced
	staged=$dir/.$name.$1.new
	shift
	reason=$({ printf '%s\n' "$@" | cat >"$staged"; } 2>&1) && return
	rm -f "$dir/.$name.owner.new" "$dir/.$name.json.new"
	fail write-failed "cannot write to $dir on the relay: ${reason##*: }"
}

put() { # owner|json path; what was staged takes its place
	[ ! -d "$2" ] || fail write-failed "$2 on the relay is a directory" || return
	reason=$(mv -f "$dir/.$name.$1.new" "$2" 2>&1) || fail write-failed "cannot write to $dir on the relay: ${reason##*: }"
}

read_owner() { # its second line is missing where a launcher of before wrote it, or where there is no /proc
	owner_since=''
	{
		{
			IFS=' ' read -r owner_id owner_pid owner_start && { IFS= read -r owner_since || :; }
		} <"$dir/.$name.owner"
	} 2>/dev/null || owner_id='' owner_pid='' owner_start=''
}

own() {
	read_owner
	[ "$owner_id $owner_pid" = "$id $$" ]
}

holder() { # for a person: the host name from the registration, if it is plain enough to be quoted
	{ IFS= read -r other <"$dir/$name.json"; } 2>/dev/null || other=''
	host=${other#*'","hostname":"'}
	host=${host%%\"*}
	case $host in '' | *[!A-Za-z0-9._-]*) host='another instance' ;; esac
	printf %s "$host (process $owner_pid on the relay)"
}

intact() { # what was registered is there word for word; forks nothing, as it runs on every ping
	[ ! -L "$dir" ] && own && { IFS= read -r there <"$dir/$name.json"; } 2>/dev/null && [ "$there" = "$file" ]
}

claim() {
	check_directory && lock || return
	write_claim
	result=$?
	unlock
	return "$result"
}

write_claim() {
	read_owner
	older=''
	if [ "$owner_pid" != "$$" ] && alive "$owner_pid" "$owner_start" "$owner_since"; then
		[ "$owner_id" = "$id" ] || fail name-taken "a living instance has this name" "$(holder)" || return
		[ -z "$claimed" ] || leave # a newer session of this instance took over
		older=$owner_pid
	fi
	stage owner "$id $$ $start" ${since:+"$since"} && stage json "$file" || return
	put owner "$dir/.$name.owner" && put json "$dir/$name.json" || return
	claimed=yes
	# Only now, as a moment without a registration would be a lost instance. Without a start, the pid may be anybody's by now:
	# then the older session ends by its own watchdog.
	[ -z "$older" ] || [ -z "$owner_start" ] || kill "$older" 2>/dev/null || :
}

release() {
	[ -n "$claimed" ] && lock || return
	if own; then rm -f "$dir/$name.json" "$dir/.$name.owner"; fi
	claimed=''
	unlock
}

# ---- the tunnel

exposed() { # port; whether it listens beyond loopback (GatewayPorts yes). Where there is no /proc/net, nothing can be said
	grep -h ":$(printf %04X "$1") [0-9A-F]*:0000 0A " /proc/net/tcp /proc/net/tcp6 2>/dev/null |
		while read -r _ local _; do
			case ${local%:*} in # 127.0.0.1, ::1 and ::ffff:127.0.0.1 as either byte order writes them
			0100007F | 7F000001 | 00000000000000000000000001000000 | 00000000000000000000000000000001) ;;
			0000000000000000FFFF00000100007F | 00000000000000000000FFFF7F000001) ;;
			*) echo "$local" ;;
			esac
		done | grep -q .
}

ask() { # tool port seconds; asks OpenCode for its health and prints at least the status
	case $1 in
	curl) curl -q -s -o /dev/null -m "$3" --noproxy '*' -w '%{http_code}' "http://127.0.0.1:$2/global/health" ;;
	wget) wget -q -S -O /dev/null -T "$3" -t 1 "http://127.0.0.1:$2/global/health" ;;
	python3)
		python3 -ISc 'import socket, sys
relay = socket.create_connection(("127.0.0.1", int(sys.argv[1])), int(sys.argv[2]))
relay.sendall(b"GET /global/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
print(relay.recv(99))' "$2" "$3"
		;;
	perl)
		perl -MIO::Socket::INET -e '$SIG{ALRM} = sub { exit 1 }; alarm $ARGV[1];
$relay = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $ARGV[0]) or exit 1;
print $relay "GET /global/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
print scalar <$relay>' "$2" "$3"
		;;
	nc)
		printf 'GET /global/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' | nc -w "$3" 127.0.0.1 "$2"
		;;
	esac
}

health() { # port seconds; the first tool that is there and runs decides
	for tool in curl wget python3 perl nc; do
		command -v "$tool" >/dev/null 2>&1 || continue
		status=$(ask "$tool" "$1" "$2" 2>&1)
		code=$?
		case $status in
		200 | 401 | *'HTTP/1.'?' 200'* | *'HTTP/1.'?' 401'*) printf ok && return ;;
		*[Uu]'sage:'*) continue ;; # a small build of it
		esac
		[ "$code" -ge 126 ] || { printf failed && return; } # else it crashed, or may not be run
	done
	printf unverified
}

# ---- what the launcher asks for

hello() { # {"type":"hello","v":1,"id":"…","file":{"name":"…","hostname":"…","port":N,…}}
	id=${line#*'"id":"'}
	id=${id%%\"*}
	file=${line#*'","file":'}
	file=${file%\}}
	wanted=${file#*'{"name":"'}
	wanted=$(printf %s "${wanted%%'","hostname":'*}" | sed 's/\\"/"/g') # all that JSON escapes in a valid name
	[ "$wanted" = "$name" ] || release
	name=$wanted
	port=${file#*'","port":'}
	port=${port%%,*}
	case $id in *[!0-9a-f]*) id='' ;; esac
	[ "${#id}" = 32 ] || fail bad-hello "the instance id is no 32 hex digits" || return
	case $name in '' | .* | */* | *\\*) fail bad-name "the relay cannot keep a file of that name" || return ;; esac
	check_port "$port" || return
	carries=$(health "$port" 8) # after a break the way up is full; the launcher waits for 10 s
	[ "$carries" != failed ] || fail not-carrying "OpenCode does not answer through port $port of the relay" || return
	claim || return
	printf '{"type":"registered","name":"%s","health":"%s"}\n' "$(text "$name")" "$carries"
}

check_port() {
	case $1 in
	'' | 0* | *[!0-9]* | ??????*) false ;;
	*) [ "$1" -ge 1024 ] && [ "$1" -le 65535 ] ;;
	esac || fail bad-port "the port is no number from 1024 to 65535" || return
	! exposed "$1" || fail exposed "port $1 listens beyond the relay's loopback: its sshd needs GatewayPorts no"
}

ping() { # {"type":"ping","n":N}
	n=${line#'{"type":"ping","n":'}
	n=${n%\}}
	case $n in '' | *[!0-9]*) return ;; esac
	carries=unverified
	if [ -n "$claimed" ]; then
		intact || claim || :
		carries=$(health "$port" 3)
	fi
	printf '{"type":"pong","n":%s,"health":"%s"}\n' "$n" "$carries"
}

query() {
	check_directory || return
	set +f
	for path in "$dir"/*.json; do
		if [ ! -f "$path" ] || [ -L "$path" ]; then continue; fi
		there=$(head -c 16384 "$path" | head -n 1)
		case $there in '{"name":"'*'}') printf '{"type":"registration","file":%s}\n' "$there" ;; esac
	done
	set -f
	echo '{"type":"end"}'
}

probe() { # {"type":"probe","port":N}
	probed=${line#'{"type":"probe","port":'}
	probed=${probed%\}}
	check_port "$probed" || return
	printf '{"type":"probed","port":%s,"health":"%s"}\n' "$probed" "$(health "$probed" 8)"
}

bye() { # a note for whoever watches the directory, then the name is free; the note itself goes half a second later
	if [ -n "$claimed" ] && lock; then
		if own; then
			rm -f "$dir/.$name.owner"
			stage json "${file%\}},\"closedAt\":\"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}" && put json "$dir/$name.json"
			# Whoever registers in the meantime has an owner again.
			(exec </dev/null >/dev/null 2>&1 && nap 0.5 && [ ! -e "$dir/.$name.owner" ] && rm -f "$dir/$name.json") &
		fi
		unlock
	fi
	kill "$guard" 2>/dev/null
	exit
}

leave() {
	trap '' TERM HUP INT
	release
	unlock
	kill "$guard" 2>/dev/null
	end_sshd
	exit
}

# ---- the session

if [ -n "$mark" ] && [ -e "$mark" ]; then
	fail not-allowed 'this relay is provisioned: it takes machines that were enrolled there, and no ordinary accounts'
	exit
fi
case $dir in /*) ;; *) dir=./$dir ;; esac
start=$(start_of "$$") since=$(since_of "$$")
case $(command_of "$PPID") in *sshd* | *dropbear*) sshd=$PPID ;; *) sshd='' ;; esac
trap '' PIPE USR1 # a dead connection is learned from the end of the input; USR1 must not end a watchdog that just begins
(exec </dev/null >/dev/null 2>&1 && watchdog) & # exec, as a redirection alone is kept beside what it replaces
guard=$!
trap leave TERM HUP INT

peer=${SSH_CONNECTION:-}
peer=${peer% *}
peer=${peer##* }
case $peer in *[!0-9A-Za-z.:%]*) peer='' ;; esac
printf '{"type":"ready","v":1,"agent":"sh","peer":"%s"}\n' "$peer"
beat # the first at once, so that the launcher counts on more
while IFS= read -r line; do
	kill -USR1 "$guard" 2>/dev/null
	case $line in
	'{"type":"ping",'*) ping ;;
	'{"type":"hello","v":1,"id":"'*'","file":{"name":"'*'","hostname":"'*'","port":'*'}}') hello ;;
	'{"type":"hello",'*) fail bad-hello "this relay program speaks version 1 of the line" ;;
	'{"type":"query"'*) query ;;
	'{"type":"probe",'*) probe ;;
	'{"type":"bye"'*) bye ;;
	esac
done
leave
