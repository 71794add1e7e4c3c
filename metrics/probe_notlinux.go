//go:build !linux

package metrics

// Without /proc these are not known, and the report says so.

func openFiles() (n, most float64) { return unknown, unknown }

func residentBytes() float64 { return unknown }

func groupMemory() (used, most float64) { return unknown, unknown }

func ownThrottling() []periods { return nil }

func ownCores() float64 { return unknown }

func machineMemory() (used, most float64) { return unknown, unknown }
