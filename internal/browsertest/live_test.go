package browsertest

import (
	"testing"

	"github.com/chromedp/cdproto/page"
)

// pollFast makes the page's clock run twenty times as fast, and tells which timers wait.
const pollFast = `(() => {
	const begin = window.setTimeout, end = window.clearTimeout;
	window.waiting = new Set();
	window.setTimeout = (f, ms) => { const id = begin(() => { waiting.delete(id); f(); }, ms / 20); waiting.add(id); return id; };
	window.clearTimeout = (id) => { waiting.delete(id); end(id); };
	Object.defineProperty(document, "hidden", { get: () => !!window.away });
	window.turn = (away) => { window.away = away; document.dispatchEvent(new Event("visibilitychange")); };
})();`

func TestLossOfConnection(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: pollFast})
	p.visit(s.URL + "/")
	p.sure("fresh", `document.querySelector("#live.on").textContent.startsWith("updated ")`)
	p.await("polls", `performance.getEntriesByType("resource").filter((e) => e.name.endsWith("/console/state")).length > 2`)
	p.await("charts", `document.querySelector("main canvas")`)
	s.setDown(true)
	p.await("the loss to show", `!document.querySelector("#lost").hidden && document.querySelector("#lost").textContent.startsWith("Connection lost")`)
	p.sure("how old it is", `/^last update \d+ m?s ago$/.test(document.querySelector("#live.off").textContent)`)
	p.sure("told to those who do not see it", `document.querySelector("#lost").getAttribute("role") === "alert"`)
	p.sure("what was known", `document.querySelectorAll(".alert").length === 2 && document.querySelector("main.stale canvas")`)
	s.setDown(false)
	p.await("the return", `document.querySelector("#lost").hidden && document.querySelector("#live.on") && !document.querySelector("main.stale")`)
	p.forgive("ERR_EMPTY_RESPONSE")
}

func TestHiddenTabsRest(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: pollFast})
	p.visit(s.URL + "/")
	p.awaitThat("polls", func() bool { return s.count("GET /console/state") > 2 })
	p.sure("hidden", `(turn(true), true)`)
	p.await("the end of polls", `waiting.size === 0`)
	asked := s.count("GET /console/")
	p.sure("still no timer", `waiting.size === 0`)
	if again := s.count("GET /console/"); again > asked+1 { // one may have been on its way
		t.Errorf("%d requests of a hidden tab", again-asked)
	}
	p.sure("seen again", `(turn(false), true)`)
	p.awaitThat("a poll at once", func() bool { return s.count("GET /console/state") > asked })
}

// What has not changed is not sent again, and what is drawn stays.
func TestPollsAreConditional(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: pollFast + `
		const now = Date.now; let ahead = 0; Date.now = () => now() + (ahead += 20000);`})
	p.visit(s.URL + "/")
	p.awaitThat("charts that are the same", func() bool { return s.count("GET /console/charts 304") >= 2 })
	if n := s.count("GET /console/charts 200"); n != 1 {
		t.Errorf("they were sent %d times", n)
	}
	p.sure("charts", `document.querySelectorAll(".plot canvas").length === document.querySelectorAll(".plot").length`)
	p.awaitThat("a visit that no script is sent for", func() bool { // the second, when the browser has kept them by then
		scripts := func() int { return s.count("GET /console.js 200") + s.count("GET /uplot.js 200") }
		sent := scripts()
		p.visit(s.URL + "/")
		return scripts() == sent
	})
}

// Names are text wherever they appear.
func TestHostileNames(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	call(p, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: pollFast})
	p.visit(s.URL + "/")
	p.awaitThat("polls", func() bool { return s.count("GET /console/state") > 1 })
	p.sure("no markup", `!document.querySelector("img") && !document.hacked`)
	for _, part := range []string{"#hero", ".card[data-card=queue_depth]", "[aria-labelledby=h-bottle]", "[aria-labelledby=h-queues]", "[aria-labelledby=h-nodes]", "[aria-labelledby=h-cache]"} {
		p.sure("the name in "+part, `document.querySelector('`+part+`').textContent.includes('<img src=x onerror="document.hacked=1">')`)
	}
}
