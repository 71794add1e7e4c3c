package manifests

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/scaleaware/scaleaware/metrics"
)

var (
	update = flag.Bool("update", false, "write the files that are made of the table of key metrics")
	crds   = flag.String("crds", "", "write KEDA's schemas anew, from the config/crd/bases of its source in this `directory`")
)

// TestGeneratedGolden keeps rules and dashboard equal to the table of key metrics.
func TestGeneratedGolden(t *testing.T) {
	table := metrics.KeyMetrics()
	for name, want := range map[string][]byte{
		"scaleaware.rules.yml": table.Rules(), "scaleaware.dashboard.json": table.Dashboard(), "prometheusrule.yaml": prometheusRule(table.Rules()),
	} {
		path := filepath.Join(kubernetesDir, "monitoring", name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // others read it
				t.Fatal(err)
			}
		}
		if !bytes.Equal(read(t, path), want) {
			t.Errorf("%s is not what the table makes: run make golden", path)
		}
	}
}

// prometheusRule puts the rules into prometheus-operator's object.
func prometheusRule(rules []byte) []byte {
	comment, groups, _ := strings.Cut(string(rules), "\n")
	var b strings.Builder
	b.WriteString(comment + "\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: scaleaware\nspec:\n")
	for line := range strings.Lines(groups) {
		if strings.TrimSpace(line) != "" {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	return []byte(b.String())
}

// TestKEDASchemas writes the schemas when it is told to, and sees that they refuse what is not in them.
func TestKEDASchemas(t *testing.T) {
	for _, kind := range []string{"ScaledObject", "TriggerAuthentication"} {
		if *crds != "" {
			writeSchema(t, kind)
		}
		if err := conforms(kind, []byte("apiVersion: keda.sh/v1alpha1\nkind: "+kind+"\nmetadata: {name: x}\nspec: {pollinginterval: 5}\n")); err == nil || !strings.Contains(err.Error(), "pollinginterval") {
			t.Errorf("%s: an unknown field: %v", kind, err)
		}
	}
}

// writeSchema makes a JSON schema of a resource definition: without its prose, and strict.
func writeSchema(t *testing.T, kind string) {
	t.Helper()
	lower := strings.ToLower(kind)
	var definition struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct {
					OpenAPIV3Schema map[string]any `json:"openAPIV3Schema"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(*crds, "keda.sh_"+lower+"s.yaml")), &definition); err != nil {
		t.Fatal(err)
	}
	if v := definition.Spec.Versions; len(v) != 1 || v[0].Name != "v1alpha1" {
		t.Fatalf("%s has the versions %+v", kind, v)
	}
	blob, err := json.MarshalIndent(strict(definition.Spec.Versions[0].Schema.OpenAPIV3Schema), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", "keda-"+lower+".schema.json"), append(blob, '\n'), 0o644); err != nil { //nolint:gosec // others read it
		t.Fatal(err)
	}
}

func strict(node map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range node {
		if key != "description" && key != "format" && !strings.HasPrefix(key, "x-") {
			out[key] = value
		}
	}
	if properties, ok := node["properties"].(map[string]any); ok {
		each := map[string]any{}
		for name, property := range properties {
			each[name] = strict(property.(map[string]any))
		}
		out["properties"] = each
		if node["x-kubernetes-preserve-unknown-fields"] != true {
			out["additionalProperties"] = false
		}
	}
	for _, key := range []string{"items", "additionalProperties"} {
		if child, ok := node[key].(map[string]any); ok {
			out[key] = strict(child)
		}
	}
	return out
}
