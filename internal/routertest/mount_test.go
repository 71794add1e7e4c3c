package routertest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/go-chi/chi/v5"
	"github.com/labstack/echo/v4"

	"github.com/scaleaware/scaleaware/admin"
)

const secret = "a-secret-of-an-operator-long-enough"

// mounts put the operations under /ops, next to a route of the service's own.
var mounts = map[string]func(ops http.Handler) http.Handler{
	"net/http": func(ops http.Handler) http.Handler {
		mux := http.NewServeMux()
		mux.Handle("/ops/", http.StripPrefix("/ops", ops))
		mux.HandleFunc("GET /leads", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "leads") })
		return mux
	},
	"chi": func(ops http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Mount("/ops", http.StripPrefix("/ops", ops))
		r.Get("/leads", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "leads") })
		return r
	},
	"echo": func(ops http.Handler) http.Handler {
		e := echo.New()
		e.Any("/ops/*", echo.WrapHandler(http.StripPrefix("/ops", ops)))
		e.GET("/leads", func(c echo.Context) error { return c.String(http.StatusOK, "leads") })
		return e
	},
	"gin": func(ops http.Handler) http.Handler {
		gin.SetMode(gin.ReleaseMode)
		r := gin.New()
		r.Any("/ops/*path", gin.WrapH(http.StripPrefix("/ops", ops)))
		r.GET("/leads", func(c *gin.Context) { c.String(http.StatusOK, "leads") })
		return r
	},
}

func operations(t *testing.T) http.Handler {
	h, err := admin.New([]admin.Operation{{
		Method: "GET", Path: "/api/v1/things/{thing}", ID: "thing.get",
		Do: func(_ context.Context, call *admin.Call) (any, error) {
			return map[string]string{"thing": call.Path("thing")}, nil
		},
	}, {
		Method: "POST", Path: "/api/v1/things/{thing}/pause", ID: "thing.pause", Role: admin.Operator,
		Body: struct {
			Reason string `json:"reason"`
		}{},
		Do: func(_ context.Context, call *admin.Call) (any, error) {
			return map[string]any{"paused": call.Path("thing"), "dry_run": call.DryRun, "by": call.Actor}, nil
		},
	}}, &admin.Options{Tokens: []admin.Token{{Name: "ops", Role: admin.Operator, Secret: secret}}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestOperationsUnderEachRouter(t *testing.T) {
	for name, mount := range mounts {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(mount(operations(t)))
			defer srv.Close()
			ask := func(method, path, body, token string, headers ...string) (int, string) {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if token != "" {
					r.Header.Set("Authorization", "Bearer "+token)
				}
				for i := 0; i < len(headers); i += 2 {
					r.Header.Set(headers[i], headers[i+1])
				}
				resp, err := srv.Client().Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				return resp.StatusCode, string(text)
			}
			for _, c := range []struct {
				method, path, body, token string
				headers                   []string
				status                    int
				says                      string
			}{
				{"GET", "/leads", "", "", nil, 200, "leads"},
				{"GET", "/ops/livez", "", "", nil, 200, `"ok"`},
				{"GET", "/ops/readyz", "", "", nil, 200, `"ok"`},
				{"GET", "/ops/api/v1/things/a%2Fb", "", secret, nil, 200, `"thing":"a/b"`},
				{"GET", "/ops/api/v1/things/a", "", "", nil, 401, "problem"},
				{"GET", "/ops/api/v1/none", "", secret, nil, 404, "openapi.json"},
				{"PUT", "/ops/api/v1/things/a", "", secret, nil, 405, "GET"},
				{"POST", "/ops/api/v1/things/a/pause", `{"reason":"x"}`, secret, nil, 200, `"paused":"a"`},
				{"POST", "/ops/api/v1/things/a/pause?dry_run=true", "", secret, nil, 200, `"dry_run":true`},
				{"POST", "/ops/api/v1/things/a/pause", `{"reson":"x"}`, secret, nil, 400, "reson"},
				{"POST", "/ops/api/v1/things/a/pause", "", secret, []string{"Sec-Fetch-Site", "cross-site"}, 403, "problem"},
				{"GET", "/ops/api/v1/admin/audit", "", secret, nil, 200, `"thing.pause"`},
				{"GET", "/ops/openapi.json", "", secret, nil, 200, `"openapi":"3.1`},
				{"GET", "/ops/", "", secret, []string{"Accept", "text/html"}, 200, "<html"},
			} {
				status, body := ask(c.method, c.path, c.body, c.token, c.headers...)
				problem := c.says == "problem" && strings.Contains(body, `"title"`)
				if status != c.status || !problem && !strings.Contains(strings.ReplaceAll(body, `": `, `":`), c.says) {
					t.Errorf("%s %s: %d, want %d with %q:\n%.300s", c.method, c.path, status, c.status, c.says, body)
				}
			}
			// What the page loads is under the prefix, too.
			_, page := ask("GET", "/ops/", "", secret)
			files := regexp.MustCompile(`(?:src|href)="([^"#]+\.(?:js|css))"`).FindAllStringSubmatch(page, -1)
			if len(files) == 0 {
				t.Fatal("the console loads no files")
			}
			for _, file := range files {
				if strings.HasPrefix(file[1], "/") {
					t.Errorf("the console loads %s, which is not under its prefix", file[1])
				}
				if status, _ := ask("GET", "/ops/"+file[1], "", secret); status != http.StatusOK {
					t.Errorf("%s: %d", file[1], status)
				}
			}
		})
	}
}
