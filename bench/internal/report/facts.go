package report

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// Facts describe this machine and this program: what a reader needs to compare results. modules are the paths of those
// whose versions matter.
func Facts(command string, modules ...string) []string {
	facts := []string{
		fmt.Sprintf("Measured %s by `%s`.", time.Now().UTC().Format("2006-01-02 15:04 MST"), command),
		"Machine: " + Machine() + ". Servers and clients share it.",
	}
	versions := "Versions: " + strings.Replace(runtime.Version(), "go", "Go ", 1)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if slices.Contains(modules, m.Path) {
				versions += ", " + m.Path + " " + m.Version
			}
		}
	}
	if commit := commit(); commit != "" {
		versions += "; scaleaware at " + commit
	}
	return append(facts, versions+".")
}

// Machine says what this is measured on.
func Machine() string {
	return fmt.Sprintf("%s, %d cores, %s/%s", cpu(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
}

// Load is how many processes wanted to run lately, over 1 and 5 minutes. Empty where that is not known.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 2 {
		return ""
	}
	return fields[0] + " (1 min), " + fields[1] + " (5 min)"
}

func cpu() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// commit is empty where there is no git. Changes to the results themselves do not make it dirty.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return ""
	}
	name := strings.TrimSpace(string(out))
	changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)bench/RESULTS.md").Output()
	if err == nil && len(changed) > 0 {
		name += ", changed"
	}
	return name
}
