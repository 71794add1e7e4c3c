#!/bin/sh
# Runs a node with the arguments given, and with the password of a file: start.sh CONFIGURATION [--directive value …].
# It is read from standard input, so no file and no list of processes shows it.
set -eu
password=$(cat "${REDIS_PASSWORD_FILE:?}")
exec redis-server "$@" - <<END
requirepass "$password"
masterauth "$password"
END
