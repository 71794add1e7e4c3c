package dbsplit

type statementHistory struct{}
