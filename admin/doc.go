// Package admin is the operations floor: packages hand it their operations, it mounts them once with authentication,
// audit and one error shape.
package admin
