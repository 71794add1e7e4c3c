package metrics

import (
	"slices"
	"testing"
	"testing/fstest"
)

func TestGroupsOfCPU(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	root := fstest.MapFS{
		"cpu.stat":         file("usage_usec 1\nuser_usec 1\nsystem_usec 0\n"), // as the root group's
		"cpu.max":          file("400000 100000\n"),
		"pods/cpu.stat":    file("usage_usec 1\nnr_periods 40\nnr_throttled 8\nthrottled_usec 9\n"),
		"pods/cpu.max":     file("150000 100000\n"),
		"pods/me/cpu.stat": file("usage_usec 1\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"),
		"pods/me/cpu.max":  file("max 100000\n"),
	}
	dirs := []string{"pods/me", "pods", "."}
	if got := throttling(root, dirs); !slices.Equal(got, []periods{{0, 0}, {40, 8}}) {
		t.Errorf("periods %v", got)
	}
	if got := allowed(root, dirs); got != 1.5 {
		t.Errorf("%v cores, want those of the group around it", got)
	}
	if got := throttling(fstest.MapFS{}, dirs); got != nil {
		t.Errorf("where there is no version 2: %v", got)
	}
	if got := allowed(fstest.MapFS{}, dirs); got != unknown {
		t.Errorf("where there is no version 2: %v cores", got)
	}
	if own := groups(); len(own) > 0 && own[len(own)-1] != "." {
		t.Errorf("our groups %v do not end at the root", own)
	}
}
