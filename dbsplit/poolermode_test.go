package dbsplit

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestDeclaredPoolerChoosesExecMode(t *testing.T) {
	const (
		stmt     = pgx.QueryExecModeCacheStatement
		describe = pgx.QueryExecModeCacheDescribe
		exec     = pgx.QueryExecModeExec
		simple   = pgx.QueryExecModeSimpleProtocol
	)
	for _, test := range []struct {
		params  string
		want    pgx.QueryExecMode
		mistake string
	}{
		{"", stmt, ""},
		{"node_pooler=session", stmt, ""},
		{"node_pooler=transaction", describe, ""},
		{"node_pooler=transaction&description_cache_capacity=0", exec, ""},
		{"node_pooler=transaction&default_query_exec_mode=cache_describe", describe, ""},
		{"node_pooler=transaction&default_query_exec_mode=exec", exec, ""},
		{"node_pooler=transaction&default_query_exec_mode=simple_protocol", simple, ""},
		{"node_pooler=transaction-prepared", stmt, ""},
		{"node_pooler=transaction&default_query_exec_mode=cache_statement", 0, "cache_describe"},
		{"node_pooler=transaction&default_query_exec_mode=describe_exec", 0, "cache_describe"},
		{"node_pooler=transaction&default_query_exec_mode=cache_describe&description_cache_capacity=0", 0, "description_cache_capacity"},
		{"node_pooler=statement", 0, "node_pooler"},
	} {
		e, err := parseDSN("postgres://app:kiwi@db1/shop?" + test.params)
		if test.mistake != "" {
			if err == nil || !strings.Contains(err.Error(), test.mistake) || strings.Contains(err.Error(), "kiwi") {
				t.Errorf("%s: %v, want it to say %s", test.params, err, test.mistake)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.params, err)
			continue
		}
		c := e.config.ConnConfig
		if c.DefaultQueryExecMode != test.want {
			t.Errorf("%s: mode %v, want %v", test.params, c.DefaultQueryExecMode, test.want)
		}
		if cached := c.StatementCacheCapacity > 0; cached == (e.pooler == poolerTransaction) {
			t.Errorf("%s: statements are cached: %v", test.params, cached)
		}
	}
	_, err := Open(t.Context(), Nodes{
		Primary:  "postgres://db1/shop?node_pooler=transaction&default_query_exec_mode=cache_statement",
		Replicas: []string{"postgres://db2/shop?node_pooler=transaction&default_query_exec_mode=describe_exec"},
	}, &Options{MinConns: -1})
	for _, part := range []string{"Nodes.Primary", "Nodes.Replicas[0]", "MinConns"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Open: %v, want it to mention %s", err, part)
		}
	}
}

// A pooler that keeps prepared statements harms nobody, whatever was declared.
func TestWeighPooler(t *testing.T) {
	const stmt, describeExec, describe = "cache_statement", "describe_exec", "cache_describe"
	direct := finding{}
	unproven := finding{pooled: true}
	session := finding{pooled: true, mode: poolerSession}
	transaction := finding{pooled: true, mode: poolerTransaction}
	forgetful := finding{pooled: true, mode: poolerTransaction, prepared: keepsNone}
	keeping := finding{pooled: true, mode: poolerTransaction, prepared: keepsAll}
	for _, test := range []struct {
		found    finding
		declared pooler
		mode     string
		advice   string // part of it; empty: none
		bars     bool
	}{
		{direct, poolerNone, stmt, "", false},
		{direct, poolerTransaction, describe, "take node_pooler out", false},
		{unproven, poolerNone, stmt, "not proven", false},
		{unproven, poolerSession, stmt, "", false},
		{session, poolerNone, stmt, "node_pooler=session", false},
		{session, poolerSession, stmt, "", false},
		{session, poolerPrepared, stmt, "node_pooler=session", false},
		{transaction, poolerNone, stmt, "node_pooler=transaction", false},
		{transaction, poolerSession, stmt, "node_pooler=transaction", true},
		{transaction, poolerPrepared, stmt, "", false},
		{forgetful, poolerNone, stmt, "node_pooler=transaction", true},
		{forgetful, poolerNone, describe, "node_pooler=transaction", false},
		{forgetful, poolerSession, describe, "node_pooler=transaction", true},
		{forgetful, poolerTransaction, describe, "", false},
		{forgetful, poolerPrepared, stmt, "max_prepared_statements", true},
		{keeping, poolerNone, stmt, "node_pooler=transaction", false},
		{keeping, poolerNone, describeExec, "node_pooler=transaction", true},
		{keeping, poolerSession, stmt, "node_pooler=transaction", true},
		{keeping, poolerPrepared, stmt, "", false},
	} {
		params := "?default_query_exec_mode=" + test.mode
		if test.declared != poolerNone {
			params += "&node_pooler=" + string(test.declared)
		}
		e, err := parseDSN("postgres://db1/shop" + params)
		if err != nil {
			t.Fatal(err)
		}
		n, f := node{endpoint: e}, test.found
		n.weigh(&f)
		n.finding.Store(&f)
		if test.advice == "" && f.advice != "" || !strings.Contains(f.advice, test.advice) || (f.bar != nil) != test.bars {
			t.Errorf("%+v with %s: advice %q, bar %v", test.found, params, f.advice, f.bar)
		}
		if test.bars && (!errors.Is(n.barred(), ErrPooler) || n.counsel("other") != f.advice) {
			t.Errorf("%s: barred by %v, advice %q", params, n.barred(), n.counsel("other"))
		}
		if !test.bars && n.counsel("other") != "other" {
			t.Errorf("%s: advice %q comes before a graver one", params, n.counsel("other"))
		}
	}
}

func TestPoolerErrors(t *testing.T) {
	none, transaction := &node{endpoint: endpoint{name: "db1:6432"}}, &node{endpoint: endpoint{name: "db1:6432", pooler: poolerTransaction}}
	for name, test := range map[string]struct {
		err  error
		want string // part of the text; empty: left as it is
	}{
		"our parameter":        {none.explainConnect(&pgconn.PgError{Code: "08P01", Message: "unsupported startup parameter: default_transaction_read_only"}), "node_pooler="},
		"the user's parameter": {transaction.explainConnect(&pgconn.PgError{Code: "08P01", Message: "unsupported startup parameter: lock_timeout"}), "ignore_startup_parameters"},
		"another 08P01":        {none.explainConnect(&pgconn.PgError{Code: "08P01", Message: "bad packet"}), ""},
		"no such statement":    {none.explainStatement(&pgconn.PgError{Code: "26000"}), "node_pooler="},
		"statement is there":   {transaction.explainStatement(&pgconn.PgError{Code: "42P05"}), "prepare no statements"},
		"another error":        {none.explainStatement(&pgconn.PgError{Code: "42601"}), ""},
	} {
		pgErr, ok := errors.AsType[*pgconn.PgError](test.err)
		if !ok || pgErr.Code == "" {
			t.Errorf("%s: the server's error is out of reach: %v", name, test.err)
		}
		if errors.Is(test.err, ErrPooler) != (test.want != "") || !strings.Contains(test.err.Error(), test.want) {
			t.Errorf("%s: %v", name, test.err)
		}
		if readRetry(t.Context(), test.err, false, true) {
			t.Errorf("%s is repeated", name)
		}
	}
}
