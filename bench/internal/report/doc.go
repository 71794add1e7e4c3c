// Package report writes measurements into a Markdown file that holds one section a package: goal, peer, ours, ratio, met.
// A run replaces the section of what it measured and leaves the others as they are.
package report
