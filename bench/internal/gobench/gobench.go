// Package gobench runs the benchmarks that live in packages, where what they measure is not exported, and reads their
// output.
package gobench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/scaleaware/scaleaware/bench/internal/pairs"
)

// Key names a benchmark at a number of CPUs (GOMAXPROCS).
type Key struct {
	Name string // without "Benchmark"
	CPUs int
}

// Figures are what a benchmark printed, all its runs.
type Figures struct {
	Ns pairs.Spread
	// CPU is the CPU time in ns, where the benchmark reports cpu-ns/op: what others on the machine take is not in it.
	CPU pairs.Spread
	// Lowest is the quickest run in ns.
	Lowest        float64
	Bytes, Allocs float64 // the most of all runs
}

// Run runs benchmarks of a package: dir is in its module, and args are for go test.
func Run(ctx context.Context, dir, pkg, pattern string, args ...string) (map[Key]Figures, error) {
	all := append([]string{"test", "-run", "^$", "-bench", pattern, "-benchmem"}, append(args, pkg)...)
	cmd := exec.CommandContext(ctx, "go", all...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("gobench: go %s: %w\n%s", strings.Join(all, " "), err, out)
	}
	return Parse(out)
}

// Parse reads the output of go test -bench -benchmem.
func Parse(out []byte) (map[Key]Figures, error) {
	times, cpu := make(map[Key][]float64), make(map[Key][]float64)
	figures := make(map[Key]Figures)
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		key, values, ok := parseLine(s.Text())
		if !ok {
			continue
		}
		times[key] = append(times[key], values["ns/op"])
		if v, ok := values["cpu-ns/op"]; ok {
			cpu[key] = append(cpu[key], v)
		}
		f := figures[key]
		f.Bytes, f.Allocs = max(f.Bytes, values["B/op"]), max(f.Allocs, values["allocs/op"])
		figures[key] = f
	}
	if len(figures) == 0 {
		return nil, errors.New("gobench: no benchmark was run: does the pattern match one?")
	}
	for key, f := range figures {
		f.Ns, f.Lowest = pairs.SpreadOf(times[key]), slices.Min(times[key])
		f.CPU = pairs.SpreadOf(cpu[key])
		figures[key] = f
	}
	return figures, nil
}

// parseLine reads "BenchmarkX/a=b-2  100  80.1 ns/op  0 B/op  0 allocs/op". With one CPU there is no suffix.
func parseLine(line string) (Key, map[string]float64, bool) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return Key{}, nil, false
	}
	key := Key{Name: strings.TrimPrefix(fields[0], "Benchmark"), CPUs: 1}
	if i := strings.LastIndexByte(key.Name, '-'); i > 0 {
		if n, err := strconv.Atoi(key.Name[i+1:]); err == nil {
			key.Name, key.CPUs = key.Name[:i], n
		}
	}
	values := make(map[string]float64)
	for i := 2; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return Key{}, nil, false
		}
		values[fields[i+1]] = v
	}
	return key, values, true
}
