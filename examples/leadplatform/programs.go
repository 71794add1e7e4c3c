package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// programs are the paths of what the platform is made of.
type programs struct{ api, worker string }

// findPrograms looks beside this program's own file, where make demo puts them.
func findPrograms() (p programs, err error) {
	self, err := os.Executable()
	if err != nil {
		return p, err
	}
	for name, path := range map[string]*string{"leadapi": &p.api, "leadworker": &p.worker} {
		*path = filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(*path); err != nil {
			return p, fmt.Errorf("the program %s is missing beside this one, run make demo, which builds both: %w", name, err)
		}
	}
	return p, nil
}
