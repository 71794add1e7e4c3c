package dbsplit

import (
	"database/sql/driver"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
)

// sqlRows are rows for database/sql.
type sqlRows struct {
	rows    pgx.Rows
	ahead   bool // Next was called already, and more is its answer
	more    bool
	cells   []sqlCell
	targets []any
}

var (
	_ driver.Rows                           = (*sqlRows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*sqlRows)(nil)
	_ driver.RowsColumnTypeLength           = (*sqlRows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*sqlRows)(nil)
	_ driver.RowsColumnTypeScanType         = (*sqlRows)(nil)
)

func (r *sqlRows) Columns() []string {
	fields := r.rows.FieldDescriptions()
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names
}

func (r *sqlRows) Next(dest []driver.Value) error {
	if !r.ahead {
		r.more = r.rows.Next()
	}
	r.ahead = false
	if !r.more {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	if r.cells == nil {
		r.prepare()
	}
	if err := r.rows.Scan(r.targets...); err != nil {
		return err
	}
	for i, c := range r.cells {
		v, err := c.value()
		if err != nil {
			return fmt.Errorf("dbsplit: column %q: %w", r.rows.FieldDescriptions()[i].Name, err)
		}
		dest[i] = v
	}
	return nil
}

// prepare makes the cells, which all rows use in turn.
func (r *sqlRows) prepare() {
	for _, f := range r.rows.FieldDescriptions() {
		c := typeOf(f.DataTypeOID).cell()
		r.cells, r.targets = append(r.cells, c), append(r.targets, c.target)
	}
}

// Close ends the statement. database/sql calls it after the last row, too.
func (r *sqlRows) Close() error {
	r.rows.Close()
	return r.rows.Err()
}
