package pgmq

import (
	"database/sql"

	"github.com/jackc/pgx/v5"
)

// rows are the rows of a statement; those of pgx and of database/sql differ in Close only.
type rows interface {
	row
	Next() bool
	Err() error
	close() error
}

// row is the current one of them.
type row interface {
	Columns() ([]string, error)
	Scan(dest ...any) error
}

// collect reads all rows, closes them, and returns the first error on the way. With an error there are
// no rows: what came before it may not be all.
func collect[T any](r rows, scan func(row) (T, error)) ([]T, error) {
	var all []T
	var err error
	for err == nil && r.Next() {
		var v T
		v, err = scan(r)
		all = append(all, v)
	}
	closed := r.close() // before Err: closing may be what fails
	if err := firstError(err, r.Err(), closed); err != nil {
		return nil, err
	}
	return all, nil
}

// scanValue reads a row of one column.
func scanValue[T any](r row) (v T, err error) {
	err = r.Scan(&v)
	return v, err
}

type pgxRows struct{ pgx.Rows }

func (r pgxRows) Columns() ([]string, error) {
	fields := r.FieldDescriptions()
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].Name
	}
	return names, nil
}

func (r pgxRows) close() error {
	r.Close()
	return nil // Err has it
}

type stdRows struct{ *sql.Rows }

func (r stdRows) close() error { return r.Close() }
