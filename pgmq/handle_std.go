package pgmq

import (
	"context"
	"database/sql"
	"fmt"
)

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

// planned is query: database/sql has no word for it, and not every driver keeps plans.
func (h stdHandle) planned(ctx context.Context, sql string, args []any) (rows, error) {
	return h.query(ctx, sql, args)
}

func (h stdHandle) all(ctx context.Context, statements []statement, read func(int, rows) error) (at int, err error) {
	if h.isTx() {
		return oneByOne(ctx, h, statements, read)
	}
	return allInTx(ctx, h, statements, read)
}

type stdBeginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// begin: database/sql rolls a transaction back by itself when the context ends that it was begun with,
// and with many drivers throws the connection away, which may be the caller's own. So ctx counts until
// the transaction has begun, and then for each statement, as it does with pgx.
func (h stdHandle) begin(ctx context.Context) (transaction, error) {
	db, ok := h.db.(stdBeginner)
	if !ok {
		return nil, fmt.Errorf("%w: %T cannot begin a transaction", ErrUnsupported, h.db)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	unbind := context.AfterFunc(ctx, end)
	tx, err := db.BeginTx(life, nil)
	if err != nil {
		end()
		return nil, err
	}
	if !unbind() {
		return nil, ctx.Err() // and tx has ended with life
	}
	return stdTx{stdHandle{tx}, tx, end}, nil
}

// isTx: what cannot begin a transaction is one, also when others have wrapped it.
func (h stdHandle) isTx() bool {
	_, begins := h.db.(stdBeginner)
	return !begins
}

func (h stdHandle) raw() any { return h.db }

// stdTx is a transaction that was begun here.
type stdTx struct {
	stdHandle
	tx  *sql.Tx
	end context.CancelFunc
}

func (t stdTx) commit(context.Context) error {
	defer t.end()
	return t.tx.Commit()
}

// rollback: where it fails the connection is lost, and the server rolls back.
func (t stdTx) rollback(context.Context) error {
	defer t.end()
	_ = t.tx.Rollback()
	return nil
}
