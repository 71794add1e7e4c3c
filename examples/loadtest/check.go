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

// comparison is of a metric, or of its share in another.
type comparison struct {
	metric, of, operator string
	bound                float64
}

// Result is how a check went.
type Result struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	// Found are the values of the metrics that it names.
	Found string `json:"found"`
}

func (e Ensure) checks() (checks []Check, err error) {
	for _, threshold := range e.Thresholds {
		for metric, bound := range threshold {
			checks = append(checks, Check{fmt.Sprintf("%s < %v", metric, bound), []comparison{{metric, "", "<", bound}}})
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
	if len(checks) == 0 {
		return nil, fmt.Errorf("ensure is empty: nothing would fail the run")
	}
	return checks, nil
}

var compared = regexp.MustCompile(`^\s*([\w.-]+)(?:\s+/\s+([\w.-]+))?\s*(<=|>=|<|>)\s*([0-9.]+)\s*$`)

func parseComparison(text string) (comparison, error) {
	m := compared.FindStringSubmatch(text)
	if m == nil {
		return comparison{}, fmt.Errorf("condition %q: this command knows comparisons of a metric, or of metric / metric, with a number, joined by and", text)
	}
	bound, err := strconv.ParseFloat(m[4], 64)
	return comparison{m[1], m[2], m[3], bound}, err
}

// judge compares; a metric that does not exist fails, as it does in artillery.
func (c Check) judge(metrics map[string]float64) Result {
	result := Result{Check: c.Text, OK: true}
	var found []string
	for _, c := range c.comparisons {
		value, err := c.value(metrics)
		if err != nil {
			found = append(found, err.Error())
		} else {
			found = append(found, strconv.FormatFloat(value, 'g', 4, 64))
		}
		result.OK = result.OK && err == nil && c.holds(value)
	}
	result.Found = strings.Join(found, ", ")
	return result
}

func (c comparison) value(metrics map[string]float64) (float64, error) {
	value, ok := metrics[c.metric]
	if !ok {
		return 0, fmt.Errorf("%s was never seen", c.metric)
	}
	if c.of == "" {
		return value, nil
	}
	whole := metrics[c.of]
	if whole == 0 {
		return 0, fmt.Errorf("%s was never seen", c.of)
	}
	return value / whole, nil
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
