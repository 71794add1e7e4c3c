package metrics

import (
	"math"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
)

// openFiles counts this process's descriptors.
func openFiles() (n, most float64) {
	const dir = "/proc/self/fd"
	n = unknown
	if info, err := os.Stat(dir); err == nil && info.Size() > 0 { // since Linux 6.2 the size is their number
		n = float64(info.Size())
	} else if entries, err := os.ReadDir(dir); err == nil {
		n = float64(len(entries) - 1) // one is for reading the directory
	}
	most = unknown
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err == nil && r.Cur < math.MaxInt64 {
		most = float64(r.Cur)
	}
	return n, most
}

func residentBytes() float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return unknown
	}
	if fields := strings.Fields(string(text)); len(fields) > 1 {
		if pages, err := strconv.ParseFloat(fields[1], 64); err == nil {
			return pages * float64(os.Getpagesize())
		}
	}
	return unknown
}

// groupMemory is what the control group (version 2) counts and allows, without the page cache that it can drop.
func groupMemory() (used, most float64) {
	// A group is bounded by those around it, too. The first limit on the way up is the one to look at.
	for _, dir := range groups() {
		dir = path.Join(cgroups, dir)
		most, used = fileNumber(path.Join(dir, "memory.max")), fileNumber(path.Join(dir, "memory.current")) // "max" is none
		if most <= 0 || used < 0 {
			continue
		}
		if stat, err := os.ReadFile(path.Join(dir, "memory.stat")); err == nil { // #nosec G304 -- of the kernel
			used = max(0, used-field(string(stat), "inactive_file "))
		}
		return used, most
	}
	return unknown, unknown
}

func machineMemory() (used, most float64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return unknown, unknown
	}
	most = 1024 * field(string(text), "MemTotal:")
	return max(0, most-1024*field(string(text), "MemAvailable:")), most
}

func fileNumber(name string) float64 {
	text, err := os.ReadFile(name) // #nosec G304 -- of the kernel
	if err != nil {
		return unknown
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
	if err != nil {
		return unknown
	}
	return n
}

// field finds a number after the name that begins its line, or 0.
func field(text, name string) float64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				if n, err := strconv.ParseFloat(fields[0], 64); err == nil {
					return n
				}
			}
		}
	}
	return 0
}
