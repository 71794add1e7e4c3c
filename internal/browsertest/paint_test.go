package browsertest

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
)

// atReady notes what the page holds when its scripts have run for the first time, before anything is painted.
const atReady = `document.addEventListener("DOMContentLoaded", () => { window.ready = {
	plots: document.querySelectorAll(".plot").length, sketches: document.querySelectorAll(".plot:has(.sketch .line)").length,
}; });`

func TestHistoryIsThereAtFirstPaint(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: atReady})
	p.visit(s.URL + "/")
	ready := eval[map[string]int](p, "window.ready")
	if ready["plots"] != len(metrics) || ready["sketches"] != ready["plots"] {
		t.Errorf("when the page was ready: %v", ready)
	}
	p.await("the charts in the sketches' places", `document.querySelectorAll(".plot canvas").length === window.ready.plots`)
	if n := eval[int](p, `performance.getEntriesByType("resource").filter((e) => e.name.includes("/console/charts")).length`); n != 0 {
		t.Errorf("the charts needed %d more requests", n)
	}
	// What is drawn: the line, and both thresholds, in their colours.
	if drawn := eval[map[string]int](p, `(() => {
		const canvas = document.querySelector('[data-key="api_latency_p95"] canvas'), count = {};
		const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
		const wanted = Object.fromEntries(["--s0", "--warning", "--critical"].map((n) => [getComputedStyle(document.documentElement).getPropertyValue(n).trim(), n]));
		for (let i = 0; i < data.length; i += 4) {
			const colour = "#" + [0, 1, 2].map((c) => data[i + c].toString(16).padStart(2, "0")).join("");
			if (data[i + 3] === 255 && wanted[colour]) count[wanted[colour]] = (count[wanted[colour]] || 0) + 1;
		}
		return count;
	})()`); drawn["--s0"] < 50 || drawn["--warning"] < 50 || drawn["--critical"] < 50 {
		t.Errorf("pixels of the line and of the thresholds: %v", drawn)
	}
	for _, browser := range []string{"just started", "that runs", "that runs"} {
		p.await("a first paint", `performance.getEntriesByName("first-contentful-paint").length > 0`)
		t.Logf("first contentful paint after %.0f ms in a browser %s", eval[float64](p, `performance.getEntriesByName("first-contentful-paint")[0].startTime`), browser)
		p.visit(s.URL + "/")
	}
}

// Without its scripts the first paint has the same history, with gaps where nobody looked.
func TestHistoryNeedsNoScript(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	call(p, network.SetBlockedURLs, network.SetBlockedURLsParams{URLPatterns: []*network.BlockPattern{{URLPattern: s.URL + "/*.js", Block: true}}})
	p.visit(s.URL + "/")
	if n := eval[int](p, `[...document.querySelectorAll(".sketch")].filter((e) => e.getBoundingClientRect().width > 100 && e.querySelector(".line")).length`); n != len(metrics) {
		t.Errorf("%d of %d metrics are sketched", n, len(metrics))
	}
	if d := eval[string](p, `document.querySelector('[data-key="api_latency_p95"] .line').getAttribute("d")`); strings.Count(d, "M") != 2 || strings.Count(d, "L") != points-11-2 {
		t.Errorf("the line is %.300s", d)
	}
	if n := eval[int](p, `document.querySelectorAll('[data-key="api_latency_p95"] .limit').length`); n != 2 {
		t.Errorf("%d thresholds are drawn", n)
	}
	p.forgive("net::ERR_BLOCKED_BY_CLIENT")
}

func TestPageIsLight(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.visit(s.URL + "/")
	p.await("all parts", `performance.getEntriesByType("resource").length >= 4 && document.readyState === "complete"`)
	p.awaitThat("their sizes", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.bytes) >= 5
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	total := 0.0
	for url, n := range p.bytes {
		t.Logf("%6.0f %s", n, strings.TrimPrefix(url, s.URL))
		total += n
		if !strings.HasPrefix(url, s.URL) {
			t.Errorf("%s is from elsewhere", url)
		}
	}
	t.Logf("%6.0f in all", total)
	if total > 80_000 {
		t.Errorf("%.0f bytes were transferred", total)
	}
}

func TestAlertsComeFirst(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.visit(s.URL + "/")
	p.sure(`first section of main is that of the alerts`, `document.querySelector("main section").querySelectorAll(".alert").length === 2`)
	p.sure(`nothing that one can press, read or look at comes before them`, `[...document.querySelectorAll("main button, main a, main table, main .card, main .plot, main .note")].every((e) =>
		[...document.querySelectorAll(".alert")].every((a) => a.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING))`)
	p.sure(`the headline is announced`, `document.querySelector('#announce[aria-live="polite"]').textContent === "2 alerts are firing"`)
	p.sure(`the title says it too`, `document.title.startsWith("● ")`)
}

// Where history is not mounted there are no charts, and everything else is there.
func TestPageWithoutHistory(t *testing.T) {
	s, p := serve(t, options{noHistory: true, prefix: "/ops"}), open(t)
	p.visit(s.URL + "/ops/")
	before := s.count("GET /ops/console/state 200")
	p.awaitThat("the next poll", func() bool { return s.count("GET /ops/console/state 200") > before })
	p.sure("no charts", `document.querySelectorAll(".plot, canvas").length === 0`)
	p.sure("bars in their place", `document.querySelectorAll(".card .bar").length > 3`)
	p.sure("the rest", `document.querySelectorAll(".alert").length === 2 && document.querySelectorAll("form.act").length > 3 && !!document.querySelector("#h-bottle")`)
	if n := s.count("GET /ops/console/charts"); n > 0 {
		t.Errorf("charts were asked for %d times", n)
	}
}
