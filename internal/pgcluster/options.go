package pgcluster

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
)

// Options says what [Start] starts.
type Options struct {
	// Replicas is the number of streaming replicas. Zero means none.
	Replicas int

	// Synchronous is the number of replicas that each commit waits for.
	// Zero means that all replicas are asynchronous.
	Synchronous int

	// Settings are added to every server's postgresql.conf, and win over what
	// this package writes there. Values are not quoted by the caller.
	// Zero means none.
	Settings map[string]string

	// Clocks gives each server a clock that [Server.SetClock] sets. It needs libfaketime, and costs each look at the clock a little.
	Clocks bool

	// Dir is where the cluster's temporary directory is made.
	// Zero means the system's place for such.
	Dir string
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*$`)

func (o *Options) checked() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	c.Settings = maps.Clone(c.Settings)
	var errs []error
	if c.Replicas < 0 {
		errs = append(errs, fmt.Errorf("pgcluster: Replicas is %d; give 0 or more", c.Replicas))
	}
	if c.Synchronous < 0 || c.Synchronous > c.Replicas {
		errs = append(errs, fmt.Errorf("pgcluster: Synchronous is %d; give 0 to the %d replicas", c.Synchronous, c.Replicas))
	}
	for name := range c.Settings {
		if !settingName.MatchString(name) {
			errs = append(errs, fmt.Errorf("pgcluster: %q is no name of a setting", name))
		}
	}
	return c, errors.Join(errs...)
}
