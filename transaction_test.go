package watermillpgmq_test

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func begin(t *testing.T, db *pgxpool.Pool) pgx.Tx {
	t.Helper()
	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }) // nothing, if the test has ended it
	return tx
}

func inTx(ctx context.Context, tx pgx.Tx, payload string) *message.Message {
	msg := newMessage(payload)
	msg.SetContext(watermillpgmq.WithTx(ctx, tx))
	return msg
}

// What is published in a transaction appears when it commits, at once and to a subscriber that could only
// be woken. Until then nobody has to wait for it.
func TestWithTx_Commit(t *testing.T) {
	t.Parallel()
	for name, topology := range map[string]watermillpgmq.Topology{
		"topics": watermillpgmq.TopicTopology{}, "queues": watermillpgmq.QueueTopology{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{
				Topology: topology, PollInterval: never, VisibilityTimeout: never,
			}), "orders")
			awaitListener(t, db)
			publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: topology})
			others := newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: topology})

			tx := begin(t, db)
			require.NoError(t, publisher.Publish("orders", inTx(t.Context(), tx, `"in the transaction"`)))
			require.Zero(t, written(t, db))
			for _, other := range []message.Publisher{publisher, others} {
				for range 5 {
					require.NoError(t, other.Publish("orders", newMessage(`"beside it"`)))
					require.Equal(t, `"beside it"`, string(receiveAll(t, messages, 1)[0].Payload))
				}
			}
			second := begin(t, db)
			require.NoError(t, others.Publish("orders", inTx(t.Context(), second, `"in another"`)))
			require.NoError(t, second.Commit(t.Context()))
			require.Equal(t, `"in another"`, string(receiveAll(t, messages, 1)[0].Payload))

			require.NoError(t, tx.Commit(t.Context()))
			require.Equal(t, `"in the transaction"`, string(receiveAll(t, messages, 1)[0].Payload))
		})
	}
}

// What is published in a transaction that is rolled back never was: no row, and no notification.
func TestWithTx_Rollback(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders", "a", "b")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	conn, err := db.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	for _, group := range []string{"a", "b"} {
		_, err = conn.Exec(t.Context(), `listen `+pgx.Identifier{pgmq.Channel(watermillpgmq.QueueName("orders", group))}.Sanitize())
		require.NoError(t, err)
	}

	tx := begin(t, db)
	require.NoError(t, publisher.Publish("orders", inTx(t.Context(), tx, "1"), inTx(t.Context(), tx, "2")))
	require.Equal(t, 2, countIn(t, tx, `select count(*) from pgmq.`+pgx.Identifier{"q_" + watermillpgmq.QueueName("orders", "a")}.Sanitize()))
	require.NoError(t, tx.Rollback(t.Context()))
	require.Zero(t, written(t, db))
	require.NoError(t, publisher.Close(), "which sends all notifications that it owes")

	execute(t, db, `select pg_notify($1::text, 'the end')`, pgmq.Channel(watermillpgmq.QueueName("orders", "b")))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	notification, err := conn.Conn().WaitForNotification(ctx)
	require.NoError(t, err)
	require.Equal(t, "the end", notification.Payload)
}

func countIn(t *testing.T, tx pgx.Tx, sql string) int {
	t.Helper()
	rows, err := tx.Query(t.Context(), sql)
	require.NoError(t, err)
	n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	require.NoError(t, err)
	return n
}

func TestWithTx_MixedIsRefused(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	one, two := begin(t, db), begin(t, db)
	calls := map[string][]*message.Message{
		"two transactions":            {inTx(t.Context(), one, "1"), inTx(t.Context(), two, "2")},
		"one, and none":               {inTx(t.Context(), one, "1"), newMessage("2")},
		"none, and one":               {newMessage("1"), inTx(t.Context(), one, "2")},
		"the same, and another after": {inTx(t.Context(), one, "1"), inTx(t.Context(), one, "2"), inTx(t.Context(), two, "3")},
	}
	for name, messages := range calls {
		require.ErrorIs(t, publisher.Publish("orders", messages...), watermillpgmq.ErrMixedTransactions, name)
	}
	require.NoError(t, one.Commit(t.Context()))
	require.NoError(t, two.Commit(t.Context()))
	require.Zero(t, written(t, db))
}

// A transaction that cannot be used any more fails the call, and only that.
func TestWithTx_Ended(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})

	ended := begin(t, db)
	require.NoError(t, ended.Commit(t.Context()))
	var failure *pgmq.Error
	require.ErrorAs(t, publisher.Publish("orders", inTx(t.Context(), ended, "1")), &failure)

	broken := begin(t, db)
	_, err := broken.Exec(t.Context(), `select 1 / 0`)
	require.Error(t, err)
	require.ErrorAs(t, publisher.Publish("orders", inTx(t.Context(), broken, "1")), &failure)

	require.NoError(t, publisher.Publish("orders", newMessage("1")))
	require.Equal(t, 1, written(t, db))
}

// An unroutable message in a transaction is an error, and leaves the transaction usable.
func TestWithTx_Unroutable(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	tx := begin(t, db)
	require.ErrorIs(t, publisher.Publish("nobody.cares", inTx(t.Context(), tx, "1")), watermillpgmq.ErrUnroutable)
	require.NoError(t, publisher.Publish("orders", inTx(t.Context(), tx, "1")))
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 1, written(t, db))
}

// Whoever holds all connections in transactions can still publish in them, whatever the publisher has to
// prepare.
func TestWithTx_NeedsNoOtherConnection(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	single := poolLike(t, db, func(cfg *pgxpool.Config) { cfg.MaxConns = 1 })
	for name, unroutable := range map[string]watermillpgmq.Unroutable{
		"fail": watermillpgmq.FailUnroutable(), "drop": watermillpgmq.DropUnroutable(), "keep": watermillpgmq.KeepUnroutable("strays"),
	} {
		publisher := newPublisher(t, single, watermillpgmq.PublisherConfig{Unroutable: unroutable})
		ctx, cancel := context.WithTimeout(t.Context(), patience/6)
		err := pgx.BeginFunc(ctx, single, func(tx pgx.Tx) error {
			return publisher.Publish("orders", inTx(ctx, tx, "1"))
		})
		cancel()
		require.NoError(t, err, name)
	}
	require.Equal(t, 3, written(t, db))
}

func TestTxFromContext(t *testing.T) {
	t.Parallel()
	_, ok := watermillpgmq.TxFromContext(t.Context())
	require.False(t, ok)
	_, ok = watermillpgmq.TxFromContext(watermillpgmq.WithTx(t.Context(), nil))
	require.False(t, ok)
	tx := begin(t, pgmqtest.NewEmpty(t).Pool)
	got, ok := watermillpgmq.TxFromContext(watermillpgmq.WithTx(t.Context(), tx))
	require.True(t, ok)
	require.Same(t, tx, got)
}
