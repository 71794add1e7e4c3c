package browsertest

import (
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/scaleaware/scaleaware/admin"
)

// enabled is what the switch itself says.
func (s *site) enabled(p *tab) (on bool, reason string) {
	p.Helper()
	report, err := s.mode.Report(p.ctx)
	must(p.T, err)
	return report.Enabled, report.Reason
}

func TestReadOnlyModeByDialog(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.visit(s.URL + "/")

	// A dialog that is cancelled, by its button or by Escape, changes nothing.
	p.do(chromedp.Click("#read-only-on"))
	p.sure("a modal dialog", `document.querySelector("#confirm:modal") && document.querySelector("#confirm-title").textContent === "Turn read-only mode on?"`)
	p.do(chromedp.Click(`#confirm-no`), chromedp.Click("#read-only-on"), chromedp.KeyEvent(kb.Escape))
	p.sure("no dialog", `!document.querySelector("dialog[open]")`)
	if n := s.count("POST "); n > 0 {
		t.Fatalf("%d requests were made", n)
	}

	p.do(chromedp.Click("#read-only-on"), chromedp.SendKeys("#confirm-field", hostile), chromedp.Click("#confirm-yes"))
	p.await("the proof", `document.querySelector('.proof[data-proven="true"]')`)
	if on, reason := s.enabled(p); !on || reason != hostile {
		t.Errorf("read-only mode is %v, because %q", on, reason)
	}
	p.sure("its phases", `[...document.querySelectorAll(".proof li")].map((e) => e.className + ":" + e.querySelector("strong").textContent).join() === "done:announced,done:acknowledged,done:drained"`)
	p.sure("the reason", `document.querySelector(".reason").textContent.includes("<img src=x")`)
	p.await("the record", `document.querySelector("#h-audit").parentNode.textContent.includes("readonly.enable")`)

	p.do(chromedp.Click("#read-only-off"), chromedp.Click("#confirm-yes"))
	p.await("writes", `document.querySelector(".mode .chip.ok")`)
	if on, _ := s.enabled(p); on {
		t.Error("read-only mode is still on")
	}
}

func TestIncidentByDialog(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.visit(s.URL + "/")
	p.do(chromedp.Click("#incident-on"), chromedp.Click("#confirm-yes"))
	p.await("the incident", `document.querySelector(".mode .chip.critical")?.textContent.includes("incident")`)
	p.sure("one way out", `!document.querySelector("#read-only-off") && !document.querySelector("#read-only-on")`)
	p.do(chromedp.Click("#incident-off"), chromedp.Click("#confirm-yes"))
	p.await("writes", `document.querySelector(".mode .chip.ok")`)
	if on, _ := s.enabled(p); on {
		t.Error("read-only mode is still on")
	}
}

func TestWithoutScript(t *testing.T) {
	s, p := serve(t, options{prefix: "/ops"}), open(t)
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	p.visit(s.URL + "/ops/")
	p.sure("tables", `[...document.querySelectorAll("table")].filter((e) => e.getBoundingClientRect().height > 0).length >= 8`)
	p.sure("figures", `document.querySelector(".nojs table").textContent.includes("API latency (p95)") && document.querySelector(".nojs").getBoundingClientRect().height > 50`)
	p.sure("no button that does nothing", `document.querySelector("#theme").getBoundingClientRect().height === 0`)

	press := func(selector, then string) {
		t.Helper()
		p.do(chromedp.Click(selector))
		p.await(then, then)
	}
	press("#read-only-on", `location.pathname === "/ops/console/confirm" && document.querySelector("h1")?.textContent === "Turn read-only mode on?"`)
	if on, _ := s.enabled(p); on {
		t.Fatal("asking has turned it on")
	}
	p.do(chromedp.SendKeys("#field", "too much load"))
	press("button.main", `location.pathname === "/ops/" && document.querySelector(".mode .chip.critical")`)
	if on, reason := s.enabled(p); !on || reason != "too much load" {
		t.Errorf("read-only mode is %v, because %q", on, reason)
	}
	p.sure("the proof", `document.querySelector('.proof[data-proven="true"]') && document.querySelector(".reason").textContent.includes("too much load")`)
	press("#read-only-off", `document.querySelector("h1")?.textContent === "Allow writes again?"`)
	press("button.main", `location.pathname === "/ops/" && document.querySelector(".mode .chip.ok")`)

	// A name of any kind reaches the operation as it is.
	press(`form.act:has(input[name="do"][value="pause"]):has(input[name="name"][value^="<img"]) button`, `document.querySelector("h1")?.textContent.startsWith("Pause the queue <img")`)
	press("button.main", `location.pathname === "/ops/" && document.querySelector("#h-queues")?.parentNode.querySelector(".chip.warning")`)
	if !s.isPaused(hostile) {
		t.Error("the queue is not paused")
	}
}

// A request that fails says why, and does not look done.
func TestRefusedChange(t *testing.T) {
	s, p := serve(t, options{}), open(t)
	p.visit(s.URL + "/")
	s.mu.Lock()
	s.broken = true
	s.mu.Unlock()
	p.do(chromedp.Click("#pause-critical"), chromedp.Click("#confirm-yes"))
	p.await("what is wrong", `!document.querySelector("#toast").hidden && document.querySelector("#toast").textContent === "the queues rest"`)
	p.forgive("409")
}

func TestRolesAndTokens(t *testing.T) {
	const viewer, operator = "viewer-secret-0123456789", "operator-secret-0123456789"
	s := serve(t, options{admin: admin.Options{Tokens: []admin.Token{
		{Name: hostile, Role: admin.Operator, Secret: operator}, {Name: "eyes", Secret: viewer},
	}}})
	p := open(t)
	p.visit(s.URL + "/")
	enter := func(secret string) {
		p.await("the question for a token", `document.querySelector("#ask-token:modal")`)
		p.do(chromedp.SendKeys("#token", secret), chromedp.KeyEvent(kb.Enter))
	}
	p.sure("no data for strangers", `!document.querySelector(".alert, .card, table")`)
	enter("wrong-secret-0123456789")
	p.await("a refusal", `document.querySelector("#toast").textContent === "The token is not valid."`)
	enter(viewer)
	p.await("data", `document.querySelectorAll(".alert").length === 2 && document.querySelectorAll(".plot canvas").length === document.querySelectorAll(".plot").length`)
	p.sure("no switch for a viewer", `!document.querySelector("main form, main button")`)
	p.do(chromedp.Click("#leave"))
	enter(operator)
	p.await("an operator's switches", `document.querySelector("#read-only-on") && document.querySelector("#pause-critical")`)
	p.do(chromedp.Click("#read-only-on"), chromedp.Click("#confirm-yes"))
	p.await("the actor as text", `document.querySelector('.proof[data-proven="true"]') && document.querySelector(".mode").textContent.includes("by <img")`)
	p.forgive("401")
}

func TestReadsOnlyWithoutToken(t *testing.T) {
	s, p := serve(t, options{admin: admin.Options{Title: "read only"}}), open(t)
	p.visit(s.URL + "/")
	p.sure("data and no switch", `document.querySelectorAll(".alert").length === 2 && !document.querySelector("main form, main button")`)
}
