package pgmq

import (
	"context"
	"fmt"
)

// Client speaks PGMQ over one handle. It is cheap to make, so that a transaction is used through a
// client of its own: what New(tx).Send(...) sends appears and disappears with tx. It is as safe for
// concurrent use as its handle: on a pool it is, on a connection or in a transaction it is not.
//
// Every error of its methods is an *Error.
type Client struct {
	db handle // nil: none was given
}

// New returns a client on a handle of pgx. It sends nothing; with a nil handle every method returns
// ErrNilDB.
func New(db DB) *Client {
	if isNil(db) {
		return &Client{}
	}
	return &Client{db: pgxHandle{db}}
}

// NewStd is New for a handle of database/sql.
func NewStd(db StdDB) *Client {
	if isNil(db) {
		return &Client{}
	}
	return &Client{db: stdHandle{db}}
}

// InTx calls fn with a client whose handle is a transaction, which is committed when fn returns nil
// and else rolled back. Inside a transaction it is a savepoint. It returns fn's error.
func (c *Client) InTx(ctx context.Context, fn func(*Client) error) error {
	if c.db == nil {
		return operation{name: "begin"}.fail(ErrNilDB)
	}
	err := c.db.inTx(ctx, func(tx handle) error { return fn(&Client{db: tx}) })
	return c.explainRolledBack(ctx, err)
}

// query runs one statement and collects its rows. Every statement of this package goes through it,
// or through planned, so that rows are closed and their error is read in one place.
func query[T any](ctx context.Context, c *Client, scan func(row) (T, error), sql string, args ...any) ([]T, error) {
	if c.db == nil {
		return nil, ErrNilDB
	}
	r, err := c.db.query(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	return collect(r, scan)
}

// planned is query for a statement whose best plan depends on what is in the table just now.
func planned[T any](ctx context.Context, c *Client, scan func(row) (T, error), sql string, args ...any) ([]T, error) {
	r, err := c.db.planned(ctx, sql, args)
	if err != nil {
		return nil, err
	}
	return collect(r, scan)
}

// queryOne is query for a statement that has exactly one row.
func queryOne[T any](ctx context.Context, c *Client, scan func(row) (T, error), sql string, args ...any) (T, error) {
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
	_, err := query(ctx, c, func(row) (struct{}, error) { return struct{}{}, nil }, sql, args...)
	return err
}
