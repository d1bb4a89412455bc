package watermillpgmq

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
)

// WithTx returns a context that carries a transaction. A message with this context is published inside
// of tx: it appears when tx commits, and never if tx rolls back. Publish waits for no commit then.
//
//	msg.SetContext(watermillpgmq.WithTx(ctx, tx))
//	err := publisher.Publish("orders.created", msg)
//
// The publisher neither commits nor rolls back. A transaction is not safe for concurrent use, so neither
// are Publish calls with the same one.
func WithTx(ctx context.Context, tx pgx.Tx) context.Context {
	return context.WithValue(ctx, txKey{}, tx)
}

// TxFromContext returns the transaction that WithTx put into ctx.
func TxFromContext(ctx context.Context) (pgx.Tx, bool) {
	tx, ok := ctx.Value(txKey{}).(pgx.Tx)
	return tx, ok && tx != nil
}

type txKey struct{}

// transactionOf returns the one transaction that all messages carry, or nil if none carries one.
func transactionOf(messages []*message.Message) (pgx.Tx, error) {
	first, _ := TxFromContext(messages[0].Context())
	for _, msg := range messages[1:] {
		if tx, _ := TxFromContext(msg.Context()); tx != first {
			return nil, ErrMixedTransactions
		}
	}
	return first, nil
}
