#!/bin/sh
# Makes the secrets that docker-compose.yml needs, at random, in secrets/. Those that exist are kept. Nothing of it belongs
# into a repository. Compose mounts the files as they are and servers read them as users of their own, so the files
# are readable and the directory is not.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

for name in postgres_password replicator_password app_password pgbouncer_password redis_password admin_token viewer_token grafana_password session_secret; do
	[ -s secrets/$name ] || random >secrets/$name
	chmod 444 secrets/$name
done

# What the application reads from its environment. It has no shell that could read files.
(
	umask 077
	cat >secrets/app.env <<END
DB_PASSWORD=$(cat secrets/app_password)
REDIS_URL=redis://:$(cat secrets/redis_password)@172.30.7.11:6379,172.30.7.12:6379,172.30.7.13:6379
SESSION_SECRET=$(cat secrets/session_secret)
ADMIN_TOKEN=$(cat secrets/admin_token)
VIEWER_TOKEN=$(cat secrets/viewer_token)
END
)
