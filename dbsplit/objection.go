package dbsplit

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// objection says what a server that is up answers the monitor instead of what it asks for, and what to do about that. It is empty
// when err is not such an answer: nobody is there, or the server starts or stops.
func objection(err error) string {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return ""
	}
	advice := "put that right there"
	switch pgErr.Code {
	case stateAdminShutdown, stateCrashShutdown, stateCannotConnectNow:
		return ""
	case stateNotSupported, stateUndefinedFunction:
		advice = "the monitor needs what PostgreSQL with streaming replication has and Aurora has not: name only such servers"
		if refusedSerializable(err) {
			advice = "a standby has no serializable transactions, and a pooler in transaction mode keeps no other default_transaction_isolation for a session: set repeatable read for this role, or name the server's own address"
		}
	}
	return fmt.Sprintf("%s (SQLSTATE %s): %s", pgErr.Message, pgErr.Code, advice)
}
