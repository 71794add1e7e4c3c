package manifests

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// object is one of a built kustomization, decoded strictly into the type that the API server has for it.
type object struct {
	kind, name, namespace string
	typed                 any
}

func (o object) String() string { return o.kind + "/" + o.name }

// scaledObject is what the tests read of KEDA's, after its schema was checked: its Go package needs a Kubernetes client.
type scaledObject struct {
	Spec struct {
		ScaleTargetRef  struct{ Name, Kind string }
		MinReplicaCount *int32
		Triggers        []struct {
			Type              string
			MetricType        string
			Metadata          map[string]string
			AuthenticationRef *struct{ Name string }
		}
	}
}

type triggerAuthentication struct {
	Spec struct {
		SecretTargetRef []struct{ Name, Key string }
	}
}

// kinds makes a value for each kind that may be used.
var kinds = map[string]func() any{
	"apps/v1 Deployment":                       func() any { return new(apps.Deployment) },
	"autoscaling/v2 HorizontalPodAutoscaler":   func() any { return new(autoscaling.HorizontalPodAutoscaler) },
	"batch/v1 Job":                             func() any { return new(batch.Job) },
	"v1 ConfigMap":                             func() any { return new(core.ConfigMap) },
	"v1 Namespace":                             func() any { return new(core.Namespace) },
	"v1 Secret":                                func() any { return new(core.Secret) },
	"v1 Service":                               func() any { return new(core.Service) },
	"v1 ServiceAccount":                        func() any { return new(core.ServiceAccount) },
	"networking.k8s.io/v1 NetworkPolicy":       func() any { return new(networking.NetworkPolicy) },
	"policy/v1 PodDisruptionBudget":            func() any { return new(policy.PodDisruptionBudget) },
	"rbac.authorization.k8s.io/v1 Role":        func() any { return new(rbac.Role) },
	"rbac.authorization.k8s.io/v1 RoleBinding": func() any { return new(rbac.RoleBinding) },
	"monitoring.coreos.com/v1 ServiceMonitor":  func() any { return new(monitoring.ServiceMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule":  func() any { return new(monitoring.PrometheusRule) },
}

// custom are those that a schema checks.
var custom = map[string]func() any{
	"keda.sh/v1alpha1 ScaledObject":          func() any { return new(scaledObject) },
	"keda.sh/v1alpha1 TriggerAuthentication": func() any { return new(triggerAuthentication) },
}

// build makes the objects of a kustomization below kubernetes/.
func build(t *testing.T, dir string) []object {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	var objects []object
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, decode(t, text))
	}
	if len(objects) == 0 {
		t.Fatalf("%s makes nothing", dir)
	}
	return objects
}

func decode(t *testing.T, text []byte) object {
	t.Helper()
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct{ Name, Namespace string }
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		t.Fatal(err)
	}
	o := object{kind: head.Kind, name: head.Metadata.Name, namespace: head.Metadata.Namespace}
	kind := head.APIVersion + " " + head.Kind
	if make, ok := custom[kind]; ok {
		o.typed = make()
		if err := conforms(head.Kind, text); err != nil {
			t.Errorf("%s: %v", o, err)
		}
		if err := yaml.Unmarshal(text, o.typed); err != nil {
			t.Errorf("%s: %v", o, err)
		}
		return o
	}
	make, ok := kinds[kind]
	if !ok {
		t.Fatalf("%s: no type for %s", o, kind)
	}
	o.typed = make()
	if err := yaml.UnmarshalStrict(text, o.typed); err != nil {
		t.Errorf("%s: %v", o, err)
	}
	return o
}

// conforms checks a custom resource by the schema of its definition.
func conforms(kind string, text []byte) error {
	blob, err := os.ReadFile(filepath.Join("testdata", "keda-"+strings.ToLower(kind)+".schema.json"))
	if err != nil {
		return err
	}
	schema, err := jsonschema.UnmarshalJSON(strings.NewReader(string(blob)))
	if err != nil {
		return err
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("crd.json", schema); err != nil {
		return err
	}
	compiled, err := compiler.Compile("crd.json")
	if err != nil {
		return err
	}
	document, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(document, &value); err != nil {
		return err
	}
	return compiled.Validate(value)
}

// of returns the objects of a type, by name.
func of[T any](objects []object) map[string]*T {
	found := map[string]*T{}
	for _, o := range objects {
		if typed, ok := o.typed.(*T); ok {
			found[o.name] = typed
		}
	}
	return found
}

// pods are what makes pods: their templates, by the name of what makes them.
func pods(objects []object) map[string]core.PodTemplateSpec {
	found := map[string]core.PodTemplateSpec{}
	for name, d := range of[apps.Deployment](objects) {
		found[name] = d.Spec.Template
	}
	for name, j := range of[batch.Job](objects) {
		found[name] = j.Spec.Template
	}
	return found
}

// environment is what a container gets, of its ConfigMaps and its own list; the Secret's values are not known.
func environment(t *testing.T, objects []object, c core.Container) map[string]string {
	t.Helper()
	all := map[string]string{}
	maps := of[core.ConfigMap](objects)
	for _, from := range c.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			m, ok := maps[from.ConfigMapRef.Name]
			if !ok {
				t.Errorf("%s: there is no ConfigMap %s", c.Name, from.ConfigMapRef.Name)
				continue
			}
			for name, value := range m.Data {
				all[name] = value
			}
		case from.SecretRef != nil:
			for name := range exampleSecret(t, from.SecretRef.Name) {
				all[name] = ""
			}
		}
	}
	for _, e := range c.Env {
		all[e.Name] = e.Value
	}
	return all
}

// exampleSecret is the Secret that users make after the example, which has no values.
func exampleSecret(t *testing.T, name string) map[string]string {
	t.Helper()
	o := decode(t, read(t, filepath.Join(deployDir, "kubernetes/base/secret.example.yaml")))
	secret := o.typed.(*core.Secret)
	if secret.Name != name {
		t.Errorf("there is no example of the Secret %s", name)
	}
	for key, value := range secret.StringData {
		if value != "" {
			t.Errorf("the example of %s has a value for %s", name, key)
		}
	}
	return secret.StringData
}

func containerPorts(pod core.PodTemplateSpec) (names []string) {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			names = append(names, p.Name)
		}
	}
	return names
}

func within(selector, labels map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

// selected are the pods that labels select, which must be some.
func selected(t *testing.T, who fmt.Stringer, objects []object, labels map[string]string) []string {
	t.Helper()
	var names []string
	for name, pod := range pods(objects) {
		if within(labels, pod.Labels) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		t.Errorf("%s selects no pod by %v", who, labels)
	}
	slices.Sort(names)
	return names
}
