package scalehook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/queue"
)

const (
	inCluster = "https://kubernetes.default.svc"
	account   = "/var/run/secrets/kubernetes.io/serviceaccount/"
	// conflictTries bounds how often a workload that somebody else changes at the same time is read again.
	conflictTries = 4
	// generationKey is the annotation that keeps the highest generation that was obeyed.
	generationKey = "scaleaware/generation"
)

// KubernetesOptions configures Kubernetes. Every field is optional; the zero value is right in a pod.
type KubernetesOptions struct {
	// Server is the API server's URL, https only. Zero means https://kubernetes.default.svc.
	Server string
	// Namespace is the Deployment's. Zero means the pod's own.
	Namespace string
	// Resource is what is scaled: deployments, statefulsets or replicasets. Zero means deployments.
	Resource string
	// TokenFile and CAFile are read before each call, as the token is replaced while the pod runs. Zero means the
	// service account's.
	TokenFile, CAFile string
	// Timeout bounds one request. Zero means 5s.
	Timeout time.Duration
}

// dnsLabel is what Kubernetes allows in names; nothing else gets into a path.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

// cluster is one workload.
type cluster struct {
	opts   KubernetesOptions
	server *url.URL
	name   string

	mu     sync.Mutex
	ca     string // what client trusts
	client *http.Client
}

// workload is what is read of a Deployment, StatefulSet or ReplicaSet.
type workload struct {
	Metadata struct {
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Replicas int `json:"replicas"`
	} `json:"spec"`
}

// generation is the highest that was obeyed, 0 for none.
func (w *workload) generation() int64 {
	n, err := strconv.ParseInt(w.Metadata.Annotations[generationKey], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Kubernetes makes a hook that sets the replicas of the Deployment called name, and keeps the decision's generation in its
// annotation "scaleaware/generation", which starts no rollout: ErrOldGeneration is what an older one gets. Its service account needs
// the verbs get and patch on deployments, as a scale keeps no annotation. Nothing else may scale the Deployment, no
// HorizontalPodAutoscaler either.
func Kubernetes(name string, o *KubernetesOptions) (queue.ScaleHook, error) {
	c := &cluster{name: name}
	if o != nil {
		c.opts = *o
	}
	for field, zero := range map[*string]string{
		&c.opts.Server: inCluster, &c.opts.Resource: "deployments", &c.opts.TokenFile: account + "token", &c.opts.CAFile: account + "ca.crt",
	} {
		if *field == "" {
			*field = zero
		}
	}
	if c.opts.Timeout == 0 {
		c.opts.Timeout = defaultTimeout
	}
	var errs []error
	var err error
	if c.server, err = url.Parse(c.opts.Server); err != nil || c.server.Scheme != "https" || c.server.Host == "" || c.server.User != nil || c.server.RawQuery != "" {
		errs = append(errs, errors.New("scalehook: KubernetesOptions.Server is no plain https://host:port"))
	}
	if !dnsLabel.MatchString(name) {
		errs = append(errs, fmt.Errorf("scalehook: the name is %q, want lower-case letters, digits, dashes and dots as Kubernetes has them", clip(name)))
	}
	if ns := c.opts.Namespace; ns != "" && (!dnsLabel.MatchString(ns) || strings.Contains(ns, ".")) {
		errs = append(errs, fmt.Errorf("scalehook: KubernetesOptions.Namespace is %q, want lower-case letters, digits and dashes", clip(ns)))
	}
	switch c.opts.Resource {
	case "deployments", "statefulsets", "replicasets":
	default:
		errs = append(errs, fmt.Errorf("scalehook: KubernetesOptions.Resource is %q, want deployments, statefulsets or replicasets", clip(c.opts.Resource)))
	}
	if c.opts.Timeout < 0 {
		errs = append(errs, fmt.Errorf("scalehook: KubernetesOptions.Timeout is %v, want a positive one or 0 for the default", c.opts.Timeout))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c.set, nil
}

// set reads the workload, and patches it if nobody has changed it since: a process that stood still in between changes
// nothing, and finds at its next look that a newer generation was there.
func (c *cluster) set(ctx context.Context, d queue.Decision) error {
	if d.Workers < 0 {
		return fmt.Errorf("scalehook: a decision for %d workers is none", d.Workers)
	}
	target, err := c.target()
	if err != nil {
		return err
	}
	for range conflictTries {
		now, err := c.do(ctx, http.MethodGet, target, nil)
		if err != nil {
			return err
		}
		seen := now.generation()
		switch {
		case d.Generation < seen:
			return fmt.Errorf("%w: %s has obeyed generation %d, this is %d", ErrOldGeneration, c.name, seen, d.Generation)
		case d.Generation == seen && now.Spec.Replicas == d.Workers:
			return nil
		}
		// The replicas are sent also where they are right: this generation has to be known before an older one is refused.
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{
				"resourceVersion": now.Metadata.ResourceVersion,
				"annotations":     map[string]string{generationKey: strconv.FormatInt(d.Generation, 10)},
			},
			"spec": map[string]any{"replicas": d.Workers},
		})
		if err != nil {
			return fmt.Errorf("scalehook: encode a patch: %w", err)
		}
		if _, err = c.do(ctx, http.MethodPatch, target, patch); !errors.Is(err, errConflict) {
			return err
		}
	}
	return fmt.Errorf("%w in each of %d tries: something else changes %s, let one of them do it", errConflict, conflictTries, c.name)
}

// ErrOldGeneration means that what is scaled has obeyed a newer decision, as a rule because another process leads by now, and
// nothing was done. Of a receiver of HTTP's it is what a 409 means, whatever the receiver meant.
var ErrOldGeneration = errors.New("scalehook: a newer decision was obeyed, nothing was done")

var errConflict = errors.New("scalehook: the workload was changed at the same time")

// target is the workload's URL. The pod's namespace is not known before it runs.
func (c *cluster) target() (*url.URL, error) {
	ns := c.opts.Namespace
	if ns == "" {
		text, err := os.ReadFile(account + "namespace")
		if err != nil {
			return nil, fmt.Errorf("scalehook: outside of a pod KubernetesOptions.Namespace is needed: %w", err)
		}
		if ns = strings.TrimSpace(string(text)); !dnsLabel.MatchString(ns) {
			return nil, fmt.Errorf("scalehook: the pod's namespace is %q", clip(ns))
		}
	}
	return c.server.JoinPath("apis/apps/v1/namespaces", ns, c.opts.Resource, c.name), nil // #nosec G125 -- all are checked to be DNS labels
}

func (c *cluster) do(ctx context.Context, method string, target *url.URL, patch []byte) (workload, error) {
	client, err := c.trusting()
	if err != nil {
		return workload{}, err
	}
	status, reply, err := send(ctx, client, c.opts.Timeout, c.opts.TokenFile, method, target, "application/merge-patch+json", "", patch)
	if err != nil {
		return workload{}, err
	}
	switch status {
	case http.StatusOK, http.StatusCreated:
		var w workload
		if err := json.Unmarshal(reply, &w); err != nil {
			return workload{}, fmt.Errorf("scalehook: the answer of %s is none of %s: %w", target.Host, c.opts.Resource, err)
		}
		return w, nil
	case http.StatusConflict:
		return workload{}, errConflict
	case http.StatusUnauthorized, http.StatusForbidden:
		return workload{}, fmt.Errorf("scalehook: Kubernetes refuses to %s %s (status %d), its service account needs get and patch on %s: %s",
			strings.ToLower(method), c.name, status, c.opts.Resource, message(reply))
	case http.StatusNotFound:
		return workload{}, fmt.Errorf("scalehook: Kubernetes has no %s %s there, check name and namespace: %s", c.opts.Resource, c.name, message(reply))
	default:
		return workload{}, fmt.Errorf("scalehook: Kubernetes answered a %s of %s with status %d: %s", method, c.name, status, message(reply))
	}
}

// message is what a Status object says.
func message(reply []byte) string {
	var s struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(reply, &s) != nil || s.Message == "" {
		return "no message"
	}
	return clip(s.Message)
}

// trusting returns a client that trusts what CAFile has now.
func (c *cluster) trusting() (*http.Client, error) {
	ca, err := os.ReadFile(c.opts.CAFile)
	if err != nil {
		return nil, fmt.Errorf("scalehook: read the certificate authority: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil && c.ca == string(ca) {
		return c.client, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("scalehook: %s has no certificate in PEM form", c.opts.CAFile)
	}
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
	c.ca = string(ca)
	c.client = &http.Client{
		// A hook is called seldom: a connection that is kept is dead when it is needed.
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.client, nil
}
