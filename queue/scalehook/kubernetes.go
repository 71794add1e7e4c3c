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
	"strings"
	"sync"
	"time"

	"github.com/scaleaware/scaleaware/queue"
)

const (
	inCluster = "https://kubernetes.default.svc"
	account   = "/var/run/secrets/kubernetes.io/serviceaccount/"
	// conflictTries bounds how often a scale that somebody else changes at the same time is read again.
	conflictTries = 4
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

// cluster is one scale subresource.
type cluster struct {
	opts   KubernetesOptions
	server *url.URL
	name   string

	mu     sync.Mutex
	ca     string // what client trusts
	client *http.Client
}

// scale is the autoscaling/v1 Scale.
type scale struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Spec struct {
		Replicas int `json:"replicas"` // left out by the API server when it is 0
	} `json:"spec"`
}

// Kubernetes makes a hook that sets the replicas of the Deployment called name. Its service account needs the verbs get
// and patch on deployments/scale. Nothing else may scale the Deployment, no HorizontalPodAutoscaler either.
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

// set reads the scale, and patches it if nobody has changed it since: a process that stood still in between changes
// nothing.
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
		if now.Spec.Replicas == d.Workers {
			return nil
		}
		patch, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"resourceVersion": now.Metadata.ResourceVersion},
			"spec":     map[string]any{"replicas": d.Workers},
		})
		if err != nil {
			return fmt.Errorf("scalehook: encode a patch: %w", err)
		}
		if _, err = c.do(ctx, http.MethodPatch, target, patch); !errors.Is(err, errConflict) {
			return err
		}
	}
	return fmt.Errorf("%w in each of %d tries: something else scales %s, let one of them do it", errConflict, conflictTries, c.name)
}

var errConflict = errors.New("scalehook: the scale was changed at the same time")

// target is the scale's URL. The pod's namespace is not known before it runs.
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
	return c.server.JoinPath("apis/apps/v1/namespaces", ns, c.opts.Resource, c.name, "scale"), nil // #nosec G125 -- all are checked to be DNS labels
}

func (c *cluster) do(ctx context.Context, method string, target *url.URL, patch []byte) (scale, error) {
	client, err := c.trusting()
	if err != nil {
		return scale{}, err
	}
	status, reply, err := send(ctx, client, c.opts.Timeout, c.opts.TokenFile, method, target, "application/merge-patch+json", "", patch)
	if err != nil {
		return scale{}, err
	}
	switch status {
	case http.StatusOK, http.StatusCreated:
		var s scale
		if err := json.Unmarshal(reply, &s); err != nil {
			return scale{}, fmt.Errorf("scalehook: the answer of %s is no Scale: %w", target.Host, err)
		}
		return s, nil
	case http.StatusConflict:
		return scale{}, errConflict
	case http.StatusUnauthorized, http.StatusForbidden:
		return scale{}, fmt.Errorf("scalehook: Kubernetes refuses to %s the scale of %s (status %d), its service account needs get and patch on %s/scale: %s",
			strings.ToLower(method), c.name, status, c.opts.Resource, message(reply))
	case http.StatusNotFound:
		return scale{}, fmt.Errorf("scalehook: Kubernetes has no %s %s there, check name and namespace: %s", c.opts.Resource, c.name, message(reply))
	default:
		return scale{}, fmt.Errorf("scalehook: Kubernetes answered a %s of the scale of %s with status %d: %s", method, c.name, status, message(reply))
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
