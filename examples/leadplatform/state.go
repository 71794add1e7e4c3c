package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// State keeps a file up to date that says where everything is.
type State struct {
	api, admin string
	path       string // empty for no file
	fleet      *Fleet
	config     lead.Config
	ownServers bool

	mu sync.Mutex // one writes at a time
}

// Write writes the file.
func (s *State) Write() error {
	if s.path == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := lead.Platform{API: s.api, Admin: s.admin, Primary: s.config.PrimaryURL, Replicas: s.config.ReplicaURLs, Redis: s.config.RedisAddrs}
	for _, child := range s.fleet.Children() {
		at, pid := child.Addresses()
		p.Processes = append(p.Processes, lead.Process{Name: child.Name, PID: pid, Addresses: at})
	}
	return p.Save(s.path)
}

// Remove removes the file.
func (s *State) Remove() {
	if s.path != "" {
		os.Remove(s.path)
	}
}

// Welcome tells a person where to look.
func (s *State) Welcome() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n  console     %s/\n  API         %s  (load balancer over %d instances)\n\n", s.admin, s.api, apiInstances)
	fmt.Fprintf(&b, "  try         curl -s %s/api/v1/performance/capacity/dashboard | jq .alerts\n", s.admin)
	fmt.Fprintf(&b, "              curl -X POST %s/api/v1/admin/read-only-mode\n              curl -X DELETE %s/api/v1/admin/read-only-mode\n", s.admin, s.admin)
	if s.path != "" {
		fmt.Fprintf(&b, "  elsewhere   eval \"$(bin/leadplatform env)\"  in a second terminal, then docs/runbook.md\n")
	}
	if s.ownServers { // those of the environment may come with a password
		fmt.Fprintf(&b, "  servers     export DATABASE_URL_PRIMARY='%s'\n              export DATABASE_URL_REPLICA='%s'\n              export REDIS_ADDRS='%s'\n\n",
			s.config.PrimaryURL, strings.Join(s.config.ReplicaURLs, ","), strings.Join(s.config.RedisAddrs, ","))
	}
	b.WriteString("  Ctrl-C stops everything and leaves nothing behind.\n\n")
	return b.String()
}
