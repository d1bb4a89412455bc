package pgmq

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// DB is a handle of pgx: *pgxpool.Pool, *pgxpool.Conn, *pgx.Conn or pgx.Tx.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// StdDB is a handle of database/sql: *sql.DB, *sql.Conn or *sql.Tx, of any driver for Postgres.
type StdDB interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// handle is what a Client needs of a database, whichever package its handle is from.
type handle interface {
	query(ctx context.Context, sql string, args []any) (rows, error)
	// planned is query with a plan for these arguments and the table as it is now, rather than one that
	// was kept from earlier.
	planned(ctx context.Context, sql string, args []any) (rows, error)
	// all runs statements in one transaction, and where the handle can in one round trip. read is called
	// with the rows of each. It says at which statement an error came up.
	all(ctx context.Context, statements []statement, read func(i int, r rows) error) (at int, err error)
	// inTx calls f with a handle that is a transaction, or a savepoint in one.
	inTx(ctx context.Context, f func(handle) error) error
	// isTx says whether a failure ends more than one statement.
	isTx() bool
	// raw is what New or NewStd was given.
	raw() any
}

type statement struct {
	sql  string
	args []any
}

// oneByOne is all for a handle that is a transaction and cannot send several statements at once.
func oneByOne(ctx context.Context, h handle, statements []statement, read func(int, rows) error) (at int, err error) {
	for at = range statements {
		r, err := h.query(ctx, statements[at].sql, statements[at].args)
		if err == nil {
			err = read(at, r)
		}
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

// rows are the rows of a statement; those of pgx and database/sql differ in Close only.
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

// collect reads all rows, closes them, and returns the first error on the way.
func collect[T any](r rows, scan func(row) (T, error)) (all []T, err error) {
	defer func() { err = errors.Join(err, r.close()) }()
	for r.Next() {
		v, err := scan(r)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, r.Err()
}

// scanValue reads a row of one column.
func scanValue[T any](r row) (v T, err error) {
	err = r.Scan(&v)
	return v, err
}

// isNil says whether a handle is a nil of its type; an interface with one is not nil itself.
func isNil(db any) bool {
	if db == nil {
		return true
	}
	v := reflect.ValueOf(db)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// pgxHandle is a handle of pgx.
type pgxHandle struct{ db DB }

func (h pgxHandle) query(ctx context.Context, sql string, args []any) (rows, error) {
	r, err := h.db.Query(ctx, sql, args...)
	return pgxRows{r}, err
}

// planned uses an unnamed statement. In the exec modes that have no other kind, so does query.
func (h pgxHandle) planned(ctx context.Context, sql string, args []any) (rows, error) {
	return h.query(ctx, sql, append([]any{pgx.QueryExecModeCacheDescribe}, args...))
}

func (h pgxHandle) all(ctx context.Context, statements []statement, read func(int, rows) error) (at int, err error) {
	db, ok := h.db.(interface {
		SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	})
	if !ok {
		err = h.inTx(ctx, func(tx handle) (err error) {
			at, err = oneByOne(ctx, tx, statements, read)
			return err
		})
		return at, err
	}
	batch := &pgx.Batch{}
	for _, s := range statements {
		batch.Queue(s.sql, s.args...)
	}
	results := db.SendBatch(ctx, batch)
	for at = range statements {
		var r pgx.Rows
		if r, err = results.Query(); err == nil {
			err = read(at, pgxRows{r})
		}
		if err != nil {
			break
		}
	}
	// The transaction ends with the batch, and may fail only then.
	if end := results.Close(); err == nil {
		err = end
	}
	return at, err
}

func (h pgxHandle) inTx(ctx context.Context, f func(handle) error) error {
	b, ok := h.db.(interface {
		Begin(ctx context.Context) (pgx.Tx, error)
	})
	if !ok {
		return fmt.Errorf("%w: %T cannot begin a transaction", ErrUnsupported, h.db)
	}
	return pgx.BeginFunc(ctx, b, func(tx pgx.Tx) error { return f(pgxHandle{tx}) })
}

func (h pgxHandle) isTx() bool {
	_, yes := h.db.(pgx.Tx)
	return yes
}

func (h pgxHandle) raw() any { return h.db }

type pgxRows struct{ pgx.Rows }

func (r pgxRows) Columns() ([]string, error) {
	fields := r.FieldDescriptions()
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return names, nil
}

func (r pgxRows) close() error {
	r.Close()
	return nil // Err has it
}

// stdHandle is a handle of database/sql.
type stdHandle struct{ db StdDB }

func (h stdHandle) query(ctx context.Context, sql string, args []any) (rows, error) {
	converted := make([]any, len(args))
	for i, arg := range args {
		converted[i] = stdArg(arg)
	}
	r, err := h.db.QueryContext(ctx, sql, converted...)
	return stdRows{r}, err
}

// planned tells pgx's driver, which otherwise keeps plans. lib/pq plans each time.
func (h stdHandle) planned(ctx context.Context, query string, args []any) (rows, error) {
	if db, ok := h.db.(*sql.DB); ok {
		if _, ok := db.Driver().(*stdlib.Driver); ok {
			args = append([]any{pgx.QueryExecModeCacheDescribe}, args...)
		}
	}
	return h.query(ctx, query, args)
}

func (h stdHandle) all(ctx context.Context, statements []statement, read func(int, rows) error) (at int, err error) {
	if h.isTx() {
		return oneByOne(ctx, h, statements, read)
	}
	err = h.inTx(ctx, func(tx handle) (err error) {
		at, err = oneByOne(ctx, tx, statements, read)
		return err
	})
	return at, err
}

func (h stdHandle) inTx(ctx context.Context, f func(handle) error) (err error) {
	b, ok := h.db.(interface {
		BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
	})
	if !ok {
		return savepoint(ctx, h, f)
	}
	tx, err := b.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if rollback := tx.Rollback(); !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, rollback)
		}
	}()
	if err := f(stdHandle{tx}); err != nil {
		return err
	}
	return tx.Commit()
}

// savepoint is a transaction inside of one, which database/sql has no word for.
func savepoint(ctx context.Context, h handle, f func(handle) error) error {
	run := func(ctx context.Context, sql string) error {
		r, err := h.query(ctx, sql, nil)
		if err != nil {
			return err
		}
		return errors.Join(r.close(), r.Err())
	}
	if err := run(ctx, `savepoint pgmq`); err != nil {
		return err
	}
	err := f(h)
	if err != nil {
		// Also when ctx is what failed: the transaction is the caller's, who may want to go on.
		return errors.Join(err, run(context.WithoutCancel(ctx), `rollback to savepoint pgmq`))
	}
	return run(ctx, `release savepoint pgmq`)
}

func (h stdHandle) isTx() bool {
	_, yes := h.db.(*sql.Tx)
	return yes
}

func (h stdHandle) raw() any { return h.db }

type stdRows struct{ *sql.Rows }

func (r stdRows) close() error { return r.Close() }
