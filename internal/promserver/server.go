package promserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// Options say what it scrapes and evaluates.
type Options struct {
	// Rules are rule files by a name of their own.
	Rules map[string][]byte
	// Targets are the addresses to scrape /metrics from, by job.
	Targets map[string][]string
	// Interval is the time between scrapes. Rules have their own. Zero means 1 s.
	Interval time.Duration
}

// Server is a Prometheus that answers.
type Server struct {
	base   string
	home   *localserver.Home
	client *http.Client
}

// Open starts a Prometheus and waits until it is ready. The error matches localserver.ErrNotInstalled when there is none.
func Open(ctx context.Context, o Options) (_ *Server, err error) {
	path, env, err := localserver.Find("prometheus")
	if err != nil {
		return nil, err
	}
	home, err := localserver.Open(nil)
	if err != nil {
		return nil, err
	}
	s := &Server{home: home, client: &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	port, err := home.Port()
	if err != nil {
		return nil, err
	}
	config, err := o.write(home.Dir())
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	s.base = "http://" + address
	process, err := home.Start(ctx, localserver.Config{Name: "prometheus", Path: path, Env: env, Args: []string{
		"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(home.Dir(), "data"), "--web.listen-address=" + address,
	}})
	if err != nil {
		return nil, err
	}
	if err := s.ready(ctx, process); err != nil {
		return nil, fmt.Errorf("promserver: %w\n%s", err, process.Log())
	}
	return s, nil
}

// write makes the configuration and the rule files.
func (o Options) write(dir string) (string, error) {
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	type static struct {
		Targets []string `yaml:"targets"`
	}
	type job struct {
		Name   string   `yaml:"job_name"`
		Static []static `yaml:"static_configs"`
	}
	var config struct {
		Global map[string]string `yaml:"global"`
		Rules  []string          `yaml:"rule_files"`
		Jobs   []job             `yaml:"scrape_configs"`
	}
	config.Global = map[string]string{"scrape_interval": o.Interval.String(), "scrape_timeout": o.Interval.String(), "evaluation_interval": o.Interval.String()}
	for name, content := range o.Rules {
		path := filepath.Join(dir, name)
		config.Rules = append(config.Rules, path)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return "", err
		}
	}
	for name, targets := range o.Targets {
		config.Jobs = append(config.Jobs, job{name, []static{{targets}}})
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "prometheus.yml")
	return path, os.WriteFile(path, text, 0o644)
}

func (s *Server) ready(ctx context.Context, process *localserver.Process) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := s.get(ctx, "/-/ready"); err == nil {
			return nil
		}
		select {
		case <-process.Done():
			return fmt.Errorf("it ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (s *Server) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("promserver: GET %s: %d %.300s", path, res.StatusCode, body)
	}
	return body, err
}

// Alert is one of /api/v1/alerts.
type Alert struct {
	Labels   map[string]string
	State    string
	ActiveAt time.Time
	Value    string
}

// Alerts are those pending and firing.
func (s *Server) Alerts(ctx context.Context) ([]Alert, error) {
	var reply struct{ Data struct{ Alerts []Alert } }
	err := s.read(ctx, "/api/v1/alerts", &reply)
	return reply.Data.Alerts, err
}

// Evaluated is when the rules were last evaluated: the earliest of the groups' times, zero before the first.
func (s *Server) Evaluated(ctx context.Context) (earliest time.Time, err error) {
	var reply struct {
		Data struct {
			Groups []struct{ LastEvaluation time.Time }
		}
	}
	err = s.read(ctx, "/api/v1/rules", &reply)
	for i, g := range reply.Data.Groups {
		if i == 0 || g.LastEvaluation.Before(earliest) {
			earliest = g.LastEvaluation
		}
	}
	return earliest, err
}

// Rule is one of /api/v1/rules.
type Rule struct {
	Name, Query, Health, LastError string
}

// Rules are those of all groups, with how their last evaluation went.
func (s *Server) Rules(ctx context.Context) (rules []Rule, err error) {
	var reply struct {
		Data struct{ Groups []struct{ Rules []Rule } }
	}
	err = s.read(ctx, "/api/v1/rules", &reply)
	for _, g := range reply.Data.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules, err
}

func (s *Server) read(ctx context.Context, path string, reply any) error {
	body, err := s.get(ctx, path)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, reply)
}

// Close ends the server and removes what it wrote.
func (s *Server) Close() error {
	s.client.CloseIdleConnections()
	return s.home.Close()
}
