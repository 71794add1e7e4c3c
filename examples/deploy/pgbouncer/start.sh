#!/bin/sh
# Writes what differs between poolers and what is secret, then runs PgBouncer: start.sh CONFIGURATION.
set -eu
: "${UPSTREAM_HOST:?}" "${UPSTREAM_PORT:=5432}" "${PGBOUNCER_PASSWORD_FILE:?}" "${RUN_DIR:=/run/pgbouncer}"
umask 077
printf '[databases]\ninsurance_lead_gen = host=%s port=%s dbname=insurance_lead_gen\n' "$UPSTREAM_HOST" "$UPSTREAM_PORT" >"$RUN_DIR/databases.ini"
printf '"pgbouncer" "%s"\n' "$(sed 's/"/""/g' "$PGBOUNCER_PASSWORD_FILE")" >"$RUN_DIR/userlist.txt"
exec pgbouncer "$1"
