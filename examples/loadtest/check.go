package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Check is one line of ensure: every comparison must hold.
type Check struct {
	Text        string
	comparisons []comparison
}

type comparison struct {
	metric, operator string
	bound            float64
}

// Result is how a check went.
type Result struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	// Found are the values of the metrics that it names.
	Found string `json:"found"`
}

// failedShare is what maxErrorRate is about: the percentage of virtual users who did not get through.
const failedShare = "vusers.failed_percent"

func (e Ensure) checks() (checks []Check, err error) {
	for _, threshold := range e.Thresholds {
		for metric, bound := range threshold {
			checks = append(checks, Check{fmt.Sprintf("%s < %v", metric, bound), []comparison{{metric, "<", bound}}})
		}
	}
	for _, condition := range e.Conditions {
		check := Check{Text: condition.Expression}
		for _, text := range strings.Split(condition.Expression, " and ") {
			c, err := parseComparison(text)
			if err != nil {
				return nil, err
			}
			check.comparisons = append(check.comparisons, c)
		}
		checks = append(checks, check)
	}
	if e.MaxErrorRate != nil {
		checks = append(checks, Check{fmt.Sprintf("maxErrorRate <= %v %%", *e.MaxErrorRate), []comparison{{failedShare, "<=", *e.MaxErrorRate}}})
	}
	if len(checks) == 0 {
		return nil, fmt.Errorf("ensure is empty: nothing would fail the run")
	}
	return checks, nil
}

var compared = regexp.MustCompile(`^\s*([\w.-]+)\s*(<=|>=|<|>)\s*([0-9.]+)\s*$`)

func parseComparison(text string) (comparison, error) {
	m := compared.FindStringSubmatch(text)
	if m == nil {
		return comparison{}, fmt.Errorf("condition %q: this command knows comparisons with a number, joined by and", text)
	}
	bound, err := strconv.ParseFloat(m[3], 64)
	return comparison{m[1], m[2], bound}, err
}

// judge compares; a metric that does not exist fails, as it does in artillery.
func (c Check) judge(metrics map[string]float64) Result {
	result := Result{Check: c.Text, OK: true}
	var found []string
	for _, c := range c.comparisons {
		value, ok := metrics[c.metric]
		switch {
		case !ok:
			found = append(found, c.metric+" was never seen")
		default:
			found = append(found, strconv.FormatFloat(value, 'f', -1, 64))
		}
		result.OK = result.OK && ok && c.holds(value)
	}
	result.Found = strings.Join(found, ", ")
	return result
}

func (c comparison) holds(value float64) bool {
	switch c.operator {
	case "<":
		return value < c.bound
	case "<=":
		return value <= c.bound
	case ">":
		return value > c.bound
	default:
		return value >= c.bound
	}
}
