package admin

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxParam is the longest parameter value in bytes.
const maxParam = 1024

// readParams checks path and query against the operation's description.
func (rt *route) readParams(r *http.Request) (dryRun bool, err error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false, Invalid("", "the query is not well-formed: escape it (curl -G --data-urlencode name=value)")
	}
	for _, p := range rt.Params {
		if p.In != "path" {
			continue
		}
		if problem := checkParam(p, r.PathValue(p.Name)); problem != nil {
			return false, problem
		}
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		if len(values) > 1 {
			return false, Invalid(clip(name), "the parameter %q is given %d times: give it once", clip(name), len(values))
		}
		if name == "dry_run" && rt.write {
			if dryRun, err = parseBool(name, values[0]); err != nil {
				return false, err
			}
			continue
		}
		i := slices.IndexFunc(rt.Params, func(p Param) bool { return p.In == "query" && p.Name == name })
		if i < 0 {
			return false, Invalid(clip(name), "there is no parameter %q here: %s", clip(name), rt.knownParams())
		}
		if problem := checkParam(rt.Params[i], values[0]); problem != nil {
			return false, problem
		}
	}
	return dryRun, nil
}

func (rt *route) knownParams() string {
	var names []string
	for _, p := range rt.Params {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	if rt.write {
		names = append(names, "dry_run")
	}
	if len(names) == 0 {
		return "it takes none"
	}
	return "it takes " + strings.Join(names, ", ")
}

func checkParam(p Param, value string) error {
	if len(value) > maxParam {
		return Invalid(p.Name, "%s is longer than %d bytes", p.Name, maxParam)
	}
	switch p.Type {
	case "integer":
		if _, err := strconv.ParseInt(value, 10, 64); err != nil {
			return Invalid(p.Name, "%s has to be an integer, and %q is none", p.Name, clip(value))
		}
	case "boolean":
		_, err := parseBool(p.Name, value)
		return err
	case "duration":
		if _, err := time.ParseDuration(value); err != nil {
			return Invalid(p.Name, "%s has to be a duration such as 90s, 10m or 1h30m, and %q is none", p.Name, clip(value))
		}
	}
	return nil
}

// parseBool takes no short forms: an empty or misspelt dry_run must not run.
func parseBool(name, value string) (bool, error) {
	switch value {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, Invalid(name, "%s has to be true or false, and %q is neither", name, clip(value))
}
