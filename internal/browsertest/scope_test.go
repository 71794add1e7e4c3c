package browsertest

import (
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/scaleaware/scaleaware/admin"
)

const (
	throughput = `document.querySelector('[data-card="api_throughput"] .figure span').textContent`
	drawnTop   = `JSON.parse(document.querySelector("#charts").textContent).charts.find((c) => c.key === "api_throughput").top`
	current    = `document.querySelector('.scopes [aria-current="page"]')?.textContent`
)

// One switch, two links, so that it works by keyboard and without the script; what is asked for later is of the same scope.
func TestScopeSwitch(t *testing.T) {
	s, p := serve(t, options{prefix: "/ops"}), open(t)
	p.visit(s.URL + "/ops/")
	p.sure("the fleet at first", current+` === "Fleet" && document.querySelector("#hero").textContent.includes("fleet of 2 instances")`)
	fleet, top := eval[string](p, throughput), eval[float64](p, drawnTop)
	for range 20 { // from the page's beginning
		p.do(chromedp.KeyEvent(kb.Tab))
		if eval[bool](p, `document.activeElement.getAttribute("href") === "?scope=instance"`) {
			break
		}
	}
	p.do(chromedp.KeyEvent(kb.Enter))
	p.await("the instance", `location.search === "?scope=instance" && document.readyState === "complete" && `+current+` === "This instance"`)
	p.sure("so says the head", `document.querySelector("#hero").textContent.includes("this instance only")`)
	if one := eval[string](p, throughput); one == fleet {
		t.Errorf("the instance has %s, as the fleet", one)
	}
	if one := eval[float64](p, drawnTop); one >= top {
		t.Errorf("the scale ends at %v, the fleet's at %v", one, top)
	}
	one := eval[string](p, throughput)
	before := s.count("GET /ops/console/state 200")
	p.awaitThat("the next poll", func() bool { return s.count("GET /ops/console/state 200") > before })
	p.await("what it brought", `!document.querySelector("#hero time")`) // the first page alone has a clock
	if again := eval[string](p, throughput); again != one {
		t.Errorf("after a poll it is %s, before it was %s", again, one)
	}

	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.visit(s.URL + "/ops/?scope=instance")
	p.sure("one instance without the script", `document.querySelector(".nojs table").getBoundingClientRect().height > 50 && document.querySelector("#hero").textContent.includes("this instance only")`)
	p.do(chromedp.Click(`.scopes a[href="?scope=fleet"]`))
	p.await("the fleet without the script", `location.search === "?scope=fleet" && document.querySelector("#hero")?.textContent.includes("fleet of 2 instances")`)
}

// A switch is of no use where there is nothing to ask before a token is given, and does no harm.
func TestScopeWithToken(t *testing.T) {
	const secret = "operator-secret-0123456789"
	s, p := serve(t, options{admin: admin.Options{Tokens: []admin.Token{{Name: "ops", Role: admin.Operator, Secret: secret}}}}), open(t)
	p.visit(s.URL + "/?scope=instance")
	p.await("the question", `document.querySelector("#ask-token:modal")`)
	p.do(chromedp.SendKeys("#token", secret), chromedp.KeyEvent(kb.Enter))
	p.await("the state of one instance", `document.querySelector("#hero")?.textContent.includes("this instance only")`)
	p.forgive("401")
}

func TestSessionsPanel(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	check := func() {
		t.Helper()
		p.sure("the counts", `[...document.querySelectorAll("#h-sessions + .scroll tbody tr")].map((e) => e.children[0].textContent + "=" + e.children[1].textContent + ":" + e.children[1].className).slice(0, 3).join("; ") ===
			"Log-ins=12345:num ; Changes made too late, lost=3:num warning; Failures of the store=0:num "`)
		p.sure("a title as text", `document.querySelector("#h-sessions").parentNode.textContent.includes("<img src=x")`)
		p.sure("whose they are", `document.querySelector("#h-sessions").textContent.includes("of this instance since 2 Jan 15:04 UTC")`)
	}
	p.do(chromedp.EmulateViewport(360, 740))
	p.visit(s.URL + "/")
	check()
	p.sure("the page is no wider than the screen", `document.documentElement.scrollWidth <= 360`)
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.visit(s.URL + "/")
	check()
}
