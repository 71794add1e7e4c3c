package browsertest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/scaleaware/scaleaware/readonly"
)

// sure fails unless an expression in the page is true now.
func (p *tab) sure(what, expression string) {
	p.Helper()
	if !eval[bool](p, "!!("+expression+")") {
		p.Errorf("not so: %s", what)
	}
}

func (p *tab) prefer(features ...string) {
	p.Helper()
	params := emulation.SetEmulatedMediaParams{}
	for i := 0; i < len(features); i += 2 {
		params.Features = append(params.Features, &emulation.MediaFeature{Name: features[i], Value: features[i+1]})
	}
	call(p, emulation.SetEmulatedMedia, params)
}

func TestNarrowScreens(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	for _, width := range []int64{320, 360, 768} {
		p.do(chromedp.EmulateViewport(width, 740))
		p.visit(s.URL + "/")
		if got := eval[int64](p, "document.documentElement.scrollWidth"); got > width {
			t.Errorf("at %d pixels the page is %d wide", width, got)
		}
		p.sure("charts fit their cards", `[...document.querySelectorAll(".plot")].every((e) => e.firstElementChild.getBoundingClientRect().right <= e.closest(".card").getBoundingClientRect().right)`)
		p.do(chromedp.Click("#read-only-on"))
		p.sure("the dialog fits", `(() => { const box = document.querySelector("#confirm").getBoundingClientRect(); return box.left >= 0 && box.right <= innerWidth; })()`)
		p.do(chromedp.KeyEvent(kb.Escape))
	}
	// A chart follows its card.
	p.visit(s.URL + "/")
	p.do(chromedp.EmulateViewport(360, 740))
	p.await("narrower charts", `[...document.querySelectorAll(".plot")].every((e) => e.firstElementChild.getBoundingClientRect().width <= 340)`)
}

// faint lists the texts whose contrast with what is behind them is below 4.5.
const faint = `(() => {
	const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return { rgb: n.slice(0, 3), a: n.length > 3 ? n[3] : 1 }; };
	const over = (top, bottom) => top.rgb.map((v, i) => v * top.a + bottom[i] * (1 - top.a));
	const behind = (e) => {
		if (!e) return [255, 255, 255];
		const c = parse(getComputedStyle(e).backgroundColor);
		return c.a === 1 ? c.rgb : over(c, behind(e.parentElement));
	};
	const light = (rgb) => { const [r, g, b] = rgb.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const out = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	let seen = 0;
	for (let node; (node = walker.nextNode());) {
		const e = node.parentElement, box = e.getBoundingClientRect();
		if (!node.data.trim() || !box.width || !box.height || e.closest("script")) continue;
		seen++;
		let opacity = 1;
		for (let up = e; up; up = up.parentElement) opacity *= Number(getComputedStyle(up).opacity);
		const back = behind(e), c = parse(getComputedStyle(e).color);
		const [a, b] = [light(over({ rgb: c.rgb, a: c.a * opacity }, back)), light(back)].sort((x, y) => y - x);
		const ratio = (a + 0.05) / (b + 0.05);
		if (ratio < 4.5) out.push(ratio.toFixed(2) + " " + e.tagName + "." + e.className + " " + node.data.trim().slice(0, 40));
	}
	return [String(seen), ...out];
})()`

func TestContrast(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	_, err := s.mode.Enable(t.Context(), readonly.Change{Reason: "contrast", Actor: "test"})
	must(t, err)
	backgrounds := map[string]bool{}
	for _, scheme := range []string{"light", "dark"} {
		p.prefer("prefers-color-scheme", scheme)
		p.visit(s.URL + "/")
		check := func(part string, least int) {
			t.Helper()
			texts := eval[[]string](p, faint)
			var seen int
			if _, err := fmt.Sscan(texts[0], &seen); err != nil || seen < least {
				t.Errorf("%s, %s: only %d texts were looked at", scheme, part, seen)
			}
			if len(texts) > 1 {
				t.Errorf("%s, %s: too faint:\n%s", scheme, part, strings.Join(texts[1:], "\n"))
			}
		}
		check("page", 150)
		p.do(chromedp.Click("#pause-critical"))
		check("a dangerous dialog", 150)
		p.do(chromedp.KeyEvent(kb.Escape), chromedp.Click("#read-only-off"))
		check("a dialog", 150)
		p.do(chromedp.KeyEvent(kb.Escape))
		s.setDown(true)
		p.await("the loss to show", `!document.querySelector("#lost").hidden`)
		check("a page that is old", 150)
		s.setDown(false)
		p.visit(s.URL + "/console/confirm?do=pause&name=critical")
		check("the confirmation", 4)
		backgrounds[eval[string](p, `getComputedStyle(document.body).backgroundColor`)] = true
	}
	if len(backgrounds) != 2 {
		t.Errorf("light and dark have the backgrounds %v", backgrounds)
	}
	p.forgive("ERR_EMPTY_RESPONSE")
}

// The button overrules the system's wish, the charts follow, and it is remembered.
func TestThemeButton(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.prefer("prefers-color-scheme", "light")
	p.visit(s.URL + "/")
	background := func() string { return eval[string](p, `getComputedStyle(document.body).backgroundColor`) }
	picture := func() string {
		p.await("the chart", `document.querySelector('[data-key="api_latency_p95"] canvas')`)
		return eval[string](p, `document.querySelector('[data-key="api_latency_p95"] canvas').toDataURL()`)
	}
	light, lightPicture := background(), picture()
	p.do(chromedp.Click("#theme"))
	dark := background()
	if dark == light || picture() == lightPicture {
		t.Errorf("from %s to %s, new charts: %v", light, dark, picture() != lightPicture)
	}
	p.visit(s.URL + "/")
	if background() != dark {
		t.Error("it is forgotten")
	}
	p.sure("cleaned up", `(localStorage.clear(), true)`)
}

func TestMotion(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.visit(s.URL + "/")
	// The part that moves while a change is on its way.
	const moving = `(() => {
		const list = document.createElement("ol"), item = document.createElement("li");
		list.className = "proof";
		item.className = "current";
		list.append(item);
		document.querySelector("main").append(list);
		const n = document.getAnimations().length;
		list.remove();
		return n;
	})()`
	p.prefer("prefers-reduced-motion", "no-preference")
	if eval[int](p, moving) != 1 {
		t.Error("nothing moves, so there is nothing to test")
	}
	p.prefer("prefers-reduced-motion", "reduce")
	if eval[int](p, moving) != 0 {
		t.Error("it moves for people who do not want that")
	}
}

// Everything is reached and done by keyboard, and what has the focus shows it.
func TestKeyboard(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.visit(s.URL + "/")
	p.do(chromedp.KeyEvent(kb.Tab))
	p.sure("the first stop skips the head", `document.activeElement.className === "skip" && document.activeElement.getBoundingClientRect().top >= 0`)
	p.do(chromedp.KeyEvent(kb.Enter), chromedp.KeyEvent(kb.Tab))
	p.sure("the first stop after the skip is the switch", `document.activeElement.id === "read-only-on"`)

	p.do(chromedp.KeyEvent(kb.Enter))
	p.sure("the dialog has the focus", `document.activeElement.id === "confirm-field"`)
	p.do(chromedp.KeyEvent("by hand"), chromedp.KeyEvent(kb.Enter))
	p.await("the proof", `document.querySelector('.proof[data-proven="true"]')`)
	if on, reason := s.enabled(p); !on || reason != "by hand" {
		t.Errorf("read-only mode is %v, because %q", on, reason)
	}
	p.await("the focus not lost", `document.activeElement && document.activeElement !== document.body`)
	p.do(chromedp.KeyEvent(kb.Tab))
	p.sure("the way back is the next stop", `document.activeElement.id === "read-only-off"`)

	// Once around: every stop is visible, has a name and shows the focus, and all controls are stops.
	p.visit(s.URL + "/")
	stops := map[string]bool{}
	for range 60 {
		p.do(chromedp.KeyEvent(kb.Tab))
		stop := eval[[]string](p, `(() => {
			if (document.activeElement === document.body) return ["", ""];
			const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
			const name = e.getAttribute("aria-label") || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent || e.textContent.trim();
			return [e.id || name, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && box.width > 0 && !!name ? "" : e.outerHTML.slice(0, 200)];
		})()`)
		if stop[0] == "" || stops[stop[0]] { // around
			break
		}
		stops[stop[0]] = true
		if stop[1] != "" {
			t.Errorf("no visible focus or no name: %s", stop[1])
		}
	}
	for _, id := range []string{"theme", "read-only-off", "pause-critical", "retry-failed-low-priority", "openapi.json"} {
		if !stops[id] {
			t.Errorf("the keyboard does not reach %s, only %v", id, stops)
		}
	}
}
