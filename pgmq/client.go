package pgmq

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
)

// Client speaks PGMQ over one handle. It is cheap to make, so that a transaction is used through a
// client of its own: what New(tx).Send(...) sends appears and disappears with tx. It is as safe for
// concurrent use as its handle: on a pool it is, on a connection or in a transaction it is not.
//
// It does the same on every handle, and with pgx in every mode of executing statements
// (pgx.QueryExecMode). Behind a PgBouncer in transaction mode those modes work that expect nothing of
// a server connection from one round trip to the next: QueryExecModeCacheDescribe,
// QueryExecModeExec and QueryExecModeSimpleProtocol. In a connection string for pgx:
// default_query_exec_mode=exec. For lib/pq it is binary_parameters=yes. Notifications never arrive there.
//
// Every error of its methods is an *Error, but for what InTx hands on.
type Client struct {
	db  handle       // nil: none was given
	log *slog.Logger // nil: silence
	own func()       // closes the handle; nil: it is somebody else's
	// server is what the server's PGMQ has, once somebody has asked. It is shared with transactions.
	server *atomic.Pointer[capabilities]
}

func newClient() *Client { return &Client{server: new(atomic.Pointer[capabilities])} }

// New returns a client on a handle of pgx. It sends nothing; with a nil handle every method returns
// ErrNilDB.
func New(db DB, opts ...Option) *Client {
	c := newClient()
	if !isNil(db) {
		c.db = &pgxHandle{db: db}
	}
	return c.with(opts)
}

// NewStd is New for a handle of database/sql.
func NewStd(db StdDB, opts ...Option) *Client {
	c := newClient()
	if !isNil(db) {
		c.db = stdHandle{db}
	}
	return c.with(opts)
}

// Close closes the connections that Connect opened, when those in use are back. Other clients have
// none of their own: the handle they were given stays open. Several calls are one.
func (c *Client) Close() {
	if c.own != nil {
		c.own()
	}
}

// InTx calls fn with a client whose handle is a transaction, which is committed when fn returns nil
// and else rolled back, also when fn panics. Inside a transaction it is a savepoint: what fn did is
// undone, and the transaction can go on. It returns fn's error. The client is of no use after fn.
func (c *Client) InTx(ctx context.Context, fn func(*Client) error) error {
	op := operation{name: "transaction"}
	if c.db == nil {
		return op.fail(ErrNilDB)
	}
	start := c.clock(ctx)
	var failed error // fn, rather than beginning or committing
	err := inTx(ctx, c.db, func(tx handle) error {
		failed = fn(&Client{db: tx, log: c.log, server: c.server})
		return failed
	})
	if !start.IsZero() {
		c.logDone(ctx, op, start, err)
	}
	if failed != nil {
		return c.explainRolledBack(ctx, err)
	}
	return c.wrap(ctx, op, err)
}

// query runs one statement of an operation and collects its rows. Every statement of this package goes
// through it or one of those below: there rows are closed, their error is read, and the statement is
// logged.
func query[T any](ctx context.Context, c *Client, op operation, scan func(row) (T, error), sql string, args ...any) ([]T, error) {
	start := c.clock(ctx)
	all, err := run(ctx, c, handle.query, scan, sql, args)
	if !start.IsZero() {
		c.logDone(ctx, op, start, err, found(all)...)
	}
	return all, err
}

// planned is query for a statement whose best plan depends on what is in the table just now.
func planned[T any](ctx context.Context, c *Client, op operation, scan func(row) (T, error), sql string, args ...any) ([]T, error) {
	start := c.clock(ctx)
	all, err := run(ctx, c, handle.planned, scan, sql, args)
	if !start.IsZero() {
		c.logDone(ctx, op, start, err, found(all)...)
	}
	return all, err
}

// queryOne is query for a statement that has exactly one row.
func queryOne[T any](ctx context.Context, c *Client, op operation, scan func(row) (T, error), sql string, args ...any) (one T, err error) {
	start := c.clock(ctx)
	all, err := run(ctx, c, handle.query, scan, sql, args)
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("%d rows where one was expected", len(all))
	}
	if err == nil {
		one = all[0]
	}
	if !start.IsZero() {
		c.logDone(ctx, op, start, err)
	}
	return one, err
}

// exec is query for a statement whose rows say nothing.
func exec(ctx context.Context, c *Client, op operation, sql string, args ...any) error {
	start := c.clock(ctx)
	_, err := run(ctx, c, handle.query, scanNothing, sql, args)
	if !start.IsZero() {
		c.logDone(ctx, op, start, err)
	}
	return err
}

// queryAll runs statements in one transaction; see handle.all.
func queryAll(ctx context.Context, c *Client, op operation, statements []statement, read func(i int, r rows) error) (at int, err error) {
	if c.db == nil {
		return 0, ErrNilDB
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	start := c.clock(ctx)
	at, err = c.db.all(ctx, statements, read)
	if !start.IsZero() {
		c.logDone(ctx, op, start, err, slog.Int("statements", len(statements)))
	}
	return at, err
}

func run[T any](
	ctx context.Context, c *Client, how func(handle, context.Context, string, []any) (rows, error),
	scan func(row) (T, error), sql string, args []any,
) ([]T, error) {
	if c.db == nil {
		return nil, ErrNilDB
	}
	if err := ctx.Err(); err != nil {
		return nil, err // drivers would throw the connection away
	}
	r, err := how(c.db, ctx, sql, args)
	if err != nil {
		return nil, err
	}
	return collect(r, scan)
}

func scanNothing(row) (struct{}, error) { return struct{}{}, nil }
