package watermillpgmq_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/components/requeuer"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func beginStd(t *testing.T, db *pgxpool.Pool) *sql.Tx {
	t.Helper()
	std := stdlib.OpenDBFromPool(db)
	tx, err := std.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = tx.Rollback() // nothing, if the test has ended it
		require.NoError(t, std.Close())
	})
	return tx
}

func TestWithStdTx(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{PollInterval: never}), "orders")
	awaitListener(t, db)
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	inStdTx := func(tx *sql.Tx, payload string) *message.Message {
		msg := newMessage(payload)
		msg.SetContext(watermillpgmq.WithStdTx(t.Context(), tx))
		got, ok := watermillpgmq.StdTxFromContext(msg.Context())
		require.True(t, ok)
		require.Same(t, tx, got)
		_, ok = watermillpgmq.TxFromContext(msg.Context())
		require.False(t, ok)
		return msg
	}

	committed, rolledBack := beginStd(t, db), beginStd(t, db)
	require.NoError(t, publisher.Publish("orders", inStdTx(rolledBack, "0")))
	require.NoError(t, publisher.Publish("orders", inStdTx(committed, "1"), inStdTx(committed, "2")))
	require.Zero(t, written(t, db))
	require.NoError(t, rolledBack.Rollback())
	require.NoError(t, committed.Commit())
	require.Equal(t, []string{"1", "2"}, payloads(receiveAll(t, messages, 2)))

	err := publisher.Publish("orders", inStdTx(beginStd(t, db), "3"), inTx(t.Context(), begin(t, db), "4"))
	require.ErrorIs(t, err, watermillpgmq.ErrMixedTransactions)
	err = publisher.Publish("nobody", inStdTx(beginStd(t, db), "5"))
	require.ErrorIs(t, err, watermillpgmq.ErrUnroutable)
}

func TestTxPublisher(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	tx, other, std := begin(t, db), begin(t, db), beginStd(t, db)

	require.NoError(t, publisher.TxPublisher(tx).Publish("orders", newMessage("1"), inTx(t.Context(), tx, "2")))
	require.NoError(t, publisher.StdTxPublisher(std).Publish("orders", newMessage("3")))
	require.NoError(t, publisher.TxPublisher(tx).Close()) // which closes nothing
	err := publisher.TxPublisher(tx).Publish("orders", inTx(t.Context(), other, "4"))
	require.ErrorIs(t, err, watermillpgmq.ErrMixedTransactions)
	require.Zero(t, written(t, db))
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 2, written(t, db))
	require.NoError(t, std.Commit())
	require.Equal(t, 3, written(t, db))

	require.NoError(t, publisher.Close())
	require.ErrorIs(t, publisher.TxPublisher(other).Publish("orders", newMessage("5")), watermillpgmq.ErrPublisherClosed)
}

// An EventBus that is given the context of a transaction takes part in it by itself.
func TestWithTx_EventBus(t *testing.T) {
	t.Parallel()
	type orderPlaced struct{ ID int }
	db := pgmqtest.New(t).Pool
	bind(t, db, "events")
	bus, err := cqrs.NewEventBusWithConfig(newPublisher(t, db, watermillpgmq.PublisherConfig{}), cqrs.EventBusConfig{
		GeneratePublishTopic: func(cqrs.GenerateEventPublishTopicParams) (string, error) { return "events", nil },
		Marshaler:            cqrs.JSONMarshaler{},
	})
	require.NoError(t, err)
	tx := begin(t, db)
	require.NoError(t, bus.Publish(watermillpgmq.WithTx(t.Context(), tx), orderPlaced{ID: 1}))
	require.Zero(t, written(t, db))
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, 1, written(t, db))
}

// Watermill's Forwarder stores messages for another Pub/Sub in the transaction, and sends them on later.
func TestTxPublisher_Forwarder(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	arrived := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{}), "orders")
	forward, err := forwarder.NewForwarder(newSubscriber(t, db, watermillpgmq.SubscriberConfig{}),
		newPublisher(t, db, watermillpgmq.PublisherConfig{}), watermill.NopLogger{}, forwarder.Config{ForwarderTopic: "outbox"})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- forward.Run(context.WithoutCancel(t.Context())) }()
	await(t, forward.Running(), "the forwarder to run")

	tx := begin(t, db)
	outbox := forwarder.NewPublisher(publisher.TxPublisher(tx), forwarder.PublisherConfig{ForwarderTopic: "outbox"})
	require.NoError(t, outbox.Publish("orders", newMessage("1"), newMessage("2")))
	require.Zero(t, written(t, db))
	require.NoError(t, tx.Commit(t.Context()))
	require.Equal(t, []string{"1", "2"}, payloads(receiveAll(t, arrived, 2)))
	require.NoError(t, forward.Close())
	require.NoError(t, <-ended)
}

// The Requeuer sends messages from one topic back to another.
func TestRequeuer(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	arrived := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{}), "orders")
	back, err := requeuer.NewRequeuer(requeuer.Config{
		Subscriber:     newSubscriber(t, db, watermillpgmq.SubscriberConfig{}),
		SubscribeTopic: "failed",
		Publisher:      newPublisher(t, db, watermillpgmq.PublisherConfig{}),
		GeneratePublishTopic: func(params requeuer.GeneratePublishTopicParams) (string, error) {
			return params.Message.Metadata.Get("origin"), nil
		},
	}, watermill.NopLogger{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	bind(t, db, "failed")
	go func() { ended <- back.Run(ctx) }()

	msg := newMessage("1")
	msg.Metadata.Set("origin", "orders")
	require.NoError(t, publisher.Publish("failed", msg))
	got := receiveAll(t, arrived, 1)[0]
	require.Equal(t, msg.UUID, got.UUID)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		require.NoError(t, err)
	}
}

// The delay of a context is kept to the millisecond: components/delay's metadata has the duration as it is,
// while its instant has whole seconds only.
func TestDelay_OfAContext(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{}), "orders")
	publisher, err := delay.NewPublisher(newPublisher(t, db, watermillpgmq.PublisherConfig{}), delay.PublisherConfig{AllowNoDelay: true})
	require.NoError(t, err)

	const later = 1234 * time.Millisecond
	msg := newMessage("later")
	msg.SetContext(delay.WithContext(t.Context(), delay.For(later)))
	sent := time.Now()
	require.NoError(t, publisher.Publish("orders", msg, newMessage("now")))
	require.Equal(t, "now", string(receiveAll(t, messages, 1)[0].Payload))
	require.Equal(t, "later", string(receiveAll(t, messages, 1)[0].Payload))
	require.GreaterOrEqual(t, time.Since(sent), later)
}

func payloads(messages []*message.Message) []string {
	all := make([]string, len(messages))
	for i, msg := range messages {
		all[i] = string(msg.Payload)
	}
	return all
}

// A transaction that is missing must not go unnoticed: what it was to hold would be committed by itself.
func TestWithTx_Nil(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	msg := newMessage("1")
	for name, ctx := range map[string]context.Context{
		"pgx": watermillpgmq.WithTx(t.Context(), nil), "database/sql": watermillpgmq.WithStdTx(t.Context(), nil),
	} {
		msg.SetContext(ctx)
		require.ErrorIs(t, publisher.Publish("orders", msg), watermillpgmq.ErrNilDB, name)
	}
	require.ErrorIs(t, publisher.TxPublisher(nil).Publish("orders", newMessage("2")), watermillpgmq.ErrNilDB)
	require.ErrorIs(t, publisher.StdTxPublisher(nil).Publish("orders", newMessage("3")), watermillpgmq.ErrNilDB)
	require.Zero(t, written(t, db))
}
