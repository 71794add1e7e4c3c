package pgcluster

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// settings are a server's, for versions 15 to 18 alike.
func (s *Server) settings() map[string]string {
	opts := &s.cluster.opts
	slots := fmt.Sprint(10 + 3*opts.Replicas) // a base backup takes two senders
	all := map[string]string{
		"port":                    fmt.Sprint(s.port),
		"cluster_name":            s.name, // and so the receiver's application_name
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "", // distributions' defaults may not be writable
		"max_connections":         "200",
		"shared_buffers":          "64MB",
		"fsync":                   "off",
		"wal_init_zero":           "off",
		"jit":                     "off",
		"hot_standby":             "on",
		"max_wal_senders":         slots,
		"max_replication_slots":   slots,
		// A base backup makes its slot after its checkpoint; another one's checkpoint
		// between the two would remove the WAL that it starts from.
		"wal_keep_size": "128MB",
		// The default of 5 s would pass before a restored stream comes back.
		"wal_retrieve_retry_interval": "100ms",
		// In the data directory, where killed servers cannot leave it behind.
		"dynamic_shared_memory_type": "mmap",
	}
	all["shared_preload_libraries"] = ""
	if s.cluster.statements {
		all["shared_preload_libraries"] = statements
	}
	if opts.Clocks { // a clock that is set is no silence
		all["wal_receiver_timeout"], all["wal_sender_timeout"] = "0", "0"
	}
	maps.Copy(all, opts.Settings)
	return all
}

// statements is loaded where the contrib modules are installed. Each database
// that wants the view still creates the extension.
const statements = "pg_stat_statements"

// configure appends to postgresql.conf: of several lines with a name the last counts.
func (s *Server) configure() error {
	var text strings.Builder
	all := s.settings()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&text, "%s = %s\n", name, quote(all[name]))
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("pgcluster: %w", err)
	}
	_, err = f.WriteString(text.String())
	if err := f.Close(); err != nil {
		return fmt.Errorf("pgcluster: %w", err)
	}
	return err
}

// quote is a string constant, in postgresql.conf as in SQL (with
// standard_conforming_strings, and without backslashes).
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// conninfo is how a replica reaches the port given.
func conninfo(port int) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable gssencmode=disable", port)
}
