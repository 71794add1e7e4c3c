#!/bin/sh
# Makes a cluster of the nodes in NODES (address:port, by IP address, six of them), unless they are one. It may be run again.
set -eu
: "${NODES:?}" "${REDIS_PASSWORD_FILE:?}"
REDISCLI_AUTH=$(cat "$REDIS_PASSWORD_FILE")
export REDISCLI_AUTH

ask() { # NODE COMMAND…
	node=$1
	shift
	redis-cli -h "${node%:*}" -p "${node##*:}" "$@" 2>/dev/null
}

await() { # TEXT COMMAND…: until every node answers with it, for a minute at most
	text=$1
	shift
	deadline=$(($(date +%s) + 60))
	for node in $NODES; do
		until ask "$node" "$@" | grep -q "$text"; do
			[ "$(date +%s)" -lt $deadline ] || { echo "$node has not said $text within a minute" >&2; exit 1; }
			sleep 0.2
		done
	done
}

await PONG ping
for first in $NODES; do break; done
if ask "$first" cluster info | grep -q 'cluster_known_nodes:1[^0-9]*$'; then
	# shellcheck disable=SC2086 # one argument a node
	redis-cli --cluster create $NODES --cluster-replicas 1 --cluster-yes
fi
await cluster_state:ok cluster info
echo "the cluster is up"
