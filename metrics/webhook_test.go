package metrics

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
)

// receiver is a real HTTP server that takes messages, and can be made to fail.
type receiver struct {
	mu       sync.Mutex
	answer   int // 0 is 200, negative hangs until the client gives up
	header   http.Header
	messages []webhookMessage
	asked    int
}

func (r *receiver) attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var m webhookMessage
	if err := json.NewDecoder(req.Body).Decode(&m); err != nil {
		panic(err)
	}
	r.mu.Lock()
	r.asked++
	answer := r.answer
	if answer == 0 {
		r.messages = append(r.messages, m)
		r.header = req.Header.Clone()
	}
	r.mu.Unlock()
	switch {
	case answer < 0:
		<-req.Context().Done()
	case answer > 0:
		w.Header().Set("Retry-After", "7")
		http.Redirect(w, req, "/elsewhere", answer)
	}
}

func (r *receiver) set(answer int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

// said is what the messages since the last call were.
func (r *receiver) said() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		line := m.Status + ":"
		for _, a := range m.Alerts {
			line += " " + a.Labels["severity"] + " " + a.Status
		}
		out = append(out, line)
	}
	r.messages = nil
	return out
}

// desk drives a webhook by hand: alerts are those of queue_depth, by severity.
type desk struct {
	*receiver
	*Webhook
	t       *testing.T
	now     time.Time
	log     bytes.Buffer
	reg     *prometheus.Registry
	alerts  alerts
	values  results
	table   []KeyMetric
	leading bool
}

func newDesk(t *testing.T, opts WebhookOptions) *desk {
	d := &desk{receiver: &receiver{}, t: t, now: epoch, reg: prometheus.NewRegistry(), alerts: alerts{}, values: results{"queue_depth": {}}, leading: true}
	server := httptest.NewServer(d.receiver)
	t.Cleanup(server.Close)
	m := metric(t, "queue_depth")
	m.WarningFor, m.CriticalFor, m.KeepFiringFor = time.Second, time.Second, 0
	d.table = []KeyMetric{m}
	opts.Logger, opts.Registerer, opts.Client = slog.New(slog.NewTextHandler(&d.log, nil)), d.reg, server.Client()
	d.Webhook = must(NewWebhook(server.URL+"/hook/s3cret-path?key=s3cret-key", &opts))
	return d
}

// pass lets seconds go by with a depth, a tick each.
func (d *desk) pass(seconds int, depth float64) {
	d.values["queue_depth"]["normal"] = depth
	for range seconds {
		d.now = d.now.Add(time.Second)
		d.alerts.tick(d.now, d.table, d.values)
		d.publish(d.now, d.leading, d.alerts.told("fleet"))
		d.flush(d.t.Context())
	}
}

func (d *desk) want(when string, messages ...string) {
	d.t.Helper()
	if diff := cmp.Diff(messages, d.said()); diff != "" {
		d.t.Errorf("%s: %s", when, diff)
	}
}

func TestWebhookMessage(t *testing.T) {
	d := newDesk(t, WebhookOptions{Header: http.Header{"Authorization": {"Bearer s3cret-token"}}, ExternalURL: "https://ops.example.com/"})
	d.pass(20, 1200)
	if len(d.messages) != 1 {
		t.Fatalf("%d messages", len(d.messages))
	}
	m := d.messages[0]
	fired := epoch.Add(2 * time.Second)
	labels := map[string]string{"alertname": "QueueDepthHigh", "metric": "queue_depth", "queue": "normal", "severity": "warning"}
	annotations := map[string]string{"summary": "Queue depth above 1000 jobs, queue normal", "runbook": stepQueue, "value": "1200 jobs"}
	set := model.LabelSet{}
	for k, v := range labels {
		set[model.LabelName(k)] = model.LabelValue(v)
	}
	want := webhookMessage{
		Version: "4", Status: "firing", Receiver: "scaleaware", ExternalURL: "https://ops.example.com/",
		GroupKey:    "{}:" + model.LabelSet{"alertname": "QueueDepthHigh"}.String(),
		GroupLabels: map[string]string{"alertname": "QueueDepthHigh"}, CommonLabels: labels, CommonAnnotations: annotations,
		Alerts: []webhookAlert{{
			Status: "firing", Labels: labels, Annotations: annotations, StartsAt: fired, Fingerprint: set.Fingerprint().String(),
			GeneratorURL: "https://ops.example.com/api/v1/performance/capacity/dashboard",
		}},
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if d.header.Get("Authorization") != "Bearer s3cret-token" || d.header.Get("Content-Type") != "application/json" {
		t.Errorf("header %v", d.header)
	}
	text := string(must(json.Marshal(m)))
	if !strings.Contains(text, `"endsAt":"0001-01-01T00:00:00Z"`) || !strings.Contains(text, `"truncatedAlerts":0`) {
		t.Error(text)
	}
}

func TestWebhookGroups(t *testing.T) {
	d := newDesk(t, WebhookOptions{})
	d.pass(11, 1200)
	d.want("while the group waits")
	d.pass(1, 1200)
	d.want("when it has waited", "firing: warning firing")
	d.pass(30, 6000)
	d.want("within the group's interval")
	d.pass(30, 6000)
	d.want("the critical alert mutes the warning", "firing: critical firing")
	d.pass(2*3600, 6000)
	d.want("nothing new")
	d.pass(2*3600, 6000)
	d.want("after the repeat interval", "firing: critical firing")
	d.pass(60, 1200)
	d.want("the warning goes on", "firing: warning firing critical resolved")
	d.pass(60, 0)
	d.want("all is well", "resolved: warning resolved")
	d.pass(4*3600, 0)
	d.want("told once")
	if len(d.groups) != 0 {
		t.Errorf("%d groups are kept", len(d.groups))
	}
	d.pass(5, 1200)
	d.pass(5, 0)
	d.pass(60, 0)
	d.want("one that ends while its group waits")
}

func TestWebhookFailures(t *testing.T) {
	for name, test := range map[string]struct {
		answer  int
		timeout time.Duration
		asked   int // within 59 s of the first attempt
		logged  string
	}{
		"fails":        {500, 0, 6, "answers 500"}, // after 0, 1, 3, 7, 15, 31 s or a little more
		"is too busy":  {429, 0, 6, "answers 429"}, // told to wait 7 s
		"hangs":        {-1, 20 * time.Millisecond, 6, "deadline"},
		"knows us not": {404, 0, 1, "Authorization"},
		"has moved":    {308, 0, 1, "redirects"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, WebhookOptions{Timeout: test.timeout, Header: http.Header{"Authorization": {"Bearer s3cret-token"}}})
			d.set(test.answer)
			d.pass(12+58, 1200)
			if asked := d.attempts(); asked < test.asked-1 || asked > test.asked+2 || asked > test.asked && test.asked == 1 {
				t.Errorf("%d attempts in a minute, want about %d", asked, test.asked)
			}
			log := d.log.String()
			if !strings.Contains(log, test.logged) || strings.Count(log, "\n") != 1 {
				t.Errorf("logged %q, want one line with %q", log, test.logged)
			}
			if strings.Contains(log, "s3cret") {
				t.Errorf("a secret is in the log: %s", log)
			}
			d.pass(60, 0) // it ends before anybody has been told
			d.set(0)
			d.pass(120, 0)
			d.want("when the receiver is back", "resolved: warning resolved")
			if !strings.Contains(d.log.String(), "arrive again") {
				t.Errorf("logged %q", d.log.String())
			}
			if sent, all := countedBy(t, d.reg, "sent"), counted(t, d.reg, Notifications.Name); sent != 1 || all != float64(d.attempts()) {
				t.Errorf("%v sent of %v attempts, %d arrived", sent, all, d.attempts())
			}
		})
	}
}

func countedBy(t *testing.T, reg *prometheus.Registry, outcome string) (n float64) {
	t.Helper()
	for _, f := range must(reg.Gather()) {
		for _, m := range f.GetMetric() {
			if f.GetName() == Notifications.Name && m.GetLabel()[0].GetValue() == outcome {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func TestWebhookWithoutAnybodyThere(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	w := must(NewWebhook(strings.Replace(server.URL, "http://", "http://user:s3cret@", 1)+"/s3cret", nil))
	err := w.post(t.Context(), &webhookMessage{})
	if _, retried := errors.AsType[*retryError](err); !retried || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v, want one that is tried again, without the secret", err)
	}
}

func TestNewWebhookReportsAllMistakes(t *testing.T) {
	_, err := NewWebhook("ftp://x/s3cret", &WebhookOptions{Timeout: -1, GroupWait: -1})
	for _, want := range []string{"needs an address", "Timeout", "GroupWait"} {
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("NewWebhook: %v, want %q", err, want)
		}
	}
}

// local serves requests within a synctest bubble, where no network is.
type local struct{ http.Handler }

func (l local) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	l.ServeHTTP(w, req)
	return w.Result(), nil
}

func TestOneInstanceOfAFleetNotifies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newShelf()
		hooks := map[string]*receiver{"a": {}, "b": {}, "c": {}}
		fleet := map[string]*running{}
		said := func() (out []string) {
			for _, name := range []string{"a", "b", "c"} {
				for _, line := range hooks[name].said() {
					out = append(out, name+" "+line)
				}
			}
			return out
		}
		want := func(when string, messages ...string) {
			t.Helper()
			if diff := cmp.Diff(messages, said()); diff != "" {
				t.Errorf("%s: %s", when, diff)
			}
		}
		for _, name := range []string{"c", "a", "b"} { // c is the oldest
			hook := must(NewWebhook("http://hook.example.com", &WebhookOptions{Client: &http.Client{Transport: local{hooks[name]}}}))
			fleet[name] = run(t, &CapacityOptions{Instance: name, Store: store, Webhook: hook})
			time.Sleep(time.Second)
		}
		ops := run(t, &CapacityOptions{Instance: "ops", Store: store}) // older or not, it has nobody to tell
		defer ops.stop()
		deep := func() {
			for _, r := range fleet {
				r.tasks.WithLabelValues("normal", "pending").Set(6000)
			}
		}
		pass(180, deep)
		want("one tells", "c firing: critical firing")
		fleet["c"].stop()
		pass(120, deep)
		want("when it is gone, its successor knows what has been told")
		hooks["a"].set(500)
		for _, r := range []string{"a", "b"} {
			fleet[r].tasks.WithLabelValues("normal", "pending").Set(0)
		}
		pass(400, nil)
		want("where one cannot deliver, another does", "b resolved: critical resolved")
		store.fail(errors.New("redis is away"))
		pass(180, deep)
		want("without the store the last one goes on", "b firing: critical firing")
		store.fail(nil)
		pass(30, deep)
		fleet["a"].stop()
		fleet["b"].stop()
		synctest.Wait()
	})
}

// A sender that hangs must not hold up evaluation, and ends with Run.
func TestWebhookNeverHoldsUpEvaluation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
		hook := must(NewWebhook("http://hook.example.com", &WebhookOptions{Timeout: time.Hour, Client: &http.Client{Transport: local{hang}}}))
		r := run(t, &CapacityOptions{Webhook: hook})
		r.tasks.WithLabelValues("normal", "pending").Set(6000)
		pass(300, nil)
		if d := r.Dashboard(); time.Since(d.Time) > 5*time.Second || !slices.Contains(d.states(), "queue_depth critical firing") {
			t.Errorf("evaluated %v ago: %v", time.Since(d.Time), d.states())
		}
		r.stop()
		synctest.Wait()
	})
}

// That an alert has ended is told however long nobody could be told, or nobody was to be.
func TestWebhookOwesTheEnd(t *testing.T) {
	for name, test := range map[string]struct {
		interval time.Duration
		answer   int
	}{
		"the receiver is away":      {0, http.StatusServiceUnavailable},
		"the receiver knows us not": {0, http.StatusNotFound},
		"the interval is long":      {30 * time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, WebhookOptions{GroupInterval: test.interval})
			d.pass(30, 1200)
			d.want("it fires", "firing: warning firing")
			d.set(test.answer)
			d.pass(10, 1200)
			d.pass(25*60, 0)
			d.set(0)
			d.pass(60*60, 0)
			d.want("when it can be told", "resolved: warning resolved")
			if len(d.groups) != 0 || len(d.Webhook.alerts) != 0 {
				t.Errorf("%d groups and %d alerts are kept", len(d.groups), len(d.Webhook.alerts))
			}
		})
	}
}

// An alert that comes back before its end was told has not ended.
func TestWebhookOwesNoEndOfWhatFiresAgain(t *testing.T) {
	d := newDesk(t, WebhookOptions{GroupInterval: time.Hour})
	d.pass(30, 1200)
	d.want("it fires", "firing: warning firing")
	d.pass(20*60, 0)
	d.pass(2*60*60, 1200)
	d.want("it fires again")
	d.pass(2*60*60, 0)
	d.want("it is over", "resolved: warning resolved")
}
