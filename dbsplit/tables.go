package dbsplit

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaleaware/scaleaware/admin"
)

// relation is a table that was found by the name which a person gave.
type relation struct {
	schema, name string
	oid          uint32
	kind         string // r, p (partitioned) or m (materialised view)
	owned        bool   // the session's role is its owner, a member of that, or a superuser
	vacuums      bool   // the session's role may VACUUM it
	reindexes    bool   // the session's role may REINDEX it
}

func (r relation) String() string { return pgx.Identifier{r.schema, r.name}.Sanitize() }

type querier interface {
	Exec(ctx context.Context, sql string, arguments ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// A table is looked up by parameters, never by pasting the name into SQL. Of two tables whose names differ in case
// only, the one spelled as given wins. The database's owner may VACUUM every table, but REINDEX only those that are
// theirs; from PostgreSQL 17 on the privilege MAINTAIN, which owners have by default, decides on both.
const findTableSQL = `-- name: dbsplit_find_table
select n.nspname, c.relname, c.oid, c.relkind::text, o.owned,
	m.maintains or pg_has_role((select datdba from pg_database where datname = current_database()), 'USAGE'),
	m.maintains
from pg_class c join pg_namespace n on n.oid = c.relnamespace,
	lateral (select pg_has_role(c.relowner, 'USAGE') as owned) o,
	lateral (select case when current_setting('server_version_num')::int >= 170000
		then has_table_privilege(c.oid, 'MAINTAIN') else o.owned end as maintains) m
where c.relkind in ('r', 'p', 'm') and c.relname = any($1)
	and case when $2::text[] is null then pg_table_is_visible(c.oid) else n.nspname = any($2) end
order by c.relname = ($1::text[])[1] desc, $2::text[] is not null and n.nspname = ($2::text[])[1] desc
limit 1`

// findTable looks up Lead, "Lead", schema.table and the like. Its errors are for the caller of an operation.
func findTable(ctx context.Context, q querier, given string) (relation, error) {
	parts, err := splitName(given)
	if err != nil {
		return relation{}, admin.Invalid("table", "%q is not the name of a table: %v", given, err)
	}
	var schemas []string
	if len(parts) == 2 {
		schemas = parts[0].spellings()
	}
	var r relation
	err = q.QueryRow(ctx, findTableSQL, parts[len(parts)-1].spellings(), schemas).Scan(&r.schema, &r.name, &r.oid, &r.kind, &r.owned, &r.vacuums, &r.reindexes)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return relation{}, admin.NotFound("there is no table %s in this database's search path: give it as schema.table", given)
	case err != nil:
		return relation{}, unavailable(err)
	case strings.HasPrefix(r.schema, "pg_") || r.schema == "information_schema":
		return relation{}, admin.Invalid("table", "%s is a system table: PostgreSQL maintains those itself", given)
	}
	return r, nil
}

// word is one part of a name.
type word struct {
	text   string
	quoted bool
}

// spellings returns the names that are meant, the likelier first: PostgreSQL folds what is not quoted, people
// do not.
func (w word) spellings() []string {
	if folded := strings.ToLower(w.text); !w.quoted && folded != w.text {
		return []string{w.text, folded}
	}
	return []string{w.text}
}

// among reports whether r is one of those that names, which were checked, mean.
func (r relation) among(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		parts, err := splitName(name)
		return err == nil && slices.Contains(parts[len(parts)-1].spellings(), r.name) &&
			(len(parts) == 1 || slices.Contains(parts[0].spellings(), r.schema))
	})
}

// maxNameBytes is the longest name that PostgreSQL keeps.
const maxNameBytes = 63

func splitName(given string) ([]word, error) {
	var words []word
	for rest := given; ; {
		w, tail, err := nextWord(rest)
		if err != nil {
			return nil, err
		}
		words = append(words, w)
		if tail == "" {
			break
		}
		if tail[0] != '.' || len(words) == 2 {
			return nil, errors.New("want table or schema.table, each part plain or in double quotes")
		}
		rest = tail[1:]
	}
	for _, w := range words {
		if w.text == "" || len(w.text) > maxNameBytes || strings.ContainsRune(w.text, 0) {
			return nil, errors.New("each part has 1 to 63 bytes")
		}
	}
	return words, nil
}

func nextWord(s string) (w word, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, `."`)
		if i < 0 {
			i = len(s)
		}
		return word{text: s[:i]}, s[i:], nil
	}
	var text strings.Builder
	for s = s[1:]; ; {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			return word{}, "", errors.New("the closing double quote is missing")
		}
		text.WriteString(s[:i])
		s = s[i+1:]
		if !strings.HasPrefix(s, `"`) {
			return word{text.String(), true}, s, nil
		}
		text.WriteByte('"')
		s = s[1:]
	}
}

// movedAway reports whether an operation was on a server that writes do not go to, or not any more.
func movedAway(err error) bool {
	return errors.Is(err, ErrNotPrimary) || errors.Is(err, ErrTwoPrimaries) || errors.Is(err, ErrOutcomeUnknown)
}

// unavailable is for errors that the caller of an operation cannot be told more about, except that a lock was in the way.
func unavailable(err error) error {
	if sqlState(err) == stateLockNotAvailable {
		return admin.Conflict("another transaction holds a lock on the table for longer than %v: end it, or try again later", maintenanceLockTimeout)
	}
	if errors.Is(err, ErrPooler) {
		return admin.Unsupported("%v", err)
	}
	if state := sqlState(err); state == stateTooManyConnections || state == stateCannotConnectNow {
		return admin.Unavailable(err, "%s", trouble(err))
	}
	if movedAway(err) {
		return admin.Unavailable(err, "%v. GET the replication status; when there is one primary, look there for what was done, and call again", err)
	}
	return admin.Unavailable(err, "the database does not answer as it should: see this service's log, and GET the replication status")
}
