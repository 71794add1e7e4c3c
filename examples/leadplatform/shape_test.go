package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var (
	leftOut  = regexp.MustCompile(`(?m)^\s*…,?\s*$`)
	noComma  = regexp.MustCompile(`,(\s*[}\]])`)
	figures  = regexp.MustCompile(`[0-9A-F]*\d[\d.:/A-F]*`)
	blanks   = regexp.MustCompile(`[ \t]+`)
	ruleLine = regexp.MustCompile(`-{3,}`)
)

// sameJSON tells whether all that is shown is there: as many values, in each of them each key, with a value of the same kind, and each
// true and false. Lines of nothing but "…" stand for what was left out.
func sameJSON(shown, printed string) error {
	want, err := values(noComma.ReplaceAllString(leftOut.ReplaceAllString(shown, ""), "$1"))
	if err != nil {
		return fmt.Errorf("what is shown is no JSON: %w", err)
	}
	got, err := values(printed)
	if err != nil {
		return fmt.Errorf("what was printed is no JSON: %w", err)
	}
	if len(want) != len(got) {
		return fmt.Errorf("%d values were printed, %d are shown", len(got), len(want))
	}
	for n := range want {
		if err := within(want[n], got[n], fmt.Sprintf("value %d: ", n+1)); err != nil {
			return err
		}
	}
	return nil
}

func values(text string) (all []any, err error) {
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var v any
		switch err := d.Decode(&v); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, v)
	}
}

func within(want, got any, path string) error {
	switch want := want.(type) {
	case nil:
		return nil
	case map[string]any:
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is no object", path)
		}
		for key, value := range want {
			inner, ok := object[key]
			if !ok {
				return fmt.Errorf("there is no %s.%s", path, key)
			}
			if err := within(value, inner, path+"."+key); err != nil {
				return err
			}
		}
		return nil
	case []any:
		list, ok := got.([]any)
		if !ok {
			return fmt.Errorf("%s is no array", path)
		}
		for n, value := range want {
			err := fmt.Errorf("%s is empty", path)
			for _, element := range list {
				if err = within(value, element, fmt.Sprintf("%s[%d]", path, n)); err == nil {
					break
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	case bool:
		if got != want {
			return fmt.Errorf("%s is %v, shown is %v", path, got, want)
		}
		return nil
	}
	if reflect.TypeOf(want) != reflect.TypeOf(got) {
		return fmt.Errorf("%s is %v, shown is %v", path, got, want)
	}
	return nil
}

// sameText compares line by line. Figures, times and addresses may differ, and the width of columns; a line that ends in "…" is
// the beginning of one; a line of nothing else stands for any number of lines.
func sameText(shown, printed string) error {
	lines := strings.Split(strings.TrimRight(printed, "\n"), "\n")
	skip := false
	for want := range strings.SplitSeq(strings.TrimRight(shown, "\n"), "\n") {
		if strings.TrimSpace(want) == "…" {
			skip = true
			continue
		}
		found := false
		for len(lines) > 0 && !found {
			found = sameLine(want, lines[0])
			lines = lines[1:]
			if !skip && !found {
				break
			}
		}
		if !found {
			return fmt.Errorf("not printed: %s", want)
		}
		skip = false
	}
	if !skip && len(lines) > 0 && strings.TrimSpace(strings.Join(lines, "")) != "" {
		return fmt.Errorf("not shown: %s", strings.Join(lines, "\n"))
	}
	return nil
}

func sameLine(want, got string) bool {
	plain := func(s string) string {
		s = figures.ReplaceAllString(ruleLine.ReplaceAllString(s, "---"), "0")
		return strings.TrimSpace(blanks.ReplaceAllString(s, " "))
	}
	if beginning, ok := strings.CutSuffix(strings.TrimSpace(want), "…"); ok {
		return strings.HasPrefix(plain(got), plain(beginning))
	}
	return plain(got) == plain(want)
}

func TestShapes(t *testing.T) {
	json := func(shown, printed string) bool { return sameJSON(shown, printed) == nil }
	text := func(shown, printed string) bool { return sameText(shown, printed) == nil }
	for name, ok := range map[string]bool{
		"same keys":       json(`{"a": 1, "b": ["x"]}`, `{"b": ["y", "z"], "a": 2, "c": 0}`),
		"left out":        json("{\n\"a\": 1,\n…\n}", `{"a": 2, "b": 3}`),
		"some element":    json(`[{"a": {"b": true}}]`, `[{}, {"a": {"b": true}}]`),
		"several values":  json(`{"a": 1} {"b": 1}`, "{\"a\": 2}\n{\"b\": 2}\n"),
		"a value more":    !json(`{"a": 1}`, `{"a": 2} {"b": 2}`),
		"missing key":     !json(`{"a": {"b": 1}}`, `{"a": {}}`),
		"other kind":      !json(`{"a": 1}`, `{"a": "1"}`),
		"other truth":     !json(`{"a": true}`, `{"a": false}`),
		"empty array":     !json(`[1]`, `[]`),
		"figures":         text("held after 1.5 s\n a | 10", "held after 22 s\n a  |  9\n"),
		"beginning":       text("held …", "held by 3\n"),
		"lines left out":  text("first\n…\nlast\n", "first\nx\ny\nlast\n"),
		"end left out":    text("first\n…\n", "first\nx\n"),
		"other word":      !text("held", "draining"),
		"more than shown": !text("held", "held\nmore"),
		"less than shown": !text("held\nmore", "held"),
	} {
		if !ok {
			t.Error(name)
		}
	}
}
