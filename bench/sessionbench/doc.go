// Package sessionbench measures package session against scs on its own stores, and the middleware of package readonly.
package sessionbench
