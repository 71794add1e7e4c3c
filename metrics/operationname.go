package metrics

import "strings"

// OperationName is a statement's label: the name in a leading comment of the form that sqlc writes, "-- name: GetLead :one",
// which is text from the program, never from its users. It is commit for what pgx sends to commit, and empty for what else it
// sends for transactions. Without a name it is otherwise.
func OperationName(sql, otherwise string) string {
	if rest, ok := strings.CutPrefix(sql, "-- name: "); ok {
		end := 0
		for end < len(rest) && letter(rest[end]) {
			end++
		}
		if end > 0 && end <= 64 && end < len(rest) && (rest[end] == ' ' || rest[end] == '\n' || rest[end] == '\r') {
			return rest[:end]
		}
		return otherwise
	}
	switch {
	case sql == "commit":
		return "commit"
	case strings.HasPrefix(sql, "begin"), sql == "rollback", strings.HasPrefix(sql, "savepoint "),
		strings.HasPrefix(sql, "release savepoint "), strings.HasPrefix(sql, "rollback to savepoint "):
		return ""
	}
	return otherwise
}

func letter(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
