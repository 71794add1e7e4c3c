package admin

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// maxForm is the largest form in bytes.
const maxForm = 16 << 10

// confirmView is the page between a button and its request, for browsers without the script.
type confirmView struct {
	Title   string
	Action  *action
	Problem string
}

// confirm shows the question that the page's dialog asks with the script.
func (c *console) confirm(w http.ResponseWriter, r *http.Request) {
	v, _ := r.Context().Value(visitKey{}).(*visit)
	query := r.URL.Query()
	view := confirmView{Title: c.title, Action: c.action(v.id, query.Get("do"), query.Get("name"))}
	if view.Action == nil {
		view.Problem = "There is nothing of this name that you may do."
	}
	c.render(w, r, "confirm.html", http.StatusOK, view)
}

// submit makes the form into the request that it stands for and serves that as if it had come from outside: with its
// caller's credentials, its origin, its audit record. So it needs no guard of its own.
func (c *console) submit(w http.ResponseWriter, r *http.Request) {
	view := confirmView{Title: c.title}
	form, refusal := readForm(w, r)
	if refusal == nil {
		if view.Action = c.action(Identity{Role: Operator}, form.Get("do"), form.Get("name")); view.Action != nil {
			refusal = c.relay(r, view.Action, form)
		} else {
			refusal = NotFound("there is nothing of this name to do")
		}
	}
	if refusal == nil {
		// Not http.Redirect, which would make it absolute and lose the prefix that the page is mounted under.
		w.Header().Set("Location", "../")
		w.WriteHeader(http.StatusSeeOther)
		return
	}
	id, stranger := c.handler.guard.identify(r)
	if stranger == nil {
		stranger = c.handler.guard.admit(r, id, Operator, true)
	}
	if stranger != nil { // who learns nothing of what there is
		writeProblem(w, stranger)
		return
	}
	view.Problem = refusal.Detail
	c.render(w, r, "confirm.html", refusal.Status, view)
}

func readForm(w http.ResponseWriter, r *http.Request) (url.Values, *Problem) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return nil, problem(http.StatusUnsupportedMediaType, "this path takes the page's own form: programs use the operation itself")
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return nil, problem(http.StatusRequestEntityTooLarge, "the form is larger than %d bytes, or did not arrive whole", maxForm)
	}
	form, err := url.ParseQuery(string(data))
	if err != nil {
		return nil, Invalid("", "the form is not well-formed")
	}
	return form, nil
}

func (c *console) relay(r *http.Request, a *action, form url.Values) *Problem {
	target, err := url.Parse("/" + a.Path)
	if err != nil || !canonical(target.EscapedPath()) {
		return Invalid("name", "there can be nothing of this name")
	}
	var body []byte
	if text := strings.TrimSpace(form.Get(a.Field)); a.Field != "" && text != "" {
		if body, err = json.Marshal(map[string]string{a.Field: text}); err != nil {
			return Invalid(a.Field, "the %s cannot be sent", a.Field)
		}
	}
	target.RawQuery = r.URL.RawQuery // dry_run
	inner := r.Clone(r.Context())
	inner.Method, inner.URL, inner.RequestURI = a.Method, target, ""
	inner.Pattern, inner.Form, inner.PostForm = "", nil, nil
	inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	inner.Header.Set("Content-Type", "application/json")
	answer := &capture{header: http.Header{}}
	c.handler.mux.ServeHTTP(answer, inner)
	if answer.status < 400 {
		return nil
	}
	out := problem(answer.status, "the operation failed with status %d", answer.status)
	_ = json.Unmarshal(answer.body.Bytes(), out) // what is no problem document keeps the text above
	out.Status = answer.status
	return out
}

// capture keeps what an operation answers.
type capture struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *capture) Header() http.Header { return a.header }

func (a *capture) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *capture) Write(data []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(data)
}
