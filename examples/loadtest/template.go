package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
)

var (
	call     = regexp.MustCompile(`\{\{\s*\$randomNumber\((\d+),\s*(\d+)\)\s*\}\}`)
	variable = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
)

// fill puts random numbers and captured values into a text.
func fill(text string, vars map[string]any) string {
	text = call.ReplaceAllStringFunc(text, func(match string) string {
		bounds := call.FindStringSubmatch(match)
		low, _ := strconv.Atoi(bounds[1])
		high, _ := strconv.Atoi(bounds[2])
		return strconv.Itoa(low + rand.IntN(max(1, high-low+1)))
	})
	return variable.ReplaceAllStringFunc(text, func(match string) string {
		return fmt.Sprint(vars[variable.FindStringSubmatch(match)[1]])
	})
}

// parsePath understands the JSON paths $.name and $.name[*].name.
func parsePath(path string) ([]string, error) {
	rest, ok := strings.CutPrefix(path, "$.")
	if !ok || rest == "" {
		return nil, fmt.Errorf("the path %q must begin with $. and a name", path)
	}
	return strings.Split(strings.ReplaceAll(rest, "[*]", ".*"), "."), nil
}

// extract returns the value at a path, a random one when there are several, or false.
func extract(body []byte, path string) (any, bool) {
	steps, err := parsePath(path)
	var value any
	if err != nil || json.Unmarshal(body, &value) != nil {
		return nil, false
	}
	for _, step := range steps {
		switch at := value.(type) {
		case []any:
			if step != "*" || len(at) == 0 {
				return nil, false
			}
			value = at[rand.IntN(len(at))]
		case map[string]any:
			var ok bool
			if value, ok = at[step]; !ok {
				return nil, false
			}
		default:
			return nil, false
		}
	}
	return value, true
}
