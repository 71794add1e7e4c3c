package manifests

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"gopkg.in/yaml.v3"
)

// TestCompose loads the file as Compose does, in a copy of its directory in which secrets.sh has run.
func TestCompose(t *testing.T) {
	project, dir := loadCompose(t)
	t.Run("services", func(t *testing.T) { checkServices(t, project, dir) })
	t.Run("secrets", func(t *testing.T) { checkSecrets(t, project) })
	t.Run("application", func(t *testing.T) { checkApplication(t, project) })
	t.Run("names", func(t *testing.T) { checkNames(t, project, dir) })
}

func loadCompose(t *testing.T) (project *types.Project, dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(deployDir)); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(dir, "secrets")) // a developer's own
	if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "secrets.sh")).CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v\n%s", err, out)
	}
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")}, cli.WithWorkingDirectory(dir), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	if project, err = options.LoadProject(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(project.Services) < 15 {
		t.Fatalf("%d services", len(project.Services))
	}
	return project, dir
}

// versionTag is a tag that names a version: not latest, not a line of versions such as 17.
var versionTag = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)*$`)

// balancer is the only service that others than this machine may reach.
const balancer = "nginx"

func checkServices(t *testing.T, project *types.Project, dir string) {
	t.Helper()
	for name, s := range project.Services {
		if !versionTag.MatchString(s.Image) {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
		for _, p := range s.Ports {
			if p.HostIP != "127.0.0.1" && (name != balancer || p.Target != 8080) {
				t.Errorf("%s publishes port %d on %q: only %s may be reached from elsewhere", name, p.Target, p.HostIP, balancer)
			}
		}
		if s.Deploy == nil || s.Deploy.Resources.Limits == nil || s.Deploy.Resources.Limits.MemoryBytes == 0 || s.Deploy.Resources.Limits.NanoCPUs == 0 {
			t.Errorf("%s has no limits", name)
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil || !v.ReadOnly {
				t.Errorf("%s mounts %s: %v, read-only %v", name, v.Source, err, v.ReadOnly)
			}
		}
		for _, secret := range s.Secrets {
			if _, err := os.Stat(project.Secrets[secret.Source].File); err != nil {
				t.Errorf("%s: secrets.sh does not make %s: %v", name, secret.Source, err)
			}
		}
		for dependency, on := range s.DependsOn {
			awaits(t, name, on.Condition, project.Services[dependency])
		}
	}
	if ignored := string(read(t, filepath.Join(dir, ".gitignore"))); !strings.Contains(ignored, "/secrets/") {
		t.Error("secrets/ is not ignored by git")
	}
}

// awaits checks that a condition can come true.
func awaits(t *testing.T, who, condition string, s types.ServiceConfig) {
	t.Helper()
	switch condition {
	case types.ServiceConditionHealthy:
		if s.HealthCheck == nil || s.HealthCheck.Disable {
			t.Errorf("%s waits until %s is healthy, which has no health check", who, s.Name)
		}
	case types.ServiceConditionCompletedSuccessfully:
		if s.Restart != "no" {
			t.Errorf("%s waits for the end of %s, which is started again (restart: %q)", who, s.Name, s.Restart)
		}
	default:
		t.Errorf("%s depends on %s by %q: say what is waited for", who, s.Name, condition)
	}
}

// checkSecrets sees that what is secret comes from files that secrets.sh makes.
func checkSecrets(t *testing.T, project *types.Project) {
	t.Helper()
	for name, s := range project.Services {
		inFile := map[string]bool{}
		for _, file := range s.EnvFiles {
			for line := range strings.Lines(string(read(t, file.Path))) {
				variable, _, _ := strings.Cut(line, "=")
				inFile[variable] = true
			}
		}
		mounted := map[string]bool{}
		for _, secret := range s.Secrets {
			mounted["/run/secrets/"+secret.Source] = true
		}
		for _, text := range textsOf(t, s) {
			for _, path := range secretPath.FindAllString(text, -1) {
				if !mounted[path] {
					t.Errorf("%s reads %s, which is not mounted", name, path)
				}
			}
		}
		for variable, value := range s.Environment {
			if value == nil || inFile[variable] {
				continue
			}
			if !secretPath.MatchString(*value) && secretive.MatchString(variable) {
				t.Errorf("%s: %s has a value in the file", name, variable)
			}
			if u, err := url.Parse(*value); err == nil && u.User != nil {
				if _, has := u.User.Password(); has {
					t.Errorf("%s: %s has a password", name, variable)
				}
			}
		}
	}
}

var secretPath = regexp.MustCompile(`/run/secrets/[a-z_]+`)

// textsOf are the places in which a service may name a secret: its environment, commands, and the files that it mounts.
func textsOf(t *testing.T, s types.ServiceConfig) (texts []string) {
	t.Helper()
	texts = slices.Concat(s.Command, s.Entrypoint)
	if s.HealthCheck != nil {
		texts = append(texts, s.HealthCheck.Test...)
	}
	for _, value := range s.Environment {
		if value != nil {
			texts = append(texts, *value)
		}
	}
	for _, v := range s.Volumes {
		if info, err := os.Stat(v.Source); v.Type == types.VolumeTypeBind && err == nil && info.Mode().IsRegular() {
			texts = append(texts, string(read(t, v.Source)))
		}
	}
	return texts
}

var secretive = regexp.MustCompile(`PASSWORD|SECRET|TOKEN|REDIS_URL`)

// checkApplication compares what the application is told with what it reads.
func checkApplication(t *testing.T, project *types.Project) {
	t.Helper()
	c := readCode(t)
	for _, name := range []string{"api", "worker", "migrate"} {
		s := project.Services[name]
		environment := map[string]string{}
		for variable, value := range s.Environment {
			environment[variable] = *value
		}
		c.reads(t, name, environment)
		for _, variable := range []string{"DATABASE_URL_PRIMARY", "DATABASE_URL_REPLICA"} {
			if raw := environment[variable]; raw != "" {
				u, err := url.Parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				upstream, known := project.Services[u.Hostname()]
				pooled := strings.HasPrefix(upstream.Image, "edoburu/pgbouncer:")
				if declared := u.Query().Get("node_pooler") == "transaction"; !known || pooled != declared {
					t.Errorf("%s: %s names %s (a service: %v), a pooler: %v, declared: %v", name, variable, u.Host, known, pooled, declared)
				}
			}
		}
		if name == "migrate" {
			continue
		}
		if need := c.needsToStop(t, environment); time.Duration(*s.StopGracePeriod) < need+5*time.Second {
			t.Errorf("%s: stop_grace_period is %v, and stopping may take %v", name, s.StopGracePeriod, need)
		}
		check := s.HealthCheck.Test
		u, err := url.Parse(check[len(check)-1])
		if err != nil || ":"+u.Port() != strings.TrimPrefix(environment["ADMIN_ADDR"], "0.0.0.0") {
			t.Fatalf("%s: the health check asks %v, %v", name, check, err)
		}
		c.probe(t, name, u.RequestURI())
		if s.ContainerName != "" {
			t.Errorf("%s has a name of its own, so it cannot be scaled", name)
		}
		for _, p := range s.Ports {
			if !strings.Contains(p.Published, "-") {
				t.Errorf("%s publishes %s on one port, so it cannot be scaled", name, p.Published)
			}
		}
	}
}

// checkNames sees that the files that containers read name services and ports that exist.
func checkNames(t *testing.T, project *types.Project, dir string) {
	t.Helper()
	api := project.Services["api"]
	_, management, err := net.SplitHostPort(*api.Environment["ADMIN_ADDR"])
	if err != nil {
		t.Fatal(err)
	}
	if want := "server api:" + *api.Environment["PORT"] + " resolve "; !strings.Contains(string(read(t, filepath.Join(dir, "nginx/api-servers.conf"))), want) {
		t.Errorf("nginx/api-servers.conf has no %q", want)
	}
	var prometheus struct {
		Scrapes []struct {
			Job string `yaml:"job_name"`
			DNS []struct {
				Names []string
				Port  string
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(dir, "prometheus/prometheus.yml")), &prometheus); err != nil {
		t.Fatal(err)
	}
	var scraped []string
	for _, job := range prometheus.Scrapes {
		for _, dns := range job.DNS {
			scraped = append(scraped, dns.Names...)
			if dns.Port != management {
				t.Errorf("Prometheus scrapes %v on %s, management is on %s", dns.Names, dns.Port, management)
			}
		}
	}
	if !slices.Equal(scraped, []string{"api", "worker"}) {
		t.Errorf("Prometheus scrapes %v", scraped)
	}
	var sources struct{ Datasources []struct{ URL string } }
	if err := yaml.Unmarshal(read(t, filepath.Join(dir, "grafana/provisioning/datasources/prometheus.yml")), &sources); err != nil {
		t.Fatal(err)
	}
	if u, err := url.Parse(sources.Datasources[0].URL); err != nil || project.Services[u.Hostname()].Name != "prometheus" {
		t.Errorf("Grafana asks %v, %v", sources, err)
	}

	var nodes []string
	for name, s := range project.Services {
		if data := s.Networks["data"]; data != nil && data.Ipv4Address != "" {
			nodes = append(nodes, data.Ipv4Address+":6379")
			if !strings.HasPrefix(name, "redis-") {
				t.Errorf("%s has a fixed address", name)
			}
		}
	}
	slices.Sort(nodes)
	if creates := strings.Fields(*project.Services["redis-cluster"].Environment["NODES"]); !slices.Equal(creates, nodes) || len(nodes) != 6 {
		t.Errorf("the cluster is made of %v, the nodes are %v", creates, nodes)
	}
	u, err := url.Parse(strings.Split(*api.Environment["REDIS_URL"], ",")[0])
	if err != nil || !slices.Contains(nodes, u.Host) {
		t.Errorf("REDIS_URL begins with %v, %v", u, err)
	}
}
