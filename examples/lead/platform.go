package lead

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Platform is where everything of a running leadplatform is, for programs that drive it. It keeps this in a file.
type Platform struct {
	API       string    `json:"api"`
	Admin     string    `json:"admin"`
	Processes []Process `json:"processes"`
	Primary   string    `json:"primary"`
	Replicas  []string  `json:"replicas"`
	Redis     []string  `json:"redis"`
}

// Process is one API instance or worker; without a process id it is down at the moment.
type Process struct {
	Name string `json:"name"`
	PID  int    `json:"pid,omitempty"`
	Addresses
}

// ReadPlatform reads the file that Save wrote.
func ReadPlatform(path string) (p Platform, err error) {
	blob, err := os.ReadFile(path)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(blob, &p); err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// Save replaces the file at once or not at all.
func (p Platform) Save(path string) error {
	blob, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".platform-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(blob)
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}

// Up reports whether none of its processes is down.
func (p Platform) Up() bool {
	for _, process := range p.Processes {
		if process.PID == 0 {
			return false
		}
	}
	return len(p.Processes) > 0
}

// APIs returns the base URLs of the API instances that are up.
func (p Platform) APIs() (urls []string) {
	for _, process := range p.Processes {
		if process.API != "" {
			urls = append(urls, "http://"+process.API)
		}
	}
	return urls
}

// Workers returns how many workers are up.
func (p Platform) Workers() (n int) {
	for _, process := range p.Processes {
		if strings.HasPrefix(process.Name, "worker") && process.PID != 0 {
			n++
		}
	}
	return n
}
