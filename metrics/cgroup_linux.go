package metrics

import (
	"io/fs"
	"os"
	"path"
	"strings"
)

// cgroups is where version 2 of control groups is.
const cgroups = "/sys/fs/cgroup"

// groups are this process's control group and those around it, the innermost first, as folders below cgroups. There are
// none where only version 1 is.
func groups() (dirs []string) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			for dir := strings.TrimPrefix(path.Clean("/"+group), "/"); ; dir = path.Dir(dir) {
				if dir == "" {
					dir = "."
				}
				dirs = append(dirs, dir)
				if dir == "." {
					break
				}
			}
		}
	}
	return dirs
}

// throttling counts the periods of the groups' CPU limits, and those in which they had used up their share. A group without a
// limit counts none.
func throttling(root fs.FS, dirs []string) (list []periods) {
	for _, dir := range dirs {
		text, err := fs.ReadFile(root, path.Join(dir, "cpu.stat"))
		if err == nil && strings.Contains(string(text), "nr_throttled ") {
			list = append(list, periods{field(string(text), "nr_periods "), field(string(text), "nr_throttled ")})
		}
	}
	return list
}

// allowed are the cores of the smallest limit, or unknown where there is none.
func allowed(root fs.FS, dirs []string) float64 {
	cores := float64(unknown)
	for _, dir := range dirs {
		text, err := fs.ReadFile(root, path.Join(dir, "cpu.max"))
		if n := quota(string(text)); err == nil && n > 0 && (cores < 0 || n < cores) {
			cores = n
		}
	}
	return cores
}

func ownCores() float64 { return allowed(os.DirFS(cgroups), groups()) }

func ownThrottling() []periods { return throttling(os.DirFS(cgroups), groups()) }
