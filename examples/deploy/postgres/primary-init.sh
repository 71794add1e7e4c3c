#!/bin/sh
# Makes the roles, once, when the primary's data directory is new. The postgres image runs it (docker-entrypoint-initdb.d)
# with the superuser's password in PGPASSWORD. Passwords come from files and go nowhere else: not into arguments, which
# "ps" shows, nor into the server's log or statistics.
set -eu
: "${REPLICATOR_PASSWORD_FILE:?}" "${APP_PASSWORD_FILE:?}" "${PGBOUNCER_PASSWORD_FILE:?}"
export REPLICATOR_PASSWORD_FILE APP_PASSWORD_FILE PGBOUNCER_PASSWORD_FILE

psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 -U "${POSTGRES_USER:-postgres}" -d "${POSTGRES_DB:-insurance_lead_gen}" <<'SQL'
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
\set replicator `cat "$REPLICATOR_PASSWORD_FILE"`
\set app `cat "$APP_PASSWORD_FILE"`
\set pgbouncer `cat "$PGBOUNCER_PASSWORD_FILE"`
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator';
CREATE ROLE app_user LOGIN PASSWORD :'app';
CREATE ROLE pgbouncer LOGIN PASSWORD :'pgbouncer';

-- The application owns its database and makes its tables by migrations. It may see and cancel queries, as the operations
-- slow-queries and cancel-long-running do; it is no superuser.
SELECT format('ALTER DATABASE %I OWNER TO app_user', current_database()) \gexec
ALTER SCHEMA public OWNER TO app_user;
GRANT pg_monitor, pg_signal_backend TO app_user;
-- Package dbsplit asks for one right more, to notice writes that were lost in a promotion that it has not seen itself. It is
-- not given here, because it opens every file of the data directory, verifiers of passwords included:
--   GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO app_user;
CREATE EXTENSION pg_stat_statements;

-- PgBouncer asks for the verifier of whoever logs in, of ordinary roles only, and can use it for nothing but that.
CREATE SCHEMA pgbouncer AUTHORIZATION postgres;
CREATE FUNCTION pgbouncer.lookup(name text) RETURNS TABLE (usename name, passwd text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog
    AS $$ SELECT rolname, rolpassword FROM pg_authid WHERE rolname = name AND rolcanlogin AND NOT rolsuper AND NOT rolreplication $$;
REVOKE ALL ON FUNCTION pgbouncer.lookup FROM PUBLIC;
GRANT USAGE ON SCHEMA pgbouncer TO pgbouncer;
GRANT EXECUTE ON FUNCTION pgbouncer.lookup TO pgbouncer;
SQL
