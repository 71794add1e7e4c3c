// Package dbsplitbench measures dbsplit against its peers: pgxpool on the same node, dbresolver over pgx's database/sql
// driver, and pgxpool with several hosts and target_session_attrs. It uses dbsplit's public API only.
package dbsplitbench
