//go:build linux || darwin || freebsd || netbsd || openbsd

package metrics

import "syscall"

// cpuSeconds is the time that all threads of this process have run.
func cpuSeconds() (float64, bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9, true
}
