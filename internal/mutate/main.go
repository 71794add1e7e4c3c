package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// helper is what mutated code calls.
const helper = `package %s

import "os"

var mutantChosen = os.Getenv("MUTANT")

func mutated[T any](id string, right, wrong T) T {
	if mutantChosen == id {
		return wrong
	}
	return right
}

func mutatedBool(id string, right, wrong func() bool) bool {
	if mutantChosen == id {
		return wrong()
	}
	return right()
}
`

func main() {
	dir := flag.String("dir", "metrics", "the package's folder")
	run := flag.String("run", ".", "the tests that should notice")
	least := flag.Float64("least", .95, "the part of mutants that must be caught")
	every := flag.Int("every", 1, "try only each so manieth mutant")
	flag.Parse()
	if err := mutate(*dir, *run, *least, *every, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// patience is how many times as long as without a mutant the tests may take, and a few seconds more for a machine that
// is busy. A mutant that hangs longer is caught.
func patience(took time.Duration) time.Duration { return 10*took + 10*time.Second }

func mutate(dir, run string, least float64, every int, files []string) error {
	work, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	full, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	overlay := map[string]string{}
	put := func(name, text string) error {
		overlay[filepath.Join(full, name)] = filepath.Join(work, name)
		return os.WriteFile(filepath.Join(work, name), []byte(text), 0o600)
	}
	var mutants []mutant
	var pkg string
	for _, name := range files {
		text, name2, found, err := rewrite(filepath.Join(full, name), len(mutants))
		if err != nil {
			return err
		}
		mutants, pkg = append(mutants, found...), name2
		if err := put(name, text); err != nil {
			return err
		}
	}
	if err := put("mutant_helper.go", fmt.Sprintf(helper, pkg)); err != nil {
		return err
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return err
	}
	overlayFile, binary := filepath.Join(work, "overlay.json"), filepath.Join(work, "mutants.test")
	if err := os.WriteFile(overlayFile, list, 0o600); err != nil {
		return err
	}
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlayFile, "-o", binary, ".")
	build.Dir = full
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the mutants: %w\n%s", err, out)
	}
	timeout := 2 * time.Minute
	test := func(id string) (passed, hung bool) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, "-test.failfast", "-test.run", run)
		cmd.Dir, cmd.Env = full, append(os.Environ(), "MUTANT="+id)
		err := cmd.Run()
		return err == nil, ctx.Err() != nil
	}
	began := time.Now()
	if passed, _ := test("none"); !passed {
		return fmt.Errorf("the tests %q fail without a mutant: mend them first", run)
	}
	timeout = patience(time.Since(began))
	var all score
	of := map[string]*score{}
	for i, m := range mutants {
		if i%every != 0 {
			continue
		}
		passed, hung := test(fmt.Sprint(i))
		if passed {
			fmt.Printf("survives: %s\n", m)
		} else if hung {
			fmt.Printf("hangs: %s\n", m)
		}
		file := filepath.Base(m.at.Filename)
		if of[file] == nil {
			of[file] = &score{}
		}
		of[file].count(!passed)
		all.count(!passed)
	}
	for _, file := range files {
		if s := of[file]; s != nil {
			fmt.Printf("%s: %s\n", file, s)
		}
	}
	if len(files) > 1 {
		fmt.Println("all:", &all)
	}
	if !(all.part() >= least) {
		return fmt.Errorf("want at least %.0f %%", 100*least)
	}
	return nil
}

type score struct{ caught, tried int }

func (s *score) count(caught bool) {
	s.tried++
	if caught {
		s.caught++
	}
}

func (s *score) part() float64 { return float64(s.caught) / float64(s.tried) }

func (s *score) String() string {
	return fmt.Sprintf("%d of %d mutants caught, %.1f %%", s.caught, s.tried, 100*s.part())
}
