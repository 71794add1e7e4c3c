package manifests

import (
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"

	"github.com/scaleaware/scaleaware/admin"
	"github.com/scaleaware/scaleaware/metrics"
	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/queue/scalehook"
)

// TestScalers builds each component that scales workers over the base, as an overlay does, and sees that it alone does so.
func TestScalers(t *testing.T) {
	components, err := os.ReadDir(filepath.Join(kubernetesDir, "components"))
	if err != nil {
		t.Fatal(err)
	}
	for _, component := range components {
		t.Run(component.Name(), func(t *testing.T) {
			objects := build(t, overlayWith(t, component.Name()))
			checkPods(t, objects)
			checkNetwork(t, objects)
			checkScaling(t, objects)
			checkTriggers(t, objects, "lead-production")
		})
	}
}

// overlayWith copies the manifests, and makes an overlay of production with another component.
func overlayWith(t *testing.T, component string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(kubernetesDir)); err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlays/production")
	path := filepath.Join(overlay, "kustomization.yaml")
	chosen := regexp.MustCompile(`\.\./\.\./components/[a-z-]+`)
	text := read(t, path)
	if n := len(chosen.FindAll(text, -1)); n != 1 {
		t.Fatalf("%s chooses %d components", path, n)
	}
	if err := os.WriteFile(path, chosen.ReplaceAll(text, []byte("../../components/"+component)), 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

// checkRights sees that the worker's service account may do what the hook does to what AUTOSCALE names, and nothing else.
func checkRights(t *testing.T, objects []object, target string) {
	t.Helper()
	spec := of[apps.Deployment](objects)["worker"].Spec.Template.Spec
	if of[core.ServiceAccount](objects)[spec.ServiceAccountName] == nil || spec.AutomountServiceAccountToken == nil || !*spec.AutomountServiceAccountToken {
		t.Errorf("the worker has no service account: %q", spec.ServiceAccountName)
	}
	for _, binding := range of[rbac.RoleBinding](objects) {
		role := of[rbac.Role](objects)[binding.RoleRef.Name]
		if role == nil || len(binding.Subjects) != 1 || binding.Subjects[0].Name != spec.ServiceAccountName {
			t.Errorf("%s binds %+v to %+v", binding.Name, binding.Subjects, binding.RoleRef)
			continue
		}
		var may []string
		for _, rule := range role.Rules {
			if len(rule.ResourceNames) == 0 || len(rule.NonResourceURLs) > 0 {
				t.Errorf("the worker may %+v, of any name", rule)
			}
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, name := range rule.ResourceNames {
						for _, verb := range rule.Verbs {
							may = append(may, strings.Join([]string{verb, group, resource, name}, " "))
						}
					}
				}
			}
		}
		if does := asked(t, target); !slices.Equal(does, may) {
			t.Errorf("the worker may %q, and its hook does %q", may, does)
		}
		return
	}
	t.Error("no role is bound")
}

// asked are the verb, group, resource and name of each request that scaling a Deployment makes, as rules of a role have them.
func asked(t *testing.T, deployment string) (requests []string) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/") // "", apis, group, version, namespaces, its name, resource, name, and a part of it
		if len(parts) < 8 {
			t.Errorf("the hook asks for %s", r.URL.Path)
			return
		}
		resource := strings.Join(append(parts[6:7:7], parts[8:]...), "/")
		requests = append(requests, strings.Join([]string{strings.ToLower(r.Method), parts[2], resource, parts[7]}, " "))
		_, _ = io.WriteString(w, `{"metadata":{"resourceVersion":"1"},"spec":{"replicas":2}}`)
	}))
	defer server.Close()
	dir := t.TempDir()
	token, ca := filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	pemOf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := errors.Join(os.WriteFile(token, []byte("token"), 0o600), os.WriteFile(ca, pemOf, 0o600)); err != nil {
		t.Fatal(err)
	}
	hook, err := scalehook.Kubernetes(deployment, &scalehook.KubernetesOptions{Server: server.URL, Namespace: "lead", TokenFile: token, CAFile: ca})
	if err != nil {
		t.Fatal(err)
	}
	if err := hook(t.Context(), queue.Decision{Generation: 1, Workers: 3}); err != nil {
		t.Fatal(err)
	}
	return requests
}

var (
	inQuotes   = regexp.MustCompile(`\{[^}]*\}|"[^"]*"|\[[^]]*\]`)
	identifier = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
	keywords   = []string{"by", "without", "on", "ignoring", "and", "or", "unless", "offset", "bool"}
)

// checkTriggers sees that KEDA's triggers name series, labels, operations and secrets that exist.
func checkTriggers(t *testing.T, objects []object, namespace string) {
	t.Helper()
	known := map[string]metrics.Series{}
	for _, s := range metrics.Contract() {
		known[s.Name] = s
	}
	for name, s := range of[scaledObject](objects) {
		for _, trigger := range s.Spec.Triggers {
			if trigger.MetricType != "AverageValue" {
				t.Errorf("%s: fallback takes AverageValue, not %q", name, trigger.MetricType)
			}
			switch trigger.Type {
			case "prometheus":
				query := trigger.Metadata["query"]
				if !strings.Contains(query, `namespace="`+namespace+`"`) {
					t.Errorf("%s reads other namespaces' workers, too: %s", name, query)
				}
				found := 0
				for _, word := range identifier.FindAllString(inQuotes.ReplaceAllString(query, ""), -1) {
					if word = strings.TrimSpace(word); strings.HasSuffix(word, "(") || slices.Contains(keywords, word) {
						continue
					}
					if _, ok := known[word]; !ok {
						t.Errorf("%s reads %s, which is in no table", name, word)
					}
					found++
				}
				if found == 0 {
					t.Errorf("%s reads nothing: %s", name, query)
				}
			case "metrics-api":
				checkOperation(t, trigger.Metadata["url"], namespace)
				auth := of[triggerAuthentication](objects)[trigger.AuthenticationRef.Name]
				if auth == nil || len(auth.Spec.SecretTargetRef) != 1 || !hasKey(exampleSecret(t, auth.Spec.SecretTargetRef[0].Name), auth.Spec.SecretTargetRef[0].Key) {
					t.Errorf("%s has no token: %+v", name, auth)
				}
			default:
				t.Errorf("%s has a trigger of type %s", name, trigger.Type)
			}
		}
	}
}

// checkOperation sees that a URL is that of an operation of package queue, for a queue that the example has.
func checkOperation(t *testing.T, url, namespace string) {
	t.Helper()
	const name = "lead-processing"
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer rdb.Close()
	jobs, err := queue.New(rdb, []queue.Queue{{Name: name}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	path, ok := strings.CutPrefix(url, "http://management."+namespace+":3002")
	if !ok || !slices.ContainsFunc(jobs.Operations(), func(op admin.Operation) bool {
		return op.Method == "GET" && strings.ReplaceAll(op.Path, "{queue}", name) == path
	}) {
		t.Errorf("KEDA asks %s, which is no operation", url)
	}
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }
