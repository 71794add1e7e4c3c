package admin

import (
	"math"
	"slices"
	"strconv"
)

// The sketch's own units; the page stretches it.
const (
	sketchWidth  = 240.0
	sketchHeight = 80.0
)

// sketch is a chart as SVG: what the first paint shows, and browsers without the script for good.
type sketch struct {
	Lines             []sketchLine
	Warning, Critical string // y
}

type sketchLine struct {
	Index int
	Path  string
}

func (c *chart) sketch() *sketch {
	out := &sketch{}
	for i, line := range c.Values {
		out.Lines = append(out.Lines, sketchLine{Index: i % palette, Path: c.path(line)})
	}
	if c.Warning != nil {
		out.Warning = c.y(*c.Warning)
		if *c.Critical <= c.Top {
			out.Critical = c.y(*c.Critical)
		}
	}
	return out
}

// y of a value; one beyond the scale is at its edge.
func (c *chart) y(v figure) string {
	part := max(0, min(1, float64(v/c.Top)))
	return strconv.FormatFloat(sketchHeight-1-(sketchHeight-2)*part, 'f', 1, 64)
}

// path leaves gaps where nothing is known.
func (c *chart) path(line []figure) string {
	var path []byte
	pen := byte('M')
	step := sketchWidth / float64(max(1, len(line)-1))
	for i, v := range line {
		if math.IsNaN(float64(v)) {
			pen = 'M'
			continue
		}
		path = append(path, pen)
		path = strconv.AppendFloat(path, math.Round(float64(i)*step*10)/10, 'f', -1, 64)
		path = append(path, ' ')
		path = append(path, c.y(v)...)
		if pen == 'M' {
			path = append(path, 'h', '0') // a lone point is a dot
		}
		pen = 'L'
	}
	return string(path)
}

// extremes are the smallest and largest value of the line of a scope.
func (c *chart) extremes(scope string) (least, most *float64) {
	i := slices.Index(c.Names, scope)
	if i < 0 {
		return nil, nil
	}
	for _, f := range c.Values[i] {
		v := float64(f)
		if math.IsNaN(v) {
			continue
		}
		if least == nil || v < *least {
			least = &v
		}
		if most == nil || v > *most {
			most = &v
		}
	}
	return least, most
}
