package pgmq

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// DB is a handle of pgx: *pgxpool.Pool, *pgxpool.Conn, *pgx.Conn or pgx.Tx.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Client speaks PGMQ over one handle. It is cheap to make, so that a transaction is used through a
// client of its own: what New(tx).Send(...) sends appears and disappears with tx. It is as safe for
// concurrent use as its handle: on a pool it is, on a connection or in a transaction it is not.
//
// Every error of its methods is an *Error.
type Client struct {
	db DB
}

// New returns a client on db. It sends nothing; with a nil db every method returns ErrNilDB.
func New(db DB) *Client {
	return &Client{db: db}
}

// InTx calls fn with a client whose handle is a transaction, which is committed when fn returns nil
// and else rolled back. Inside a transaction it is a savepoint. It returns fn's error as it is.
func (c *Client) InTx(ctx context.Context, fn func(*Client) error) error {
	op := operation{name: "begin"}
	if c.db == nil {
		return op.fail(ErrNilDB)
	}
	b, ok := c.db.(interface {
		Begin(ctx context.Context) (pgx.Tx, error)
	})
	if !ok {
		return op.fail(fmt.Errorf("%w: %T cannot begin a transaction", ErrUnsupported, c.db))
	}
	return pgx.BeginFunc(ctx, b, func(tx pgx.Tx) error { return fn(New(tx)) })
}

// query runs one statement and collects its rows. Every statement of this package goes through it,
// so that rows are closed and their error is read in one place.
func query[T any](ctx context.Context, c *Client, scan pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	if c.db == nil {
		return nil, ErrNilDB
	}
	rows, err := c.db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// queryOne is query for a statement that has exactly one row.
func queryOne[T any](ctx context.Context, c *Client, scan pgx.RowToFunc[T], sql string, args ...any) (T, error) {
	all, err := query(ctx, c, scan, sql, args...)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d rows where one was expected", len(all))
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return all[0], nil
}

// exec is query for a statement whose rows say nothing.
func exec(ctx context.Context, c *Client, sql string, args ...any) error {
	_, err := query(ctx, c, func(pgx.CollectableRow) (struct{}, error) { return struct{}{}, nil }, sql, args...)
	return err
}
