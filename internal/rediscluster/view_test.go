package rediscluster

import (
	"strings"
	"testing"
)

func TestDisagreement(t *testing.T) {
	const (
		a      = "a 127.0.0.1:1@11 master - 0 0 1 connected 0-8191\n"
		b      = "b 127.0.0.1:2@12 master - 0 0 2 connected 8192-16383\n"
		r      = "r 127.0.0.1:3@13 slave a 0 0 1 connected\n"
		myself = "myself,"
		alone  = "a 127.0.0.1:1@11 master - 0 0 1 connected 0-16383\n"
		orphan = "r 127.0.0.1:3@13 slave b 0 0 1 connected\n"
	)
	self := func(line string) string {
		fields := strings.Fields(line)
		fields[2] = myself + fields[2]
		return strings.Join(fields, " ") + "\n"
	}
	for _, test := range []struct {
		name  string
		views []string
		want  string
	}{
		{"agreed", []string{self(a) + b + r, a + self(b) + r, a + b + self(r)}, ""},
		{"slots missing", []string{self(a) + b}, "8192 slots"},
		{"unknown", []string{self(a) + b, self(b)}, "b does not know a"},
		{"failing", []string{self(a) + b, strings.Replace(a, "master", "master,fail?", 1) + self(b)}, "fail?"},
		{"old role", []string{self(a) + b + r, strings.Replace(a+r, "slave a", "master -", 1) + self(b), a + b + self(r)}, "old role of r"},
		{"old slots", []string{self(a) + b, strings.Replace(a, "0-8191", "0-8000", 1) + self(b)}, "old slots of a"},
		{"cut off", []string{self(a) + b, strings.Replace(a, " connected", " disconnected", 1) + self(b)}, "b sees a"},
		{"master gone", []string{self(alone) + orphan, alone + self(orphan)}, "does not run"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var views []*view
			for _, text := range test.views {
				views = append(views, must[*view](t)(parseView(text)))
			}
			got := disagreement(views)
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("disagreement = %q, want %q", got, test.want)
			}
		})
	}
}

func TestParseViewRejectsNonsense(t *testing.T) {
	for _, text := range []string{
		"", "short line", "a x master - 0 0 1 connected 0-5",
		"a x myself,master - 0 0 one connected", "a x myself,master - 0 0 1 connected five",
	} {
		if _, err := parseView(text); err == nil {
			t.Errorf("parseView(%q) succeeded", text)
		}
	}
	v, err := parseView("a x myself,master - 0 0 1 connected 0-5 7 [8->-b]\n")
	if err != nil || v.self.serves() != 7 || v.self.owns(6) || !v.self.owns(7) || v.self.owns(8) {
		t.Errorf("view %+v, %v", v, err)
	}
}
