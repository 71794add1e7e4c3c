// Package migrations brings a database to the schema that the example needs, step by step, forwards and back.
//
// Each file whose name begins with a number is a migration, in SQL or in Go, which goose runs. README.md says how to add
// one. Package replicasafe finds those that would hurt replicas or a release that is being rolled out.
package migrations
