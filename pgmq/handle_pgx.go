package pgmq

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// pgxHandle is a handle of pgx.
type pgxHandle struct {
	db DB

	asked sync.Once
	fresh []any // what makes pgx plan a statement anew: a mode, or nothing where its mode does anyway
}

func (h *pgxHandle) query(ctx context.Context, sql string, args []any) (rows, error) {
	r, err := h.db.Query(ctx, sql, args...)
	return pgxRows{r}, err
}

// planned: of pgx's modes only the one that prepares statements keeps plans.
func (h *pgxHandle) planned(ctx context.Context, sql string, args []any) (rows, error) {
	h.asked.Do(func() {
		config := configOf(h.db)
		switch {
		case config == nil || config.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement:
		case config.DescriptionCacheCapacity > 0:
			h.fresh = []any{pgx.QueryExecModeCacheDescribe}
		default:
			h.fresh = []any{pgx.QueryExecModeDescribeExec}
		}
	})
	if h.fresh != nil {
		args = append(h.fresh[:1:1], args...)
	}
	return h.query(ctx, sql, args)
}

// configOf is nil for a handle that does not say.
func configOf(db DB) *pgx.ConnConfig {
	switch db := db.(type) {
	case *pgx.Conn:
		return db.Config()
	case *pgxpool.Pool:
		return db.Config().ConnConfig
	case interface{ Conn() *pgx.Conn }: // a transaction, or a connection of a pool
		return db.Conn().Config()
	}
	return nil
}

func (h *pgxHandle) all(ctx context.Context, statements []statement, read func(int, rows) error) (at int, err error) {
	db, ok := h.db.(interface {
		SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	})
	if !ok {
		return allInTx(ctx, h, statements, read)
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
	return refused(statements, at, err), err
}

// refused is the index of the statement that an error is about. What the server or pgx makes of a
// statement before any of them runs comes up at the first.
func refused(statements []statement, at int, err error) int {
	var before pgx.ErrPreprocessingBatch
	if errors.As(err, &before) {
		for i := range statements {
			if statements[i].sql == before.SQL() {
				return i
			}
		}
	}
	return at
}

func (h *pgxHandle) begin(ctx context.Context) (transaction, error) {
	b, ok := h.db.(interface {
		Begin(ctx context.Context) (pgx.Tx, error)
	})
	if !ok {
		return nil, fmt.Errorf("%w: %T cannot begin a transaction", ErrUnsupported, h.db)
	}
	tx, err := b.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return pgxTx{&pgxHandle{db: tx}, tx}, nil
}

func (h *pgxHandle) isTx() bool {
	_, yes := h.db.(pgx.Tx)
	return yes
}

func (h *pgxHandle) raw() any { return h.db }

// pgxTx is a transaction that was begun here.
type pgxTx struct {
	*pgxHandle
	tx pgx.Tx
}

func (t pgxTx) commit(ctx context.Context) error { return t.tx.Commit(ctx) }

// rollback: where it fails, pgx closes the connection, and the server rolls back.
func (t pgxTx) rollback(ctx context.Context) error {
	_ = t.tx.Rollback(ctx)
	return nil
}
