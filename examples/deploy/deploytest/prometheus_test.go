package deploytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// prometheusConfig adapts prometheus.yml: as everywhere, with addresses in place of the names that Docker's DNS knows, and
// faster, so that a test need not wait.
func (s *stage) prometheusConfig(t *testing.T) string {
	t.Helper()
	var config map[string]any
	must(t, yaml.Unmarshal(read(t, s.adapt(t, "prometheus/prometheus.yml", s.dir)), &config))
	config["rule_files"] = []string{filepath.Join(s.dir, "kubernetes/monitoring/scaleaware.rules.yml")}
	config["global"] = map[string]string{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
	here := map[string][]string{"api": {s.addr("api-1:3002"), s.addr("api-2:3002")}, "worker": {s.addr("worker:3002")}}
	for _, job := range config["scrape_configs"].([]any) {
		j := job.(map[string]any)
		if dns, ok := j["dns_sd_configs"].([]any); ok {
			delete(j, "dns_sd_configs")
			name := dns[0].(map[string]any)["names"].([]any)[0].(string)
			j["static_configs"] = []map[string]any{{"targets": here[name]}}
		} else {
			j["static_configs"] = []map[string]any{{"targets": []string{s.addr("prometheus:9090")}}}
		}
	}
	text, err := yaml.Marshal(config)
	must(t, err)
	return write(t, filepath.Join(s.dir, "prometheus/here.yml"), string(text))
}

func (s *stage) startPrometheus(t *testing.T) {
	t.Helper()
	prometheus := s.start(t, "prometheus", []string{"prometheus"}, nil, "prometheus", "--config.file="+s.prometheusConfig(t),
		"--storage.tsdb.path="+s.mkdir(t, "prometheus"), "--web.listen-address="+s.addr("prometheus:9090"))
	await(t, "Prometheus", prometheus, func(ctx context.Context) error {
		if res, err := getContext(ctx, http.DefaultClient, "http://"+s.addr("prometheus:9090")+"/-/ready"); err != nil || res.status != 200 {
			return fmt.Errorf("%+v, %w", res, err)
		}
		return nil
	})
}

// TestPromtool has the shipped files checked as they are, but for paths.
func TestPromtool(t *testing.T) {
	s := open(t)
	config := write(t, filepath.Join(s.dir, "prometheus/here-whole.yml"),
		strings.ReplaceAll(string(read(t, s.adapt(t, "prometheus/prometheus.yml", s.dir))), "/etc/prometheus/", filepath.Join(s.dir, "kubernetes/monitoring")+"/"))
	s.run(t, "promtool-config", []string{"promtool"}, nil, "promtool", "check", "config", config)
	s.run(t, "promtool-rules", []string{"promtool"}, nil, "promtool", "check", "rules", filepath.Join(s.dir, "kubernetes/monitoring/scaleaware.rules.yml"))
}

// query returns the values of an instant query, by instance.
func (s *stage) query(t *testing.T, ctx context.Context, promql string) (map[string]string, error) {
	t.Helper()
	res, err := getContext(ctx, http.DefaultClient, "http://"+s.addr("prometheus:9090")+"/api/v1/query?query="+promql)
	if err != nil {
		return nil, err
	}
	var reply struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(res.body, &reply); err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, r := range reply.Data.Result {
		found[r.Metric["instance"]] = fmt.Sprint(r.Value[1])
	}
	return found, nil
}
