// Package browsertest looks at the console page with a real browser. It is a module of its own, so that nobody who uses
// this one downloads what drives the browser.
package browsertest
