#!/bin/sh
# Entrypoint of a replica: copies the primary when there is no copy yet, then runs the server with the arguments given.
set -eu
: "${PRIMARY_HOST:?}" "${PRIMARY_PORT:=5432}" "${REPLICATION_SLOT:?}" "${REPLICATOR_PASSWORD_FILE:?}" "${PGDATA:?}"
: "${PASSFILE:=/var/run/postgresql/replicator.pgpass}"

if [ "$(id -u)" = 0 ]; then
	mkdir -p "$PGDATA"
	chown postgres: "$PGDATA"
	exec gosu postgres /bin/sh "$0" "$@"
fi
umask 077
mkdir -p "$PGDATA"
chmod 700 "$PGDATA"

# In a password file, so that -R writes its path and not the password into the data directory.
printf '*:*:*:replicator:%s\n' "$(sed 's/[\\:]/\\&/g' "$REPLICATOR_PASSWORD_FILE")" >"$PASSFILE"
upstream="host=$PRIMARY_HOST port=$PRIMARY_PORT user=replicator passfile=$PASSFILE application_name=$REPLICATION_SLOT"

# backup_manifest is written last: without it the copy was cut off, and its slot may be left over.
if [ ! -s "$PGDATA/backup_manifest" ]; then
	find "$PGDATA" -mindepth 1 -delete
	psql --no-psqlrc -q -d "$upstream replication=yes" -c "DROP_REPLICATION_SLOT \"$REPLICATION_SLOT\"" 2>/dev/null || :
	pg_basebackup -d "$upstream" -D "$PGDATA" -R -X stream -C -S "$REPLICATION_SLOT" -c fast -v
fi
exec "$@"
