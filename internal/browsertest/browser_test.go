package browsertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

var shared = localserver.NewShared(openBrowser)

func TestMain(m *testing.M) { goleak.VerifyTestMain(databases.Around(shared.Around(m))) }

// browser is one headless Chromium for all tests; each opens tabs of its own.
type browser struct {
	ctx    context.Context
	cancel context.CancelFunc
	home   string
	output *output
}

// output keeps what the browser prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func openBrowser(context.Context) (*browser, error) {
	program, env, err := findBrowser()
	if err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp("", "browsertest-")
	if err != nil {
		return nil, err
	}
	b := &browser{home: home, output: &output{}}
	fonts, err := fontConfig(home, program)
	if err != nil {
		return nil, err
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.UserDataDir(filepath.Join(home, "profile")), chromedp.CombinedOutput(b.output),
		chromedp.Env(append(env, "FONTCONFIG_FILE="+fonts, "HOME="+home, "XDG_CACHE_HOME="+home)...),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(time.Minute), // busy machines start it slowly
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
	)...)
	ctx, cancel := chromedp.NewContext(allocator)
	b.ctx, b.cancel = ctx, func() { cancel(); stop() }
	if err := chromedp.Do(ctx); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("%s does not start: %w\n%s", program, err, b.output)
	}
	return b, nil
}

func findBrowser() (program string, env []string, err error) {
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if program, env, err = localserver.Find(name); err == nil {
			return program, env, nil
		}
	}
	return "", nil, err
}

// fontConfig returns the system's configuration of fonts, or one for those unpacked beside the browser.
func fontConfig(home, program string) (string, error) {
	const system = "/etc/fonts/fonts.conf"
	if _, err := os.Stat(system); err == nil {
		return system, nil
	}
	text := `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>`
	for _, dir := range []string{"/usr/share/fonts", filepath.Join(filepath.Dir(filepath.Dir(program)), "root/usr/share/fonts")} {
		text += "<dir>" + dir + "</dir>"
	}
	for generic, family := range map[string]string{"sans-serif": "DejaVu Sans", "system-ui": "DejaVu Sans", "monospace": "DejaVu Sans Mono"} {
		text += `<alias binding="same"><family>` + generic + "</family><prefer><family>" + family + "</family></prefer></alias>"
	}
	path := filepath.Join(home, "fonts.conf")
	return path, os.WriteFile(path, []byte(text+"<cachedir>"+home+"/fonts</cachedir></fontconfig>"), 0o600)
}

// Close ends the browser and takes its profile away.
func (b *browser) Close() error {
	err := chromedp.Cancel(b.ctx)
	b.cancel()
	if removed := os.RemoveAll(b.home); err == nil {
		err = removed
	}
	return err
}

// Logs is empty: what the browser prints is about this machine, and a page's complaints are kept by its tab.
func (b *browser) Logs() string { return "" }

// tab is a page with everything that went wrong in it.
type tab struct {
	*testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
	bytes    map[string]float64 // by path, as transferred
	urls     map[network.RequestID]string
}

// open returns an empty tab. Whatever the page complains about fails the test.
func open(t *testing.T) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(shared.Get(t).ctx)
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	p := &tab{T: t, ctx: ctx, bytes: map[string]float64{}, urls: map[network.RequestID]string{}}
	t.Cleanup(func() { stop(); cancel() })
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Errorf("the page complains: %s", problem)
		}
	})
	must(t, chromedp.Listen(ctx, p.listen))
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	p.do(chromedp.EmulateViewport(1280, 900))
	return p
}

func (p *tab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		p.problems = append(p.problems, fmt.Sprintf("console.%s", e.Type))
	case *log.EventEntryAdded: // violations of the policy, failed requests
		p.problems = append(p.problems, fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL))
	case *network.EventRequestWillBeSent:
		p.urls[e.RequestID] = e.Request.URL
	case *network.EventLoadingFinished:
		p.bytes[p.urls[e.RequestID]] += e.EncodedDataLength
	}
}

// forgive forgets complaints that hold the text: those that the test caused.
func (p *tab) forgive(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.problems[:0]
	for _, problem := range p.problems {
		if !strings.Contains(problem, text) {
			kept = append(kept, problem)
		}
	}
	p.problems = kept
}

func (p *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	must(p.T, chromedp.Do(p.ctx, actions...))
}

func call[P, R any](p *tab, command cdp.Command[P, R], params P) {
	p.Helper()
	_, err := chromedp.Call(p.ctx, command, params)
	must(p.T, err)
}

// visit loads a page.
func (p *tab) visit(url string) {
	p.Helper()
	p.do(chromedp.Navigate(url))
}

// eval returns the value of an expression in the page.
func eval[T any](p *tab, expression string) T {
	p.Helper()
	out, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.Fatalf("%s: %v", expression, err)
	}
	return out
}

// await waits until an expression in the page is true.
func (p *tab) await(what, expression string) {
	p.Helper()
	p.awaitThat(what, func() bool { return eval[bool](p, "!!("+expression+")") })
}

func (p *tab) awaitThat(what string, holds func() bool) {
	p.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Fatalf("waited in vain for %s; the page says: %.400s", what, eval[string](p, "document.activeElement.outerHTML.slice(0, 200) + document.body.innerText"))
		}
	}
}
