// Package tools pins, in a module of its own, the programs that `make check` runs, so that users never download them.
package tools
