// Package plot draws line charts as SVG, the same bytes for the same figures.
package plot

import (
	"cmp"
	"errors"
	"fmt"
	"html"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Chart is one picture: a cost against what it may depend on. Both axes are logarithmic, so that "proportional" is a
// straight line and "does not depend" a level one.
type Chart struct {
	// Name is the file's, without its ending.
	Name  string
	Title string
	// X and Y say what is on the axes, with units.
	X, Y   string
	Series []Series
	// Note is small print: when, where, what.
	Note string
}

// Series is one line.
type Series struct {
	Name   string
	Points []Point
}

// Point has two figures above zero.
type Point struct{ X, Y float64 }

const (
	width, height            = 720, 400
	left, right, top, bottom = 76, 168, 44, 72
	plotWidth, plotHeight    = width - left - right, height - top - bottom
	ink, faint               = "#1f2933", "#d5dbe1"
)

var colours = []string{"#0b6e4f", "#c8553d", "#3d5a98", "#8a6d3b", "#6b4e71"}

// Write makes the file in a folder.
func (c Chart) Write(folder string) error {
	text, err := c.SVG()
	if err != nil {
		return fmt.Errorf("plot: %s: %w", c.Name, err)
	}
	return os.WriteFile(filepath.Join(folder, c.Name+".svg"), []byte(text), 0o644)
}

// axis maps figures to the picture, on a logarithmic scale from decade to decade.
type axis struct{ low, high float64 }

func (a *axis) take(v float64) {
	if a.low == 0 {
		a.low, a.high = v, v
	}
	a.low, a.high = min(a.low, v), max(a.high, v)
}

func (a axis) place(v float64) float64 {
	if a.low == a.high {
		return .5
	}
	return (math.Log(v) - math.Log(a.low)) / (math.Log(a.high) - math.Log(a.low))
}

// round widens the axis to whole steps of 1, 2 and 5.
func (a *axis) round() {
	low, high := a.low, a.high
	for _, t := range steps(low/10, high*10) {
		if t <= low*1.0001 {
			a.low = t
		}
		if t >= high*.9999 {
			a.high = t
			return
		}
	}
}

// steps are 1, 2 and 5 times the powers of ten between two figures.
func steps(low, high float64) (all []float64) {
	for e := math.Floor(math.Log10(low)); e <= math.Ceil(math.Log10(high)); e++ {
		for _, m := range []float64{1, 2, 5} {
			if t := m * math.Pow(10, e); t >= low*.9999 && t <= high*1.0001 {
				all = append(all, t)
			}
		}
	}
	return all
}

// SVG is the picture.
func (c Chart) SVG() (string, error) {
	var x, y axis
	for _, s := range c.Series {
		if len(s.Points) == 0 {
			return "", fmt.Errorf("series %s is empty", s.Name)
		}
		for _, p := range s.Points {
			if !(p.X > 0 && p.Y > 0) || math.IsInf(p.X+p.Y, 0) {
				return "", fmt.Errorf("series %s: (%v, %v) cannot be drawn on logarithmic axes", s.Name, p.X, p.Y)
			}
			x.take(p.X)
			y.take(p.Y)
		}
	}
	if len(c.Series) == 0 {
		return "", errors.New("no series")
	}
	y.round()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12" fill="%s" role="img" aria-label="%s">`+"\n",
		width, height, ink, html.EscapeString(c.Title))
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	text(&b, left, 24, "start", `font-size="15" font-weight="600"`, c.Title)
	for _, t := range ticks(steps(y.low, y.high)) {
		at := top + plotHeight*(1-y.place(t))
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s"/>`+"\n", left, at, left+plotWidth, at, faint)
		text(&b, left-8, at+4, "end", "", Figure(t))
	}
	for _, t := range xs(c.Series) {
		at := left + plotWidth*x.place(t)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", at, top+plotHeight, at, top+plotHeight+5, ink)
		text(&b, at, top+plotHeight+20, "middle", "", Figure(t))
	}
	text(&b, left+plotWidth/2, top+plotHeight+40, "middle", "", c.X)
	text(&b, left, top-6, "start", `fill="#52606d"`, c.Y)
	text(&b, left, height-8, "start", `font-size="10" fill="#52606d"`, c.Note)
	for i, s := range c.Series {
		colour := colours[i%len(colours)]
		var path []string
		for _, p := range s.Points {
			px, py := left+plotWidth*x.place(p.X), top+plotHeight*(1-y.place(p.Y))
			path = append(path, fmt.Sprintf("%.1f,%.1f", px, py))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", px, py, colour)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(path, " "), colour)
	}
	for i, at := range c.labels(y) {
		s := c.Series[i]
		last := s.Points[len(s.Points)-1]
		text(&b, left+plotWidth*x.place(last.X)+10, at, "start", fmt.Sprintf(`fill="%s" font-weight="600"`, colours[i%len(colours)]), s.Name)
	}
	b.WriteString("</svg>\n")
	return b.String(), nil
}

// labels are where the names of the lines go: beside their ends, from top to bottom, none on another.
func (c Chart) labels(y axis) []float64 {
	at, order := make([]float64, len(c.Series)), make([]int, len(c.Series))
	for i, s := range c.Series {
		at[i], order[i] = top+plotHeight*(1-y.place(s.Points[len(s.Points)-1].Y))+4, i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(at[a], at[b]) })
	var taken []float64
	for _, i := range order {
		at[i] = free(at[i], taken)
		taken = append(taken, at[i])
	}
	return at
}

// free moves a label down until it covers none that is there.
func free(at float64, taken []float64) float64 {
	for moved := true; moved; {
		moved = false
		for _, t := range taken {
			if math.Abs(at-t) < 14 {
				at, moved = t+14, true
			}
		}
	}
	return at
}

// ticks leaves the powers of ten when all steps would be too many.
func ticks(all []float64) (kept []float64) {
	if len(all) <= 9 {
		return all
	}
	for _, t := range all {
		if e := math.Log10(t); math.Abs(e-math.Round(e)) < 1e-9 {
			kept = append(kept, t)
		}
	}
	return kept
}

// xs are the places that were measured.
func xs(series []Series) (all []float64) {
	for _, s := range series {
		for _, p := range s.Points {
			if !slices.Contains(all, p.X) {
				all = append(all, p.X)
			}
		}
	}
	return all
}

func text(b *strings.Builder, x, y float64, anchor, more, words string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>%s</text>`+"\n", x, y, anchor, more, html.EscapeString(words))
}

// Figure writes 1200000 as 1.2 M.
func Figure(v float64) string {
	unit := ""
	switch {
	case v >= 1e6:
		v, unit = v/1e6, " M"
	case v >= 1e3:
		v, unit = v/1e3, " k"
	}
	return strconv.FormatFloat(v, 'g', 3, 64) + unit
}
