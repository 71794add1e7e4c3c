package scalehook_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/queue"
	"github.com/scaleaware/scaleaware/queue/scalehook"
)

// apiServer behaves as the API server does for get and patch of one Deployment.
type apiServer struct {
	mu       sync.Mutex
	token    string
	version  int
	replicas int
	// annotations are the Deployment's.
	annotations map[string]string
	patches     int
	// meanwhile runs between a get and the patch that follows it.
	meanwhile func(a *apiServer)
}

const deploymentPath = "/apis/apps/v1/namespaces/prod/deployments/worker"

func (a *apiServer) refuse(w http.ResponseWriter, status int, reason, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason, "message": fmt.Sprintf(format, args...),
	})
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") == "Bearer readonly" && r.Method == "PATCH":
		a.refuse(w, 403, "Forbidden", `deployments.apps "worker" is forbidden: User "system:serviceaccount:prod:leads" cannot patch resource "deployments"`)
		return
	case r.Header.Get("Authorization") != "Bearer "+a.token && r.Header.Get("Authorization") != "Bearer readonly":
		a.refuse(w, 401, "Unauthorized", "Unauthorized")
		return
	case r.URL.Path != deploymentPath:
		a.refuse(w, 404, "NotFound", `deployments.apps "%s" not found`, strings.Split(r.URL.Path, "/")[7])
		return
	}
	switch r.Method {
	case "GET":
		defer func() {
			if a.meanwhile != nil {
				a.meanwhile(a)
			}
		}()
	case "PATCH":
		var patch struct {
			Metadata struct {
				ResourceVersion string            `json:"resourceVersion"`
				Annotations     map[string]string `json:"annotations"`
			} `json:"metadata"`
			Spec struct {
				Replicas *int `json:"replicas"`
			} `json:"spec"`
		}
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Content-Type") != "application/merge-patch+json" {
			a.refuse(w, 415, "UnsupportedMediaType", "the body of the request was in an unknown format")
			return
		}
		if err := json.Unmarshal(body, &patch); err != nil || patch.Spec.Replicas == nil || *patch.Spec.Replicas < 0 {
			a.refuse(w, 422, "Invalid", "bad patch %s", body)
			return
		}
		if v := patch.Metadata.ResourceVersion; v != "" && v != strconv.Itoa(a.version) {
			a.refuse(w, 409, "Conflict", "the object has been modified; please apply your changes to the latest version and try again")
			return
		}
		a.replicas = *patch.Spec.Replicas
		if a.annotations == nil {
			a.annotations = map[string]string{"deployment.kubernetes.io/revision": "7"}
		}
		maps.Copy(a.annotations, patch.Metadata.Annotations)
		a.version++
		a.patches++
	default:
		a.refuse(w, 405, "MethodNotAllowed", "no")
		return
	}
	json.NewEncoder(w).Encode(map[string]any{
		"kind": "Deployment", "apiVersion": "apps/v1", "spec": map[string]any{"replicas": a.replicas},
		"metadata": map[string]any{
			"name": "worker", "namespace": "prod", "resourceVersion": strconv.Itoa(a.version), "annotations": a.annotations,
			"managedFields": strings.Repeat("x", 100_000),
		},
	})
}

func startAPI(t *testing.T) (*apiServer, *httptest.Server, *scalehook.KubernetesOptions) {
	t.Helper()
	api := &apiServer{token: "first", version: 41, replicas: 2}
	server := httptest.NewTLSServer(api)
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return api, server, &scalehook.KubernetesOptions{
		Server: server.URL, Namespace: "prod", TokenFile: file(t, "token", "first"), CAFile: file(t, "ca.crt", string(ca)), Timeout: 5 * time.Second,
	}
}

func TestKubernetes(t *testing.T) {
	t.Parallel()
	api, _, opts := startAPI(t)
	hook, err := scalehook.Kubernetes("worker", opts)
	if err != nil {
		t.Fatal(err)
	}
	to := func(n int) error {
		d := decision
		d.Workers = n
		return hook(t.Context(), d)
	}
	is := func(replicas, patches int) {
		t.Helper()
		if api.replicas != replicas || api.patches != patches {
			t.Errorf("%d replicas after %d patches, want %d after %d", api.replicas, api.patches, replicas, patches)
		}
	}
	for _, err := range []error{to(5), to(5), to(0)} { // the second changes nothing
		if err != nil {
			t.Error(err)
		}
	}
	is(0, 2)
	// The kubelet has replaced the token.
	api.token = "second"
	if err := to(3); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "first") {
		t.Errorf("with an old token: %v", err)
	}
	if err := os.WriteFile(opts.TokenFile, []byte("second\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := to(3); err != nil {
		t.Error(err)
	}
	is(3, 3)
	// A role that may not patch.
	if err := os.WriteFile(opts.TokenFile, []byte("readonly"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := to(4); err == nil || !strings.Contains(err.Error(), "get and patch on deployments") || !strings.Contains(err.Error(), "cannot patch") || strings.Contains(err.Error(), "Bearer") {
		t.Errorf("a forbidden patch: %v", err)
	}
	is(3, 3)
	if err := to(-1); err == nil {
		t.Error("-1 workers were asked for")
	}
}

// TestKubernetesConflict has somebody else change the Deployment between the hook's reading and its patch.
func TestKubernetesConflict(t *testing.T) {
	t.Parallel()
	api, _, opts := startAPI(t)
	hook, err := scalehook.Kubernetes("worker", opts)
	if err != nil {
		t.Fatal(err)
	}
	times := 2 // a rollout changes its status, and so the version
	api.meanwhile = func(a *apiServer) {
		if times > 0 {
			times--
			a.version++
		}
	}
	if err := hook(t.Context(), decision); err != nil || api.replicas != 5 || api.patches != 1 {
		t.Errorf("after two conflicts: %v, %d replicas", err, api.replicas)
	}
	// A leader that stood still finds what the next one has set, and leaves it.
	api.replicas = 2
	api.meanwhile = func(a *apiServer) {
		a.replicas = decision.Workers
		a.version++
	}
	if err := hook(t.Context(), decision); err != nil || api.patches != 1 {
		t.Errorf("after another one's change: %v, %d patches", err, api.patches)
	}
	api.replicas = 2
	api.meanwhile = func(a *apiServer) { a.version++ }
	if err := hook(t.Context(), decision); err == nil || !strings.Contains(err.Error(), "something else changes") || api.replicas != 2 {
		t.Errorf("with conflicts all the time: %v, %d replicas", err, api.replicas)
	}
}

// A leader that stood still finds that a newer one was obeyed, also where that one wanted what was there already.
func TestKubernetesRefusesOldGenerations(t *testing.T) {
	t.Parallel()
	api, _, opts := startAPI(t)
	hook, err := scalehook.Kubernetes("worker", opts)
	if err != nil {
		t.Fatal(err)
	}
	call := func(generation int64, workers int) error {
		d := decision
		d.Generation, d.Workers = generation, workers
		return hook(t.Context(), d)
	}
	is := func(replicas int) {
		t.Helper()
		if api.replicas != replicas {
			t.Errorf("%d replicas, want %d", api.replicas, replicas)
		}
	}
	if err := call(100, 9); err != nil {
		t.Error(err)
	}
	if err := call(99, 3); !errors.Is(err, scalehook.ErrOldGeneration) || !strings.Contains(err.Error(), "100") {
		t.Errorf("generation 99 after 100: %v", err)
	}
	is(9)
	for _, err := range []error{call(101, 9), call(101, 9)} {
		if err != nil {
			t.Error(err)
		}
	}
	if err := call(100, 4); !errors.Is(err, scalehook.ErrOldGeneration) || api.patches != 2 {
		t.Errorf("generation 100 after 101, which changed nothing: %v, %d patches", err, api.patches)
	}
	is(9)
	// The next leader is obeyed between the old one's get and its patch.
	once := true
	api.meanwhile = func(a *apiServer) {
		if once {
			once = false
			a.replicas, a.annotations["scaleaware/generation"] = 7, "205"
			a.version++
		}
	}
	if err := call(204, 5); !errors.Is(err, scalehook.ErrOldGeneration) {
		t.Errorf("generation 204, overtaken by 205: %v", err)
	}
	is(7)
	api.meanwhile = nil
	if api.annotations["deployment.kubernetes.io/revision"] != "7" {
		t.Errorf("annotations are %q", api.annotations)
	}
	api.annotations["scaleaware/generation"] = "by hand" // says nothing
	if err := call(206, 2); err != nil {
		t.Error(err)
	}
	is(2)
}

func TestKubernetesFailures(t *testing.T) {
	t.Parallel()
	_, server, opts := startAPI(t)
	call := func(name string, change func(o *scalehook.KubernetesOptions)) error {
		t.Helper()
		o := *opts
		change(&o)
		hook, err := scalehook.Kubernetes(name, &o)
		if err != nil {
			t.Fatal(err)
		}
		return hook(t.Context(), decision)
	}
	foreign := file(t, "foreign.crt", foreignCA(t))
	redirecting := httptest.NewUnstartedServer(http.RedirectHandler(server.URL+deploymentPath, http.StatusTemporaryRedirect))
	redirecting.StartTLS()
	defer redirecting.Close()
	for _, c := range []struct {
		what   string
		err    error
		wanted string
	}{
		{"unknown", call("nobody", func(*scalehook.KubernetesOptions) {}), `"nobody" not found`},
		{"foreign authority", call("worker", func(o *scalehook.KubernetesOptions) { o.CAFile = foreign }), "certificate"},
		{"no authority", call("worker", func(o *scalehook.KubernetesOptions) { o.CAFile = o.TokenFile }), "no certificate"},
		{"no token", call("worker", func(o *scalehook.KubernetesOptions) { o.TokenFile += "x" }), "read the token"},
		{"no pod", call("worker", func(o *scalehook.KubernetesOptions) { o.Namespace = "" }), "Namespace is needed"},
		{"redirect", call("worker", func(o *scalehook.KubernetesOptions) { o.Server = redirecting.URL }), "status 307"},
		{"refused", call("worker", func(o *scalehook.KubernetesOptions) { o.Server = "https://127.0.0.1:1" }), "connection refused"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.wanted) || !strings.HasPrefix(c.err.Error(), "scalehook: ") || strings.Contains(c.err.Error(), "first") {
			t.Errorf("%s: %v, want %q", c.what, c.err, c.wanted)
		}
	}
	for name, o := range map[string]scalehook.KubernetesOptions{
		"": {}, "../../secrets/x": {}, "Worker": {}, "a": {Namespace: "a/b"}, "b": {Namespace: "a.b"}, "c": {Server: "http://host"}, "d": {Server: "https://u:p@host"},
		"e": {Resource: "pods"}, "f": {Timeout: -1},
	} {
		if _, err := scalehook.Kubernetes(name, &o); err == nil || !strings.HasPrefix(err.Error(), "scalehook: ") {
			t.Errorf("%q with %+v: %v", name, o, err)
		}
	}
	if _, err := scalehook.Kubernetes("worker", nil); err != nil {
		t.Errorf("the defaults of a pod: %v", err)
	}
}

// foreignCA is a certificate that nobody's server has: httptest's servers share one.
func foreignCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func ExampleKubernetes() {
	hook, err := scalehook.Kubernetes("lead-worker", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	rule := queue.ScaleRule{Queue: "lead-processing", Latency: 30 * time.Second, Min: 2, Max: 20}
	_ = func(jobs *queue.Jobs) error { return jobs.Autoscale(rule, hook, nil) }
	_, err = scalehook.Kubernetes("lead-worker", &scalehook.KubernetesOptions{Namespace: "Prod"})
	fmt.Println(err)
	// Output:
	// scalehook: KubernetesOptions.Namespace is "Prod", want lower-case letters, digits and dashes
}
