package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/scaleaware/scaleaware/examples/lead"
)

// State is where everything is, for people and for programs that drive the platform.
type State struct {
	API       string    `json:"api"`
	Admin     string    `json:"admin"`
	Processes []Process `json:"processes"`
	Primary   string    `json:"primary"`
	Replicas  []string  `json:"replicas"`
	Redis     []string  `json:"redis"`

	mu         sync.Mutex
	path       string
	fleet      *Fleet
	config     lead.Config
	ownServers bool
}

// Process is one API instance or worker; without a process id it is down at the moment.
type Process struct {
	Name string `json:"name"`
	PID  int    `json:"pid,omitempty"`
	lead.Addresses
}

// Write writes the state to its file, if it has one, at once or not at all.
func (s *State) Write() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Processes = nil
	for _, child := range s.fleet.Children() {
		at, pid := child.Addresses()
		s.Processes = append(s.Processes, Process{Name: child.Name, PID: pid, Addresses: at})
	}
	s.Primary, s.Replicas, s.Redis = s.config.PrimaryURL, s.config.ReplicaURLs, s.config.RedisAddrs
	if s.path == "" {
		return nil
	}
	blob, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(s.path), ".state-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(blob)
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temporary.Name(), s.path)
	}
	if err != nil {
		os.Remove(temporary.Name())
	}
	return err
}

// Remove removes the file.
func (s *State) Remove() {
	if s.path != "" {
		os.Remove(s.path)
	}
}

// Welcome tells a person where to look.
func (s *State) Welcome() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "\n  console     %s/\n  API         %s  (load balancer over %d instances)\n\n", s.Admin, s.API, apiInstances)
	fmt.Fprintf(&b, "  try         curl -s %s/api/v1/performance/capacity/dashboard | jq .alerts\n", s.Admin)
	fmt.Fprintf(&b, "              curl -X POST %s/api/v1/admin/read-only-mode\n              curl -X DELETE %s/api/v1/admin/read-only-mode\n", s.Admin, s.Admin)
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
