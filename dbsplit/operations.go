package dbsplit

import "github.com/scaleaware/scaleaware/admin"

// Operations returns the database operations for the management listener.
func (db *DB) Operations() []admin.Operation { return nil }
