package dbsplit

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// scanIdentifier reads one quoted identifier as PostgreSQL's scanner does.
func scanIdentifier(sql string) (name, rest string, err error) {
	if !strings.HasPrefix(sql, `"`) {
		return "", "", errors.New("not quoted")
	}
	var text strings.Builder
	for i := 1; i < len(sql); i++ {
		switch {
		case sql[i] == 0:
			return "", "", errors.New("the statement ends within the identifier")
		case sql[i] != '"':
			text.WriteByte(sql[i])
		case i+1 < len(sql) && sql[i+1] == '"':
			text.WriteByte('"')
			i++
		default:
			return text.String(), sql[i+1:], nil
		}
	}
	return "", "", errors.New("not closed")
}

// Whatever name is given, what gets into a statement is one quoted identifier for each part and nothing else, and means
// what was given.
func FuzzTableName(f *testing.F) {
	long := strings.Repeat("ä", 31) + "b" // 63 bytes
	for _, seed := range []string{
		"Lead", `"Lead"`, "public.Lead", `other."odd ""name"`, `"a.b"."c"`, `a"b`, `"a`, `"a"b`, `""`, ".", "a.", ".a", "a.b.c", `"."`,
		"Lead; drop table x", `Lead"; drop table x; --`, "a\x00b", "\"a\x00b\"", "--", "/*", "'", "$$", "\\", " ", "İ", "ﬀ", "\xff", long, long + "c",
		`"` + strings.Repeat(`""`, 63) + `"`, strings.Repeat("K", 21), "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		parts, err := splitName(given)
		if err != nil {
			if len(parts) != 0 || err.Error() == "" {
				t.Errorf("%q: %v and %v", given, parts, err)
			}
			return
		}
		if len(parts) < 1 || len(parts) > 2 {
			t.Fatalf("%q has %d parts", given, len(parts))
		}
		var again []string
		for _, w := range parts {
			if w.text == "" || len(w.text) > maxNameBytes || strings.ContainsRune(w.text, 0) {
				t.Errorf("%q gives the part %q", given, w.text)
			}
			if !w.quoted && strings.ContainsAny(w.text, `".`) {
				t.Errorf("%q gives the unquoted part %q", given, w.text)
			}
			if s := w.spellings(); s[0] != w.text || len(s) > 2 || w.quoted && len(s) != 1 {
				t.Errorf("%q: spellings %q", given, s)
			}
			again = append(again, w.text)
		}
		r := relation{schema: "public", name: again[len(again)-1]}
		if len(again) == 2 {
			r.schema = again[0]
		}
		schema, rest, err := scanIdentifier(r.String())
		if err != nil || schema != r.schema || !strings.HasPrefix(rest, ".") {
			t.Fatalf("%q is written %s: %v", given, r, err)
		}
		if name, rest, err := scanIdentifier(rest[1:]); err != nil || name != r.name || rest != "" {
			t.Errorf("%q is written %s: then %q, %v", given, r, rest, err)
		}
		// What is written is read again as the same.
		quoted := pgx.Identifier(again).Sanitize()
		back, err := splitName(quoted)
		if err != nil || !slices.EqualFunc(back, parts, func(a, b word) bool { return a.text == b.text && a.quoted }) {
			t.Errorf("%q is written %s and read as %v, %v", given, quoted, back, err)
		}
	})
}

// No bound panics; those that are understood are written by us as they were read.
func FuzzPartitionBound(f *testing.F) {
	for _, seed := range []string{
		"DEFAULT", "FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')", "FOR VALUES FROM (MINVALUE) TO (MAXVALUE)",
		"FOR VALUES FROM ('2024-01-01 00:00:00+00') TO ('2024-02-01 00:00:00+00')", "FOR VALUES FROM ('2024-01-01 00:00:00.5') TO ('infinity')",
		"FOR VALUES FROM ('-infinity') TO ('2024-01-01')", "FOR VALUES FROM ('0044-03-15 BC') TO ('2024-01-01')", "FOR VALUES FROM ('0001-01-01') TO ('10000-01-01')",
		"FOR VALUES FROM ('2024-13-01') TO ('2024-02-31')", "FOR VALUES IN (1)", "FOR VALUES WITH (modulus 2, remainder 0)", "FOR VALUES FROM ('') TO ('')",
		"FOR VALUES FROM ('a''b') TO (MAXVALUE)", "FOR VALUES FROM ('2024-01-01', 5) TO ('2024-02-01', MINVALUE)", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, format := range boundFormats {
			from, to, isDefault, err := parseBound(text, format)
			if err != nil {
				if !strings.HasPrefix(err.Error(), "dbsplit: partition bound") {
					t.Errorf("%q: %v", text, err)
				}
				continue
			}
			if isDefault != (text == "DEFAULT") || isDefault && !(from.IsZero() && to.IsZero()) {
				t.Errorf("%q: %v %v %v", text, from, to, isDefault)
			}
			for _, b := range []time.Time{from, to} {
				if b.IsZero() {
					continue
				}
				if b.Location() != time.UTC || b.Year() < 0 || b.Year() > 9999 {
					t.Errorf("%q: %v", text, b)
				}
			}
			if isDefault || from.IsZero() || to.IsZero() {
				continue
			}
			again := "FOR VALUES FROM ('" + from.Format(format) + "') TO ('" + to.Format(format) + "')"
			f2, t2, _, err := parseBound(again, format)
			if err != nil || !f2.Equal(from.Truncate(time.Second)) || !t2.Equal(to.Truncate(time.Second)) {
				t.Errorf("%q is written %q and read as %v %v: %v", text, again, f2, t2, err)
			}
		}
	})
}

// Whatever the connection strings are, no error tells a password, and nodes are named by host and port alone.
func FuzzDSNList(f *testing.F) {
	const canary = "sw0rdfish7"
	for _, seed := range []struct{ before, after string }{
		{"postgres://app:", "@db1:5432/shop"}, {"postgres://app:x", "y@db1/shop?sslmode=never"}, {"host=db1 user=app password=", " port=5432"},
		{"host=db1 password='", "' port=99999"}, {"host=db1 password='", ""}, {"postgres://app:", "@db1,db2/shop"}, {"postgres://app:", "@[::1]:5432/shop"},
		{"postgres://app:%zz", "@db1/shop"}, {"postgres://app:a`:", "sslmode@db1/shop"}, {"postgres://db1/shop?password=", "&node_weight=0"}, {"", "@db1/shop"},
		{"postgres://app:", "@db1/shop?node_addr=10.0.0.1&pool_max_conns=0"}, {"postgres://app:", "@db1/shop?connect_timeout=" + canary}, {"  ", "  "},
		{"postgres://app:", "@/shop?host=/tmp"}, {"postgres://", "["}, {"host=db1 passfile=/nowhere service=x password=", ""}, {"postgres://app:\x7f", "@db1/shop"},
	} {
		f.Add(seed.before, seed.after, "")
		f.Add("postgres://app@db9/shop?password=", "", seed.before+canary+seed.after)
	}
	// A file or variable of the machine is no part of the input.
	for _, name := range []string{"PGSERVICE", "PGSERVICEFILE", "PGPASSFILE"} {
		f.Setenv(name, "")
	}
	f.Fuzz(func(t *testing.T, before, after, other string) {
		dsn := before + canary + after
		if strings.Contains(dsn+other, "service") || strings.Contains(dsn+other, "file") || strings.Contains(dsn+other, "cert") || strings.Contains(dsn+other, "sslkey") {
			return // it would read files
		}
		endpoints, err := Nodes{Primary: dsn, Replicas: []string{dsn, other}}.parse()
		for _, e := range endpoints {
			c := e.config.ConnConfig
			addr, addrErr := netip.ParseAddrPort(e.name) // as node_addr gives it
			if want := net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))); e.name != want && (addrErr != nil || addr.Port() != c.Port) {
				t.Errorf("the name %q is not host and port, %q", e.name, want)
			}
			if e.weight < 1 || e.weight > maxWeight {
				t.Errorf("weight %d", e.weight)
			}
		}
		if err == nil {
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			// A host is told by intention: it may be where the canary ended up.
			if strings.Contains(line, canary) && !hostTells(dsn, canary) && !hostTells(other, canary) {
				t.Errorf("%q gives %q", dsn, line)
			}
		}
	})
}

// hostTells reports whether the connection string, understood, has the secret in its host.
func hostTells(dsn, secret string) bool {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return false
	}
	if strings.Contains(config.Host, secret) {
		return true
	}
	for _, f := range config.Fallbacks {
		if strings.Contains(f.Host, secret) {
			return true
		}
	}
	return false
}
