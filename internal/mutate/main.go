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
	timeout := flag.Duration("timeout", 2*time.Minute, "for the tests of one mutant; one that hangs is caught")
	flag.Parse()
	if err := mutate(*dir, *run, *least, *every, *timeout, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func mutate(dir, run string, least float64, every int, timeout time.Duration, files []string) error {
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
	test := func(id string) bool {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, "-test.failfast", "-test.run", run)
		cmd.Dir, cmd.Env = full, append(os.Environ(), "MUTANT="+id)
		return cmd.Run() == nil
	}
	if !test("none") {
		return fmt.Errorf("the tests %q fail without a mutant: mend them first", run)
	}
	caught, tried := 0, 0
	for i, m := range mutants {
		if i%every != 0 {
			continue
		}
		tried++
		if test(fmt.Sprint(i)) {
			fmt.Printf("survives: %s\n", m)
		} else {
			caught++
		}
	}
	part := float64(caught) / float64(tried)
	fmt.Printf("%d of %d mutants caught, %.1f %%\n", caught, tried, 100*part)
	if !(part >= least) {
		return fmt.Errorf("want at least %.0f %%", 100*least)
	}
	return nil
}
