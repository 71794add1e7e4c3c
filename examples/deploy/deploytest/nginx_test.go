package deploytest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// nginxArgs adapt nginx.conf: as everywhere, and with the addresses of the instances in place of the name that Docker's DNS
// knows. Each line of a server is the shipped one.
func (s *stage) nginxArgs(t *testing.T, dir string) []string {
	t.Helper()
	config := s.adapt(t, "nginx/nginx.conf", dir)
	shipped := string(read(t, filepath.Join(s.dir, "nginx/api-servers.conf")))
	var servers strings.Builder
	for n := range instances {
		servers.WriteString(strings.ReplaceAll(shipped, "api:3000 resolve", s.addr(fmt.Sprintf("api-%d:3000", n+1))))
	}
	write(t, filepath.Join(filepath.Dir(config), "here-servers.conf"), servers.String())
	write(t, config, strings.ReplaceAll(string(read(t, config)), "include api-servers.conf", "include here-servers.conf"))
	return []string{"-e", "stderr", "-p", dir, "-c", config}
}

func (s *stage) startNginx(t *testing.T) {
	t.Helper()
	args := s.nginxArgs(t, s.mkdir(t, "nginx"))
	nginx := s.start(t, "nginx", []string{"nginx"}, nil, "nginx", append(args, "-g", "daemon off;")...)
	await(t, "nginx", nginx, listening(s.addr("nginx:8080")))
}

// TestNginxConfiguration is "nginx -t", which must say nothing, also no warning.
func TestNginxConfiguration(t *testing.T) {
	s := open(t)
	p := s.start(t, "nginx-t", []string{"nginx"}, nil, "nginx", append(s.nginxArgs(t, s.mkdir(t, "nginx-t")), "-t", "-q")...)
	err := p.Wait(context.WithoutCancel(t.Context()))
	if err != nil || strings.TrimSpace(p.Log()) != "" {
		t.Errorf("nginx -t: %v\n%s", err, p.Log())
	}
}
