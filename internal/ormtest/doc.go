// Package ormtest runs gorm, ent, bun, sqlx and goose over a dbsplit Connector, on real servers. It is a module of its
// own, so that nobody who uses this one downloads them.
package ormtest
