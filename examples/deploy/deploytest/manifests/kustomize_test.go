package manifests

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
)

const kubernetesDir = deployDir + "/kubernetes"

// eachOverlay runs a test for the objects of each overlay.
func eachOverlay(t *testing.T, test func(t *testing.T, name string, objects []object)) {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(kubernetesDir, "overlays/*"))
	if err != nil || len(dirs) < 2 {
		t.Fatalf("overlays: %v, %v", dirs, err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { test(t, filepath.Base(dir), build(t, dir)) })
	}
}

func TestOverlays(t *testing.T) {
	eachOverlay(t, func(t *testing.T, name string, objects []object) {
		migrate := build(t, filepath.Join(kubernetesDir, "overlays", name, "migrate"))
		image := of[batch.Job](migrate)["migrate"].Spec.Template.Spec.Containers[0].Image
		for _, o := range slices.Concat(objects, migrate) {
			if want := "lead-" + name; o.namespace != want && o.kind != "Namespace" || o.kind == "Namespace" && o.name != want {
				t.Errorf("%s is in namespace %q", o, o.namespace)
			}
			if o.kind == "Secret" {
				t.Errorf("%s: no Secret is made here", o)
			}
		}
		for who, pod := range pods(objects) {
			if got := pod.Spec.Containers[0].Image; got != image || !versionTag.MatchString(got) {
				t.Errorf("%s runs %s, migrations %s", who, got, image)
			}
		}
		for _, all := range [][]object{objects, migrate} {
			checkPods(t, all)
		}
		checkSelectors(t, objects)
		checkNetwork(t, objects)
		checkScaling(t, objects)
		checkMonitoring(t, objects)
		if name == "production" {
			runbookSizes(t, objects)
		}
	})
}

// runbookSizes holds production to the runbook's sizes.
func runbookSizes(t *testing.T, objects []object) {
	t.Helper()
	r := of[apps.Deployment](objects)["api"].Spec.Template.Spec.Containers[0].Resources
	got := []string{r.Requests.Cpu().String(), r.Requests.Memory().String(), r.Limits.Cpu().String(), r.Limits.Memory().String()}
	if want := []string{"2", "4Gi", "4", "8Gi"}; !slices.Equal(got, want) {
		t.Errorf("the API has %v, the runbook says %v", got, want)
	}
}

// checkPods looks at what runs: who it is, what it may, what it is told, and how it is probed and stopped.
func checkPods(t *testing.T, objects []object) {
	t.Helper()
	c := readCode(t)
	programs := programsOfImage(t)
	for name, pod := range pods(objects) {
		s := pod.Spec.SecurityContext
		if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
			t.Errorf("%s is not restricted: %+v", name, s)
		}
		for _, container := range pod.Spec.Containers {
			restricted(t, name, container)
			if !slices.Contains(programs, container.Command[0]) {
				t.Errorf("%s runs %s, the image has %v", name, container.Command[0], programs)
			}
			env := environment(t, objects, container)
			c.reads(t, name, env)
			if name == "migrate" {
				continue
			}
			if grace, need := time.Duration(*pod.Spec.TerminationGracePeriodSeconds)*time.Second, c.needsToStop(t, env); grace < need+5*time.Second {
				t.Errorf("%s is killed after %v, and stopping may take %v", name, grace, need)
			}
			for what, probe := range map[string]*core.Probe{"startup": container.StartupProbe, "readiness": container.ReadinessProbe, "liveness": container.LivenessProbe} {
				if probe == nil || probe.HTTPGet.Port.StrVal != "management" {
					t.Fatalf("%s has no %s probe of the management port", name, what)
				}
				c.probe(t, name, probe.HTTPGet.Path)
			}
			if p := container.LivenessProbe.HTTPGet.Path; p != "/livez" {
				t.Errorf("%s: liveness asks %s: what asks servers restarts pods when those are down", name, p)
			}
			for _, port := range container.Ports {
				addr := map[string]string{"http": env["HOST"] + ":" + env["PORT"], "management": env["ADMIN_ADDR"]}[port.Name]
				if !strings.HasSuffix(addr, ":"+regexp.QuoteMeta(itoa(port.ContainerPort))) {
					t.Errorf("%s: port %s is %d, the program listens on %s", name, port.Name, port.ContainerPort, addr)
				}
			}
		}
	}
}

func restricted(t *testing.T, name string, c core.Container) {
	t.Helper()
	s := c.SecurityContext
	if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
		t.Errorf("%s: container %s is not restricted", name, c.Name)
	}
	for _, list := range []core.ResourceList{c.Resources.Requests, c.Resources.Limits} {
		if list.Cpu().IsZero() || list.Memory().IsZero() {
			t.Errorf("%s: container %s has no resources: %v", name, c.Name, list)
		}
	}
}

func checkSelectors(t *testing.T, objects []object) {
	t.Helper()
	for _, o := range objects {
		switch typed := o.typed.(type) {
		case *apps.Deployment:
			for _, spread := range typed.Spec.Template.Spec.TopologySpreadConstraints {
				if !within(spread.LabelSelector.MatchLabels, typed.Spec.Template.Labels) {
					t.Errorf("%s spreads others than its own pods", o)
				}
			}
			if len(typed.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
				t.Errorf("%s does not spread", o)
			}
			if got := selected(t, o, objects, typed.Spec.Selector.MatchLabels); !slices.Equal(got, []string{o.name}) {
				t.Errorf("%s selects the pods of %v", o, got)
			}
		case *core.Service:
			for _, name := range selected(t, o, objects, typed.Spec.Selector) {
				for _, port := range typed.Spec.Ports {
					if !slices.Contains(containerPorts(pods(objects)[name]), port.TargetPort.StrVal) {
						t.Errorf("%s sends to port %s, which %s does not have", o, port.TargetPort.StrVal, name)
					}
					if port.TargetPort.StrVal == "management" && (typed.Spec.ClusterIP != core.ClusterIPNone || typed.Spec.Type != "") {
						t.Errorf("%s offers the management port to all", o)
					}
				}
			}
		case *policy.PodDisruptionBudget:
			selected(t, o, objects, typed.Spec.Selector.MatchLabels)
		}
	}
	for name := range of[apps.Deployment](objects) {
		if of[policy.PodDisruptionBudget](objects)[name] == nil {
			t.Errorf("%s has no PodDisruptionBudget", name)
		}
	}
}

// allowed are the namespaces from which the management port may be reached, by the labels that select them.
var allowed = []map[string]string{
	{"kubernetes.io/metadata.name": "monitoring"}, {"kubernetes.io/metadata.name": "keda"}, {"scaleaware.io/operators": "true"},
}

func checkNetwork(t *testing.T, objects []object) {
	t.Helper()
	denied := false
	for name, p := range of[networking.NetworkPolicy](objects) {
		if !slices.Equal(p.Spec.PolicyTypes, []networking.PolicyType{networking.PolicyTypeIngress}) {
			t.Errorf("NetworkPolicy %s is for %v", name, p.Spec.PolicyTypes)
		}
		if len(p.Spec.PodSelector.MatchLabels) == 0 && len(p.Spec.PodSelector.MatchExpressions) == 0 {
			denied = denied || len(p.Spec.Ingress) == 0
			if len(p.Spec.Ingress) > 0 {
				t.Errorf("NetworkPolicy %s opens every pod", name)
			}
			continue
		}
		for _, rule := range p.Spec.Ingress {
			if len(rule.Ports) == 0 || len(rule.From) == 0 {
				t.Errorf("NetworkPolicy %s opens all ports, or to all", name)
			}
			for _, port := range rule.Ports {
				for _, pod := range selected(t, object{kind: "NetworkPolicy", name: name}, objects, p.Spec.PodSelector.MatchLabels) {
					if !slices.Contains(containerPorts(pods(objects)[pod]), port.Port.StrVal) {
						t.Errorf("NetworkPolicy %s names port %s, which %s does not have", name, port.Port.StrVal, pod)
					}
				}
				if port.Port.StrVal != "management" {
					continue
				}
				for _, from := range rule.From {
					if from.NamespaceSelector == nil || !slices.ContainsFunc(allowed, func(labels map[string]string) bool {
						return within(labels, from.NamespaceSelector.MatchLabels)
					}) {
						t.Errorf("NetworkPolicy %s opens the management port to %+v", name, from)
					}
				}
			}
		}
	}
	if !denied {
		t.Error("no NetworkPolicy denies what the others do not allow")
	}
}

func checkMonitoring(t *testing.T, objects []object) {
	t.Helper()
	monitors := of[monitoring.ServiceMonitor](objects)
	if len(monitors) == 0 || len(of[monitoring.PrometheusRule](objects)) == 0 {
		t.Error("nothing is watched")
	}
	for name, m := range monitors {
		found := 0
		for _, service := range of[core.Service](objects) {
			if !within(m.Spec.Selector.MatchLabels, service.Labels) {
				continue
			}
			found++
			for _, endpoint := range m.Spec.Endpoints {
				if !slices.ContainsFunc(service.Spec.Ports, func(p core.ServicePort) bool { return p.Name == endpoint.Port }) {
					t.Errorf("ServiceMonitor %s scrapes port %s, which %s does not have", name, endpoint.Port, service.Name)
				}
				if ref := endpoint.Authorization.Credentials; !hasKey(exampleSecret(t, ref.Name), ref.Key) {
					t.Errorf("ServiceMonitor %s bears %s of %s, which has no such key", name, ref.Key, ref.Name)
				}
			}
		}
		if found != 1 {
			t.Errorf("ServiceMonitor %s selects %d Services", name, found)
		}
	}
}

func hasKey(m map[string]string, key string) bool { _, ok := m[key]; return ok }

func checkScaling(t *testing.T, objects []object) {
	t.Helper()
	deployments := of[apps.Deployment](objects)
	scaled := map[string]int{}
	for name, h := range of[autoscaling.HorizontalPodAutoscaler](objects) {
		scaled[h.Spec.ScaleTargetRef.Name]++
		for _, m := range h.Spec.Metrics {
			if m.Resource == nil || m.Resource.Name != core.ResourceCPU {
				t.Errorf("HorizontalPodAutoscaler %s scales by %+v", name, m)
			}
		}
	}
	choice := ""
	for _, e := range deployments["worker"].Spec.Template.Spec.Containers[0].Env {
		if e.Name == "AUTOSCALE" {
			choice = e.Value
		}
	}
	for _, s := range of[scaledObject](objects) {
		scaled[s.Spec.ScaleTargetRef.Name]++
		if choice != "dry-run" {
			t.Errorf("KEDA scales the worker, and AUTOSCALE is %q", choice)
		}
	}
	if target, ok := strings.CutPrefix(choice, "deployment/"); ok {
		scaled[target]++
		checkRights(t, objects, target)
	}
	for name, d := range deployments {
		if scaled[name] != 1 {
			t.Errorf("%s is scaled by %d", name, scaled[name])
		}
		if d.Spec.Replicas != nil {
			t.Errorf("%s has a number of replicas: each apply undoes what the autoscaler decided", name)
		}
	}
	for name := range scaled {
		if deployments[name] == nil {
			t.Errorf("%s is scaled, and does not exist", name)
		}
	}
}
