package session

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/scaleaware/scaleaware"
)

// The client hangs up before the handler asks for the session, which therefore seems empty, and the handler's write to the
// database is done none the less: the next request knows of it, and nothing else of the session has changed.
func TestWriteOfAClientThatHungUp(t *testing.T) {
	rdb := client(t, single)
	position := scaleaware.Token{System: 7, Timeline: 1, LSN: 1000}
	for _, policy := range []StoreDown{Refuse, Anonymous, Degrade} {
		for name, use := range map[string]func(m *Manager, ctx context.Context){
			"not at all": func(*Manager, context.Context) {},
			"session":    func(_ *Manager, ctx context.Context) { _ = From(ctx).String("k") },
			"scs":        func(m *Manager, ctx context.Context) { _ = m.SCS().GetString(ctx, "k") },
			"scs's put":  func(m *Manager, ctx context.Context) { m.SCS().Put(ctx, "k", "lost") },
		} {
			m := manager(t, rdb, Options{OnStoreDown: policy})
			a := serve(t, m)
			b := newBrowser(t)
			b.want(a, "login?as=ada", "welcome")
			b.want(a, "put?key=k&value=v", "put")
			h := m.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				use(m, r.Context())
				scaleaware.WatermarkFrom(r.Context()).Raise(position)
			}))
			ctx, hangUp := context.WithCancel(t.Context())
			hangUp()
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
			r.AddCookie(&http.Cookie{Name: m.SCS().Cookie.Name, Value: b.cookie(a)})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if cookies := w.Result().Cookies(); len(cookies) > 0 {
				t.Errorf("%s, %v: cookies %v", name, policy, cookies)
			}
			if b.call(a, "reads") != position.String() {
				t.Errorf("%s, %v: the next request does not see the write", name, policy)
			}
			b.want(a, "get?key=k", "v")
		}
	}
}
