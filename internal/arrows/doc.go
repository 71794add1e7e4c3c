// Package arrows holds the test that keeps the direction of this module's imports: peers stand side by side on a thin
// floor and meet only in examples. It has no code of its own.
package arrows
