package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"gopkg.in/yaml.v3"
)

// Profile is a load test in artillery's format: of that, the part that our two files use. What this does not know is an
// error, so that artillery and this command never run different tests from one file.
type Profile struct {
	Config    Config     `yaml:"config"`
	Before    Before     `yaml:"before"`
	Scenarios []Scenario `yaml:"scenarios"`
}

// Before is what is done once, before the first virtual user arrives.
type Before struct {
	Flow []Step `yaml:"flow"`
}

// Config is how the load grows and what fails the run.
type Config struct {
	Target       string                 `yaml:"target"`
	Processor    string                 `yaml:"processor"`
	HTTP         HTTP                   `yaml:"http"`
	Phases       []Phase                `yaml:"phases"`
	Environments map[string]Environment `yaml:"environments"`
	Plugins      Plugins                `yaml:"plugins"`
	Ensure       Ensure                 `yaml:"ensure"`
}

// HTTP has the timeout of a request in seconds.
type HTTP struct {
	Timeout float64 `yaml:"timeout"`
}

// Phase is a time in which virtual users arrive at a rate, or at one that grows evenly to RampTo.
type Phase struct {
	Name        string   `yaml:"name"`
	Duration    float64  `yaml:"duration"`
	ArrivalRate float64  `yaml:"arrivalRate"`
	RampTo      *float64 `yaml:"rampTo"`
}

// Environment replaces the phases, one by one.
type Environment struct {
	Phases []Phase `yaml:"phases"`
}

// Plugins are artillery's, which this command has built in.
type Plugins struct {
	Ensure            *struct{} `yaml:"ensure"`
	MetricsByEndpoint *struct {
		UseOnlyRequestNames bool `yaml:"useOnlyRequestNames"`
	} `yaml:"metrics-by-endpoint"`
}

// Ensure is what must hold at the end.
type Ensure struct {
	Thresholds []map[string]float64 `yaml:"thresholds"`
	Conditions []Condition          `yaml:"conditions"`
}

// Condition is an expression such as "a > 0 and b > 0".
type Condition struct {
	Expression string `yaml:"expression"`
}

// Scenario is what a virtual user does; the weights say how often which one is chosen.
type Scenario struct {
	Name           string   `yaml:"name"`
	Weight         int      `yaml:"weight"`
	BeforeScenario []string `yaml:"beforeScenario"`
	Flow           []Step   `yaml:"flow"`
}

// Step is one request, or a pause of so many seconds.
type Step struct {
	Get   *Request `yaml:"get"`
	Post  *Request `yaml:"post"`
	Put   *Request `yaml:"put"`
	Think float64  `yaml:"think"`
}

// Request is one request. Its texts may have templates.
type Request struct {
	Name          string            `yaml:"name"`
	URL           string            `yaml:"url"`
	JSON          map[string]string `yaml:"json"`
	AfterResponse []string          `yaml:"afterResponse"`
	Capture       []Capture         `yaml:"capture"`
}

// Capture keeps a value of the answer, a random one when the path has several.
type Capture struct {
	JSON string `yaml:"json"`
	As   string `yaml:"as"`
}

// ReadProfile reads a file; environment is empty for the file's own phases.
func ReadProfile(path, environment string) (p Profile, err error) {
	file, err := os.Open(path)
	if err != nil {
		return p, err
	}
	defer file.Close()
	if p, err = parseProfile(file, environment); err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func parseProfile(r io.Reader, environment string) (p Profile, err error) {
	dec := yaml.NewDecoder(r)
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil {
		return p, err
	}
	if environment != "" {
		e, ok := p.Config.Environments[environment]
		switch {
		case !ok:
			return p, fmt.Errorf("no environment %q", environment)
		case len(e.Phases) != len(p.Config.Phases):
			return p, fmt.Errorf("environment %s has %d phases, want %d: artillery merges them one by one", environment, len(e.Phases), len(p.Config.Phases))
		}
		for i, phase := range e.Phases {
			phase.Name = p.Config.Phases[i].Name
			if (phase.RampTo == nil) != (p.Config.Phases[i].RampTo == nil) {
				return p, fmt.Errorf("environment %s: phase %s has rampTo where the other has not", environment, phase.Name)
			}
			p.Config.Phases[i] = phase
		}
	}
	return p, p.validate()
}

func (p Profile) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if p.Config.Target == "" || p.Config.HTTP.Timeout <= 0 || len(p.Config.Phases) == 0 || len(p.Scenarios) == 0 {
		wrong("target, http.timeout, phases and scenarios are needed")
	}
	if p.Config.Plugins.Ensure == nil {
		wrong("without the plugin ensure, artillery ignores the thresholds")
	}
	for _, phase := range p.Config.Phases {
		if phase.Duration <= 0 || phase.ArrivalRate <= 0 || phase.RampTo != nil && *phase.RampTo <= 0 {
			wrong("phase %q: duration, arrivalRate and rampTo are positive", phase.Name)
		}
	}
	if _, err := p.Config.Ensure.checks(); err != nil {
		errs = append(errs, err)
	}
	for i, step := range p.Before.Flow {
		if err := step.validate(); err != nil {
			wrong("before, step %d: %w", i+1, err)
		}
	}
	for _, s := range p.Scenarios {
		if s.Weight <= 0 || !slices.Equal(s.BeforeScenario, []string{"begin"}) {
			wrong("scenario %q: needs a weight, and beforeScenario: [begin]", s.Name)
		}
		for i, step := range s.Flow {
			_, r := step.request()
			if err := step.validate(); err != nil {
				wrong("scenario %q, step %d: %w", s.Name, i+1, err)
			} else if r != nil && !slices.Contains(r.AfterResponse, "failOnStatus") {
				wrong("scenario %q, step %d: without failOnStatus, a 503 is no failure", s.Name, i+1)
			}
		}
	}
	return errors.Join(errs...)
}

// request returns the method too; a nil request is a pause.
func (s Step) request() (method string, r *Request) {
	switch {
	case s.Get != nil:
		return "GET", s.Get
	case s.Post != nil:
		return "POST", s.Post
	case s.Put != nil:
		return "PUT", s.Put
	}
	return "", nil
}

func (s Step) validate() error {
	kinds := 0
	for _, is := range []bool{s.Get != nil, s.Post != nil, s.Put != nil, s.Think > 0} {
		if is {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("want one of get, post, put and think")
	}
	_, r := s.request()
	if r == nil {
		return nil
	}
	if r.Name == "" || r.URL == "" {
		return errors.New("a request has a name and a url")
	}
	for _, name := range r.AfterResponse {
		if processor[name] == nil {
			return fmt.Errorf("afterResponse: no function %q", name)
		}
	}
	for _, c := range r.Capture {
		if _, err := parsePath(c.JSON); err != nil || c.As == "" {
			return errors.Join(err, fmt.Errorf("capture %q as %q", c.JSON, c.As))
		}
	}
	return nil
}
