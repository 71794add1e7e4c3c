package deploytest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

var redisPrograms = []string{"redis-server", "redis-cli"}

func (s *stage) redisNodes() (names []string) {
	for _, name := range services {
		if strings.HasSuffix(name, ":6379") {
			names = append(names, name)
		}
	}
	return names
}

// startRedis runs six nodes and the one-shot that makes a cluster of them, twice: the second time it has nothing to do.
func (s *stage) startRedis(t *testing.T) {
	t.Helper()
	for _, name := range s.redisNodes() {
		host, _, _ := strings.Cut(name, ":")
		dir := s.mkdir(t, "redis-"+host)
		bus, err := s.home.Port()
		must(t, err)
		s.start(t, "redis-"+host, redisPrograms, s.environment(t, "redis-1", dir), "/bin/sh",
			filepath.Join(s.dir, "redis/start.sh"), filepath.Join(s.dir, "redis/redis.conf"),
			"--bind", "127.0.0.1", "--port", s.port(name), "--cluster-port", fmt.Sprint(bus), "--dir", dir)
	}
	for _, name := range []string{"redis-cluster", "redis-cluster-again"} {
		s.run(t, name, redisPrograms, s.environment(t, "redis-cluster", ""), "/bin/sh", filepath.Join(s.dir, "redis/create-cluster.sh"))
	}
}

func (s *stage) redisNode(t *testing.T, name, password string) *redis.Client {
	t.Helper()
	o := redisclient.Options(s.addr(name)).Simple()
	o.Password = password
	client := redis.NewClient(o)
	t.Cleanup(func() { client.Close() })
	return client
}

// TestRedisConfiguration compares what each node says of itself with the shipped file.
func TestRedisConfiguration(t *testing.T) {
	s := open(t)
	ours := []string{"port"} // which the test changes
	masters := 0
	for _, name := range s.redisNodes() {
		client := s.redisNode(t, name, s.secretValue(t, "redis_password"))
		compared := 0
		for line := range strings.Lines(string(read(t, filepath.Join(s.dir, "redis/redis.conf")))) {
			directive, want, _ := strings.Cut(strings.TrimSpace(line), " ")
			if directive == "" || strings.HasPrefix(directive, "#") || directive == "rename-command" || slices.Contains(ours, directive) {
				continue
			}
			got, err := client.ConfigGet(t.Context(), directive).Result()
			must(t, err)
			if value := got[directive]; value != canonical(want) {
				t.Errorf("%s: %s is %q, the file says %q", name, directive, value, want)
			}
			compared++
		}
		if compared < 10 {
			t.Errorf("only %d directives were compared", compared)
		}
		for _, gone := range []string{"FLUSHALL", "KEYS"} {
			if err := client.Do(t.Context(), gone).Err(); err == nil || !strings.Contains(err.Error(), "unknown command") {
				t.Errorf("%s: %s: %v", name, gone, err)
			}
		}
		if err := s.redisNode(t, name, "").Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
			t.Errorf("%s without a password: %v", name, err)
		}
		info, err := client.ClusterInfo(t.Context()).Result()
		if err != nil || !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:6") {
			t.Errorf("%s: %s, %v", name, info, err)
		}
		role, err := client.Do(t.Context(), "role").Slice()
		must(t, err)
		if role[0] == "master" {
			masters++
		}
	}
	if masters != 3 {
		t.Errorf("%d masters", masters)
	}
}

// canonical is how Redis writes a value back.
func canonical(value string) string {
	switch value {
	case "256mb":
		return "268435456"
	case `""`:
		return ""
	}
	return value
}
