// Package manifests checks Compose file, Dockerfile and Kubernetes manifests of examples/deploy: each is read by the library
// of the tool that will read it, decoded strictly, and compared with the code that it runs.
package manifests
