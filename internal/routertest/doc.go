// Package routertest mounts the operations under chi, echo and gin, as their users would. It is a module of its own, so that
// nobody who uses this one downloads them.
package routertest
