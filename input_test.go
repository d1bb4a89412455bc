package watermillpgmq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestNilDB(t *testing.T) {
	t.Parallel()
	_, err := watermillpgmq.NewPublisher(nil, watermillpgmq.PublisherConfig{}, nil)
	require.ErrorIs(t, err, watermillpgmq.ErrNilDB)
	_, err = watermillpgmq.NewSubscriber(nil, watermillpgmq.SubscriberConfig{}, nil)
	require.ErrorIs(t, err, watermillpgmq.ErrNilDB)
}

// An invalid configuration is refused before anything is used, by the name of the field.
func TestConfig_Invalid(t *testing.T) {
	t.Parallel()
	db := poolLike(t, pgmqtest.NewEmpty(t).Pool, func(*pgxpool.Config) {})
	subscribers := []struct {
		field string
		cfg   watermillpgmq.SubscriberConfig
	}{
		{"Concurrency", watermillpgmq.SubscriberConfig{Concurrency: -1}},
		{"Buffer", watermillpgmq.SubscriberConfig{Buffer: -1}},
		{"Buffer", watermillpgmq.SubscriberConfig{Buffer: 9, Concurrency: 10}},
		{"VisibilityTimeout", watermillpgmq.SubscriberConfig{VisibilityTimeout: -time.Second}},
		{"VisibilityTimeout", watermillpgmq.SubscriberConfig{VisibilityTimeout: time.Second - 1}},
		{"PollInterval", watermillpgmq.SubscriberConfig{PollInterval: -time.Second}},
		{"PollInterval", watermillpgmq.SubscriberConfig{PollInterval: time.Microsecond}},
	}
	for _, test := range subscribers {
		_, err := watermillpgmq.NewSubscriber(db, test.cfg, nil)
		requireConfigError(t, err, test.field)
		requireConfigError(t, test.cfg.Validate(), test.field)
	}
	for _, queue := range []string{"", "no;good", strings.Repeat("q", 48)} {
		cfg := watermillpgmq.PublisherConfig{Unroutable: watermillpgmq.KeepUnroutable(queue)}
		_, err := watermillpgmq.NewPublisher(db, cfg, nil)
		requireConfigError(t, err, "Unroutable")
		requireConfigError(t, cfg.Validate(), "Unroutable")
	}
	require.NoError(t, watermillpgmq.PublisherConfig{}.Validate())
	require.NoError(t, watermillpgmq.SubscriberConfig{}.Validate())
	require.Zero(t, db.Stat().NewConnsCount(), "the database was asked")
}

func requireConfigError(t *testing.T, err error, field string) {
	t.Helper()
	var config *watermillpgmq.ConfigError
	require.ErrorAs(t, err, &config)
	require.Equal(t, field, config.Field)
	require.ErrorContains(t, err, field)
	require.NotEmpty(t, config.Rule)
}

// A topic that cannot be is refused before anything is written or created.
func TestTopic_Invalid(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "#") // which everything would reach
	queues := scalar[int](t, db, `select count(*) from pgmq.meta`)
	everywhere := []string{"", ".", "a..b", ".a", "a.", "a b", "a/b", "a;b", "ä", "a\x00", "a'", strings.Repeat("x", 256)}
	byTopology := map[string]struct {
		topology           watermillpgmq.Topology
		publish, subscribe []string
		is                 error
	}{
		"topics": {
			topology:  watermillpgmq.TopicTopology{},
			publish:   append([]string{"*", "#", "orders.*", "orders.#"}, everywhere...),
			subscribe: append([]string{"**", "a.##"}, everywhere...),
			is:        watermillpgmq.ErrInvalidTopic,
		},
		"queues": {
			topology:  watermillpgmq.QueueTopology{},
			publish:   []string{"", "a;b", "a'b", "a$b", "a--b", "a\x00", "\xff", strings.Repeat("x", 48)},
			subscribe: []string{"", "a;b", "a'b", "a$b", "a--b", "a\x00", "\xff", strings.Repeat("x", 48)},
			is:        pgmq.ErrInvalidQueueName,
		},
		"a generated name that no queue can have": {
			topology: watermillpgmq.TopicTopology{GenerateQueueName: func(params watermillpgmq.QueueNameParams) (string, error) {
				return params.Topic + strings.Repeat("x", 47), nil
			}},
			subscribe: []string{"orders"},
			is:        pgmq.ErrInvalidQueueName,
		},
	}
	for name, test := range byTopology {
		publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: test.topology})
		for _, topic := range test.publish {
			requireTopicError(t, publisher.Publish(topic, newMessage("1")), topic, test.is)
		}
		subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: test.topology})
		for _, topic := range test.subscribe {
			_, err := subscriber.Subscribe(t.Context(), topic)
			requireTopicError(t, err, topic, test.is)
			requireTopicError(t, subscriber.SubscribeInitialize(topic), topic, test.is)
		}
		require.Zero(t, written(t, db), name)
		require.Equal(t, queues, scalar[int](t, db, `select count(*) from pgmq.meta`), name)
	}
}

func requireTopicError(t *testing.T, err error, topic string, is error) {
	t.Helper()
	var invalid *watermillpgmq.TopicError
	require.ErrorAs(t, err, &invalid, "%q", topic)
	require.ErrorIs(t, err, watermillpgmq.ErrInvalidTopic)
	require.ErrorIs(t, err, is, "%q", topic)
	require.Equal(t, topic, invalid.Topic)
	require.NotEmpty(t, invalid.Rule)
}

// Two topics that would be one queue are refused, whether by case or by name.
func TestQueue_Collision(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	execute(t, db, `select pgmq.create('Orders')`)
	direct := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: watermillpgmq.QueueTopology{}})
	_, err := direct.Subscribe(t.Context(), "orders")
	require.ErrorIs(t, err, pgmq.ErrQueueNameCollision)
	_, err = direct.Subscribe(t.Context(), "ORDERS")
	require.ErrorIs(t, err, pgmq.ErrQueueNameCollision)
	_, err = newSubscriber(t, db, watermillpgmq.SubscriberConfig{}).Subscribe(t.Context(), "orders")
	require.ErrorIs(t, err, pgmq.ErrQueueNameCollision)
	_, err = newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: watermillpgmq.QueueTopology{}}).Subscribe(t.Context(), "Orders")
	require.NoError(t, err, "the queue that is there")

	shared := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: watermillpgmq.TopicTopology{
		GenerateQueueName: func(watermillpgmq.QueueNameParams) (string, error) { return "shared", nil },
	}})
	require.NoError(t, shared.SubscribeInitialize("one"))
	require.NoError(t, shared.SubscribeInitialize("one"))
	require.ErrorIs(t, shared.SubscribeInitialize("two"), watermillpgmq.ErrQueueConflict)
	_, err = shared.Subscribe(t.Context(), "two")
	require.ErrorIs(t, err, watermillpgmq.ErrQueueConflict)
	bindings, err := pgmq.New(db).Bindings(t.Context())
	require.NoError(t, err)
	require.Len(t, bindings, 1)
	require.Equal(t, "one", bindings[0].Pattern)
}

// Of many processes that create the same queue in different spellings at once, those of one spelling win.
func TestQueue_CollisionAtOnce(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	const each = 8
	var (
		begin   = make(chan struct{})
		results = make(chan error, 2*each)
	)
	for i := range 2 * each {
		subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: watermillpgmq.QueueTopology{}})
		go func() {
			<-begin
			results <- subscriber.SubscribeInitialize([]string{"orders", "Orders"}[i%2])
		}()
	}
	close(begin)
	refused := 0
	for range cap(results) {
		if err := <-results; err != nil {
			require.ErrorIs(t, err, pgmq.ErrQueueNameCollision)
			refused++
		}
	}
	require.Equal(t, 1, scalar[int](t, db, `select count(*) from pgmq.meta`), "queues that share a table")
	require.Equal(t, each, refused)
}

func TestConsumerGroup_InQueueTopology(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: watermillpgmq.QueueTopology{}, ConsumerGroup: "billing"})
	var invalid *watermillpgmq.ConsumerGroupError
	require.ErrorAs(t, subscriber.SubscribeInitialize("orders"), &invalid)
	require.ErrorIs(t, invalid, watermillpgmq.ErrConsumerGroup)
}

// Every payload, UUID and metadata arrives as it was sent, whatever bytes it has. JSON arrives equal in
// value.
func TestMessage_AnyBytes(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	channel := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{}), "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Marshaler: watermillpgmq.ExactMarshaler{}})
	asJSON := newPublisher(t, db, watermillpgmq.PublisherConfig{})

	for _, payload := range []string{"", "x", "\xff\xfe", "a\x00b", `"\u0000"`, `"\ud800"`, `{"a":1,"a":2}`, `{"n": "ü ` + "\U0001F600" + `"}`} {
		sent := newMessage(payload)
		for key, value := range map[string]string{"": "", "key": "\x00", "\xff": "value", "_watermill_message_uuid": "mine", "x-pgmq-group": "g"} {
			sent.Metadata.Set(key, value)
		}
		require.NoError(t, asJSON.Publish("orders", sent))
		got := receiveAll(t, channel, 1)[0]
		require.True(t, sent.Equals(got), "sent %q, got %q", sent.Payload, got.Payload)
		require.Equal(t, sent.Metadata, got.Metadata)
	}
	rapid.Check(t, func(t *rapid.T) {
		sent := message.NewMessage(string(rapid.SliceOf(rapid.Byte()).Draw(t, "uuid")), rapid.SliceOf(rapid.Byte()).Draw(t, "payload"))
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			sent.Metadata.Set(string(rapid.SliceOf(rapid.Byte()).Draw(t, "key")), string(rapid.SliceOf(rapid.Byte()).Draw(t, "value")))
		}
		if err := publisher.Publish("orders", sent); err != nil {
			t.Fatal(err)
		}
		got := <-channel
		got.Ack()
		if !sent.Equals(got) {
			t.Fatalf("sent %v, got %v", sent, got)
		}
	})
}

// A delay that is none fails the call.
func TestDelay_Invalid(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	for _, key := range []string{delay.DelayedForKey, delay.DelayedUntilKey} {
		msg := newMessage("1")
		msg.Metadata.Set(key, "soon")
		var invalid *pgmq.ValueError
		require.ErrorAs(t, publisher.Publish("orders", newMessage("0"), msg), &invalid)
		require.Equal(t, key, invalid.Name)
		require.Equal(t, "soon", invalid.Value)
	}
	require.Zero(t, written(t, db))
}

func TestClosed(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("orders"), "no messages are no error")
	require.NoError(t, publisher.Close())
	require.NoError(t, publisher.Close())
	require.ErrorIs(t, publisher.Publish("orders", newMessage("1")), watermillpgmq.ErrPublisherClosed)
	require.ErrorIs(t, publisher.Publish("orders"), watermillpgmq.ErrPublisherClosed)

	subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{})
	require.NoError(t, subscriber.Close())
	_, err := subscriber.Subscribe(t.Context(), "new")
	require.ErrorIs(t, err, watermillpgmq.ErrSubscriberClosed)
	require.ErrorIs(t, subscriber.SubscribeInitialize("new"), watermillpgmq.ErrSubscriberClosed)
	require.Zero(t, written(t, db))
	require.Equal(t, 1, scalar[int](t, db, `select count(*) from pgmq.meta`))
}

// Close waits for the calls that are under way, and they succeed.
func TestPublisher_CloseWaits(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	unlock := lockQueue(t, db, "orders")
	var calls []chan error
	for range 4 { // two are on their way, two wait
		ctx, result := announce(t.Context()), make(chan error, 1)
		go func() { result <- publisher.Publish("orders", withContext(ctx, "1")) }()
		await(t, ctx.awaited, "the call is queued")
		calls = append(calls, result)
	}
	closed := make(chan error, 1)
	go func() { closed <- publisher.Close() }()
	eventually(t, func() error { // the call that is refused says that Close has begun
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := publisher.Publish("orders", withContext(ctx, "1")); !errors.Is(err, watermillpgmq.ErrPublisherClosed) {
			return fmt.Errorf("it still publishes: %w", err)
		}
		return nil
	})
	select {
	case err := <-closed:
		require.Fail(t, "Close does not wait", "%v", err)
	default:
	}
	unlock()
	require.NoError(t, <-closed)
	require.Equal(t, 4, written(t, db), "messages that were written when Close returned")
	for _, result := range calls {
		require.NoError(t, <-result)
	}
}

// A context that has ended before a call, while it waits for its turn, and while its statement is running.
func TestContext_Ended(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	reason := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)

	for name, messages := range map[string][]*message.Message{
		"the only":   {withContext(ctx, "1")},
		"the first":  {withContext(ctx, "1"), newMessage("2")},
		"the second": {newMessage("1"), withContext(ctx, "2")},
	} {
		err := publisher.Publish("orders", messages...)
		require.ErrorIs(t, err, reason, name)
		require.NotErrorIs(t, err, watermillpgmq.ErrOutcomeUnknown, name)
	}
	require.Zero(t, written(t, db))
	_, err := newSubscriber(t, db, watermillpgmq.SubscriberConfig{}).Subscribe(ctx, "new")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1, scalar[int](t, db, `select count(*) from pgmq.meta`))

	unlock := lockQueue(t, db, "orders")
	type call struct {
		cancel context.CancelCauseFunc
		result chan error
	}
	publish := func(payload string) call {
		ctx, cancel := context.WithCancelCause(t.Context())
		announced := announce(ctx)
		c := call{cancel, make(chan error, 1)}
		go func() { c.result <- publisher.Publish("orders", withContext(announced, payload)) }()
		await(t, announced.awaited, "the call is queued")
		return c
	}
	running := []call{publish(`"abandoned while it runs"`)}
	awaitLockWaiters(t, db, 1)
	abandoned := lockWaiters(t, db)[0]
	running = append(running, publish(`"runs"`))
	awaitLockWaiters(t, db, 2)
	waiting := []call{publish(`"abandoned while it waits"`), publish(`"waits"`)}

	waiting[0].cancel(reason)
	err = <-waiting[0].result
	require.ErrorIs(t, err, reason)
	require.NotErrorIs(t, err, watermillpgmq.ErrOutcomeUnknown)
	running[0].cancel(reason)
	err = <-running[0].result
	require.ErrorIs(t, err, reason)
	require.ErrorIs(t, err, watermillpgmq.ErrOutcomeUnknown)
	eventually(t, func() error { // what nobody waits for any more is ended, and makes room
		if pids := lockWaiters(t, db); len(pids) != 2 || slices.Contains(pids, abandoned) {
			return fmt.Errorf("backends %v wait, %d should not", pids, abandoned)
		}
		return nil
	})
	unlock()
	require.NoError(t, <-running[1].result)
	require.NoError(t, <-waiting[1].result)
	require.Equal(t, `"runs" "waits"`, scalar[string](t, db, `select string_agg(message::text, ' ' order by message::text) from pgmq.q_orders`))
	for _, c := range append(running, waiting...) {
		c.cancel(nil)
	}
}

func withContext(ctx context.Context, payload string) *message.Message {
	msg := newMessage(payload)
	msg.SetContext(ctx)
	return msg
}

// Without PGMQ every call says what to do.
func TestDatabaseWithoutPGMQ(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t).Pool
	for _, topology := range []watermillpgmq.Topology{watermillpgmq.TopicTopology{}, watermillpgmq.QueueTopology{}} {
		publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: topology})
		subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: topology})
		kept := newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: topology, Unroutable: watermillpgmq.KeepUnroutable("strays")})
		_, err := subscriber.Subscribe(t.Context(), "orders")
		for name, err := range map[string]error{
			"Publish":             publisher.Publish("orders", newMessage("1")),
			"Publish, or keep":    kept.Publish("orders", newMessage("1")),
			"Subscribe":           err,
			"SubscribeInitialize": subscriber.SubscribeInitialize("orders"),
		} {
			where := fmt.Sprintf("%T, %s", topology, name)
			require.ErrorIs(t, err, pgmq.ErrNotInstalled, where)
			require.ErrorContains(t, err, "pgmq.Install", where)
		}
	}
}
