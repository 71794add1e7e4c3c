// Package deploytest shows that the files of examples/deploy are right, as far as that can be shown without an engine for
// containers: the real servers start with them, and the whole topology runs as processes. Package manifests checks what is
// for Compose, Kubernetes and Docker against their own schemas and types.
package deploytest
