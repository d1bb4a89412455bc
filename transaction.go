package watermillpgmq

import (
	"context"
	"database/sql"
	"reflect"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// WithTx returns a context that carries a transaction. A message with this context is published inside
// of tx: it appears when tx commits, and never if tx rolls back. Publish waits for no commit then.
//
//	msg.SetContext(watermillpgmq.WithTx(ctx, tx))
//	err := publisher.Publish("orders.created", msg)
//
// Watermill's EventBus and CommandBus give the context that they are called with to their messages, so
// that they take part by themselves: eventBus.Publish(watermillpgmq.WithTx(ctx, tx), event).
//
// A nil tx is an error of Publish, ErrNilDB: a transaction that is missing must not go unnoticed.
//
// The publisher neither commits nor rolls back. A transaction is not safe for concurrent use, so neither
// are Publish calls with the same one.
func WithTx(ctx context.Context, tx pgx.Tx) context.Context {
	return context.WithValue(ctx, txKey{}, transaction{given: true, pgx: tx})
}

// WithStdTx is WithTx for a transaction of database/sql, of any driver for Postgres, and so for everything
// that is built on it: sqlx and bun embed a *sql.Tx in theirs, GORM has it as db.Statement.ConnPool.
func WithStdTx(ctx context.Context, tx *sql.Tx) context.Context {
	return context.WithValue(ctx, txKey{}, transaction{given: true, std: tx})
}

// TxFromContext returns the transaction that WithTx put into ctx.
func TxFromContext(ctx context.Context) (pgx.Tx, bool) {
	tx := transactionFrom(ctx)
	return tx.pgx, tx.pgx != nil
}

// StdTxFromContext returns the transaction that WithStdTx put into ctx.
func StdTxFromContext(ctx context.Context) (*sql.Tx, bool) {
	tx := transactionFrom(ctx)
	return tx.std, tx.std != nil
}

type txKey struct{}

// transaction is of pgx or of database/sql, or none.
type transaction struct {
	given bool
	pgx   pgx.Tx
	std   *sql.Tx
}

func transactionFrom(ctx context.Context) transaction {
	tx, _ := ctx.Value(txKey{}).(transaction)
	return tx
}

func (t transaction) none() bool { return !t.given }

// is says whether both are the same. Transactions of a type that cannot be compared are taken for
// different ones.
func (t transaction) is(other transaction) bool {
	return reflect.ValueOf(t).Comparable() && reflect.ValueOf(other).Comparable() && t == other
}

func (t transaction) client() *pgmq.Client {
	if t.std != nil {
		return pgmq.NewStd(t.std)
	}
	return pgmq.New(t.pgx)
}

// transactionOf returns the one transaction that all messages carry, a message without one counting as one
// with the given transaction, which may be none.
func transactionOf(messages []*message.Message, given transaction) (transaction, error) {
	of := func(msg *message.Message) transaction {
		if tx := transactionFrom(msg.Context()); !tx.none() {
			return tx
		}
		return given
	}
	first := of(messages[0])
	for _, msg := range messages[1:] {
		if !of(msg).is(first) {
			return transaction{}, ErrMixedTransactions
		}
	}
	if !given.none() && !first.is(given) {
		return transaction{}, ErrMixedTransactions
	}
	return first, nil
}

// TxPublisher returns a Publisher whose messages are all published in tx, for code that takes a Publisher
// and knows nothing of transactions, such as that of Watermill's Forwarder. It is to be used, by one
// goroutine at a time, until tx ends. Closing it does nothing. Messages that carry another transaction are
// ErrMixedTransactions.
func (p *Publisher) TxPublisher(tx pgx.Tx) message.Publisher {
	return &txPublisher{publisher: p, tx: transaction{given: true, pgx: tx}}
}

// StdTxPublisher is TxPublisher for a transaction of database/sql.
func (p *Publisher) StdTxPublisher(tx *sql.Tx) message.Publisher {
	return &txPublisher{publisher: p, tx: transaction{given: true, std: tx}}
}

type txPublisher struct {
	publisher *Publisher
	tx        transaction
}

// Publish implements message.Publisher.
func (p *txPublisher) Publish(topic string, messages ...*message.Message) error {
	return p.publisher.publish(p.tx, topic, messages)
}

// Close implements message.Publisher. It does nothing: neither the transaction nor the Publisher is its own.
func (p *txPublisher) Close() error { return nil }
