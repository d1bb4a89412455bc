package pgmq

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
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
	// begin begins a transaction. It is not called where isTx.
	begin(ctx context.Context) (transaction, error)
	// isTx says whether the handle is a transaction: a failure ends more than one statement.
	isTx() bool
	// raw is what New or NewStd was given.
	raw() any
}

type transaction interface {
	handle
	commit(ctx context.Context) error
	rollback(ctx context.Context) error
}

type statement struct {
	sql  string
	args []any
}

// rollbackTimeout bounds a rollback, which does not end with the caller's context.
const rollbackTimeout = 5 * time.Second

// inTx calls f with a handle that is a transaction, or a savepoint in one, and commits if f returns
// nil. It returns f's error, joined by that of rolling back to a savepoint.
func inTx(ctx context.Context, h handle, f func(handle) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err // to begin or commit with such a context would close the connection
	}
	tx, err := begin(ctx, h)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if committed {
			return
		}
		// Also when ctx is what failed: a transaction around this one is the caller's, who may go on
		// and commit it, and so is the connection.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		if failed := tx.rollback(end); failed != nil {
			err = errors.Join(err, fmt.Errorf("roll back: %w", failed))
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err = tx.commit(ctx)
	committed = err == nil
	return err
}

func begin(ctx context.Context, h handle) (transaction, error) {
	if !h.isTx() {
		return h.begin(ctx)
	}
	s := savepoint{h}
	return s, s.do(ctx, `savepoint pgmq`)
}

// savepoint is a transaction inside of one.
type savepoint struct{ handle }

// commit keeps what was done, unless the transaction has failed.
func (s savepoint) commit(ctx context.Context) error { return s.do(ctx, `release savepoint pgmq`) }

// rollback also releases the savepoint: it would hide the one of the same name around it.
func (s savepoint) rollback(ctx context.Context) error {
	err := s.do(ctx, `rollback to savepoint pgmq`)
	if err == nil {
		err = s.commit(ctx)
	}
	if errors.Is(err, sql.ErrTxDone) || errors.Is(err, pgx.ErrTxClosed) {
		return nil // with the transaction around it
	}
	return err
}

func (s savepoint) do(ctx context.Context, sql string) error {
	r, err := s.query(ctx, sql, nil)
	if err != nil {
		return err
	}
	_, err = collect(r, scanNothing)
	return err
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

// allInTx is oneByOne in a transaction of its own.
func allInTx(ctx context.Context, h handle, statements []statement, read func(int, rows) error) (at int, err error) {
	err = inTx(ctx, h, func(tx handle) (err error) {
		at, err = oneByOne(ctx, tx, statements, read)
		return err
	})
	return at, err
}

// isNil says whether a handle is a nil of its type; an interface with one is not nil itself.
func isNil(db any) bool {
	if db == nil {
		return true
	}
	v := reflect.ValueOf(db)
	return v.Kind() == reflect.Pointer && v.IsNil()
}
