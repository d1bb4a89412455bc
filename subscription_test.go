package watermillpgmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// With Concurrency n, n messages are handled at a time, and never more.
func TestConcurrency(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 4, 16} { // 0 is the default, 1
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{Concurrency: n}), "orders")
			const total = 400
			require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(total)...))

			var (
				handlers  sync.WaitGroup
				now, most atomic.Int64
			)
			release := make(chan struct{})
			limit := int64(max(n, 1))
			for i := range total {
				msg := receive(t, messages)
				unacked := now.Add(1)
				most.Store(max(most.Load(), unacked))
				handlers.Go(func() {
					<-release
					now.Add(-1)
					if i%7 == 0 {
						msg.Nack()
					} else {
						msg.Ack()
					}
				})
				if int64(i) == limit-1 {
					select {
					case <-messages:
						require.Fail(t, "one message too many")
					case <-time.After(50 * time.Millisecond): // nothing can signal that nothing comes
					}
					close(release)
				}
			}
			handlers.Wait()
			require.Equal(t, limit, most.Load())
		})
	}
}

type contextKey struct{}

// A message's context has the values of Subscribe's, and what PGMQ knows. It ends with the answer.
func TestMessageContext(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	ctx := context.WithValue(t.Context(), contextKey{}, "value")
	messages, err := newSubscriber(t, db, watermillpgmq.SubscriberConfig{
		ConsumerGroup: "billing", NackDelay: watermillpgmq.ConstantNackDelay(0),
	}).Subscribe(ctx, "orders")
	require.NoError(t, err)
	before := scalar[time.Time](t, db, `select clock_timestamp()`)
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessage("1")))
	after := scalar[time.Time](t, db, `select clock_timestamp()`)

	for attempt, answer := range []func(*message.Message) bool{(*message.Message).Nack, (*message.Message).Ack} {
		msg := receive(t, messages)
		derived := context.WithValue(msg.Context(), contextKey{}, "derived")
		info, ok := watermillpgmq.MessageFromContext(derived)
		require.True(t, ok)
		require.WithinRange(t, info.EnqueuedAt, before, after)
		info.EnqueuedAt = time.Time{}
		require.Equal(t, watermillpgmq.MessageInfo{Queue: "orders:billing", ID: 1, ReadCount: attempt + 1}, info)
		require.Equal(t, "value", msg.Context().Value(contextKey{}))
		require.NoError(t, msg.Context().Err())

		require.True(t, answer(msg))
		await(t, msg.Context().Done(), "the end of the message's context")
		require.ErrorIs(t, msg.Context().Err(), context.Canceled)
	}
	_, ok := watermillpgmq.MessageFromContext(t.Context())
	require.False(t, ok)
}

// The group that a message was sent with by SQL is part of what is known of it.
func TestMessageFromContext_Group(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{}), "orders")
	execute(t, db, `select pgmq.send_topic('orders', '1', '{"x-pgmq-group": "customer 7"}', 0)`)
	info, ok := watermillpgmq.MessageFromContext(receiveAll(t, messages, 1)[0].Context())
	require.True(t, ok)
	require.Equal(t, "customer 7", info.Group)
}

// Close gives handlers CloseTimeout, then ends their contexts, and returns when all is given back.
func TestClose_EndsTheContextsOfHandlersThatTakeTooLong(t *testing.T) {
	t.Parallel()
	for name, timeout := range map[string]time.Duration{"at once": -1, "soon": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Concurrency: 2, VisibilityTimeout: never, CloseTimeout: timeout})
			messages := subscribe(t, subscriber, "orders")
			require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(2)...))
			done, hanging := receive(t, messages), receive(t, messages)
			done.Ack()
			require.NoError(t, subscriber.Close())
			_, open := <-messages
			require.False(t, open)
			require.ErrorIs(t, hanging.Context().Err(), context.Canceled)
			hanging.Ack() // too late
			require.Equal(t, []row{{ID: 2, ReadCount: 1}}, rowsOf(t, db, "orders"))
		})
	}
}

// Close is one, however often it is called, and needs nobody who reads the channel.
func TestClose_IsIdempotentAndConcurrent(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{VisibilityTimeout: never, CloseTimeout: -1})
	var channels []<-chan *message.Message
	for _, topic := range []string{"unread", "unanswered", "empty"} {
		channels = append(channels, subscribe(t, subscriber, topic))
	}
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("unread", newMessages(5)...))
	require.NoError(t, publisher.Publish("unanswered", newMessages(5)...))
	receive(t, channels[1])
	awaitRows(t, db, "unread", 5, 1)

	var closing sync.WaitGroup
	for range 10 {
		closing.Go(func() {
			if err := subscriber.Close(); err != nil {
				t.Error(err)
			}
			for _, channel := range channels {
				select {
				case _, open := <-channel:
					if open {
						t.Error("a message after Close")
					}
				default:
					t.Error("a channel is open after Close")
				}
			}
		})
	}
	closing.Wait()
	awaitRows(t, db, "unread", 5, 0)
	awaitRows(t, db, "unanswered", 5, 0)
	_, err := subscriber.Subscribe(t.Context(), "orders")
	require.ErrorIs(t, err, watermillpgmq.ErrSubscriberClosed)
}

// What was acked right before Close counts, also while earlier acks are on their way.
func TestClose_SettlesTheLastAcks(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	for range 12 {
		const n = 10
		require.NoError(t, publisher.Publish("orders", newMessages(n)...))
		subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{
			Concurrency: n, VisibilityTimeout: never, CloseTimeout: patience,
		})
		messages := subscribe(t, subscriber, "orders")
		var received []*message.Message
		for range n {
			received = append(received, receive(t, messages))
		}
		for _, msg := range received {
			msg.Ack()
		}
		require.NoError(t, subscriber.Close())
		require.Empty(t, rowsOf(t, db, "orders"))
	}
}

// A message is acked while the connections are lost. It is settled when they are back: nobody has to
// handle it again.
func TestAck_OutlivesLostConnections(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	pool, network := throughProxy(t, db)
	messages := subscribe(t, newSubscriber(t, pool, watermillpgmq.SubscriberConfig{PollInterval: never, VisibilityTimeout: never}), "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("orders", newMessage("1")))
	msg := receive(t, messages)
	eventually(t, func() error { return noneAcquired(pool) })
	network.stall()
	healed := sync.OnceFunc(network.heal)
	defer healed()

	require.True(t, msg.Ack())
	eventually(t, func() error { // the settlement is on its way, and so is the next read
		stat := pool.Stat()
		if n := stat.AcquiredConns() + stat.ConstructingConns(); n < 2 {
			return fmt.Errorf("%d connections are used", n)
		}
		return nil
	})
	healed()
	awaitRows(t, db, "orders", 0, 0)
	require.NoError(t, publisher.Publish("orders", newMessage("2")))
	require.Equal(t, "2", string(receiveAll(t, messages, 1)[0].Payload))
}

func noneAcquired(pool *pgxpool.Pool) error {
	if n := pool.Stat().AcquiredConns(); n > 0 {
		return fmt.Errorf("%d connections are used", n)
	}
	return nil
}

// Stop ends delivery at once. What is being handled can be acked until Close.
func TestStop(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{Concurrency: 3, VisibilityTimeout: never, CloseTimeout: patience})
	messages := subscribe(t, subscriber, "orders")
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(3)...))
	msg := receive(t, messages)
	awaitRows(t, db, "orders", 3, 3)
	require.NoError(t, subscriber.Stop())
	require.NoError(t, subscriber.Stop())
	awaitRows(t, db, "orders", 3, 1) // what nobody had received is given back

	_, err := subscriber.Subscribe(t.Context(), "orders")
	require.ErrorIs(t, err, watermillpgmq.ErrSubscriberClosed)
	require.ErrorIs(t, subscriber.SubscribeInitialize("orders"), watermillpgmq.ErrSubscriberClosed)
	require.NoError(t, msg.Context().Err())
	require.True(t, msg.Ack())
	for range messages {
		require.Fail(t, "a message after Stop")
	}
	require.NoError(t, subscriber.Close())
	require.Len(t, rowsOf(t, db, "orders"), 2)
}

// Router.Close ends Subscribe's context and closes the subscriber at once. The handler still finishes: what
// it publishes arrives, and its late Ack counts.
func TestRouter_CloseLetsHandlersFinish(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "in")
	bind(t, db, "out")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("in", newMessages(3)...))
	subscriber := &watchedSubscriber{
		Subscriber: newSubscriber(t, db, watermillpgmq.SubscriberConfig{VisibilityTimeout: never}),
		closing:    make(chan struct{}),
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	require.NoError(t, err)
	handling, finish := make(chan struct{}), make(chan struct{})
	router.AddHandler("h", "in", subscriber, "out", publisher, func(msg *message.Message) ([]*message.Message, error) {
		close(handling)
		<-finish
		return []*message.Message{newMessage(`"result"`)}, msg.Context().Err()
	})
	running := make(chan error, 1)
	go func() { running <- router.Run(t.Context()) }()
	await(t, handling, "the handler")

	closed := make(chan error, 1)
	go func() { closed <- router.Close() }()
	await(t, subscriber.closing, "the router to close the subscriber")
	close(finish)
	require.NoError(t, <-closed)
	require.NoError(t, <-running)
	require.Equal(t, []row{{ID: 2}, {ID: 3}}, rowsOf(t, db, "in"), "one was handled, the others were given back")
	require.Len(t, rowsOf(t, db, "out"), 1)
}

// watchedSubscriber says when it is about to be closed.
type watchedSubscriber struct {
	*watermillpgmq.Subscriber
	closing chan struct{}
	once    sync.Once
}

func (s *watchedSubscriber) Close() error {
	s.once.Do(func() { close(s.closing) })
	return s.Subscriber.Close()
}

// The connection that listens is cut. It comes back by itself, what was published meanwhile is noticed
// then, and what is published later wakes as before.
func TestListen_ComesBack(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{PollInterval: never, VisibilityTimeout: never}), "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	for range 2 {
		awaitListener(t, db)
		old := listeners(t, db)[0]
		execute(t, db, `select pg_terminate_backend($1::int)`, old)
		require.NoError(t, publisher.Publish("orders", newMessage(`"meanwhile"`)))
		require.Equal(t, `"meanwhile"`, string(receiveAll(t, messages, 1)[0].Payload))
		eventually(t, func() error {
			if pids := listeners(t, db); len(pids) != 1 || pids[0] == old {
				return errors.New("nobody listens")
			}
			return nil
		})
		require.NoError(t, publisher.Publish("orders", newMessage(`"later"`)))
		require.Equal(t, `"later"`, string(receiveAll(t, messages, 1)[0].Payload))
	}
}

// Without LISTEN there is no connection for it, and polling notices everything.
func TestListen_Disabled(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{
		DisableListen: true, PollInterval: 10 * time.Millisecond, VisibilityTimeout: never,
	}), "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	for range 5 {
		require.NoError(t, publisher.Publish("orders", newMessage("1")))
		receiveAll(t, messages, 1)
	}
	require.Empty(t, listeners(t, db))
}

// Many processes that start at once agree on one queue.
func TestSubscribe_AtOnce(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	const processes = 10
	begin, channels := make(chan struct{}), make(chan (<-chan *message.Message), processes)
	for range processes {
		subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{ConsumerGroup: "billing"})
		go func() {
			<-begin
			messages, err := subscriber.Subscribe(t.Context(), "orders")
			if err != nil {
				t.Error(err)
			}
			channels <- messages
		}()
	}
	close(begin)
	delivered := make(chan string)
	for range processes {
		messages := <-channels
		go func() {
			for msg := range messages {
				msg.Ack()
				delivered <- msg.UUID
			}
		}()
	}
	sent := map[string]bool{}
	messages := newMessages(100)
	for _, msg := range messages {
		sent[msg.UUID] = true
	}
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", messages...))
	for len(sent) > 0 {
		select {
		case uuid := <-delivered:
			require.True(t, sent[uuid], "delivered twice")
			delete(sent, uuid)
		case <-time.After(patience):
			require.FailNow(t, "messages are missing", "%d", len(sent))
		}
	}
	require.Equal(t, 1, scalar[int](t, db, `select count(*) from pgmq.meta`))
}

// Delayed messages come in time, not before and not with the next poll only: on the default configuration,
// with nothing else going on. Half of them may come late where a busy machine is to blame.
func TestDelay_IsPunctual(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{}), "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	var delays []time.Duration
	for _, milliseconds := range []int{300, 1100, 1250, 1400, 1550, 1700, 1900, 2300} {
		delays = append(delays, time.Duration(milliseconds)*time.Millisecond)
	}
	published := time.Now()
	for i := range delays {
		msg := newMessage(fmt.Sprint(i))
		delay.Message(msg, delay.For(delays[i]))
		require.NoError(t, publisher.Publish("orders", msg))
	}
	took := time.Since(published)

	punctual := 0
	for i := range delays {
		msg := receive(t, messages)
		late := time.Since(published) - delays[i]
		require.Equal(t, fmt.Sprint(i), string(msg.Payload))
		require.Positive(t, late, "message %d came too early", i)
		if late-took < 100*time.Millisecond {
			punctual++
		}
		t.Logf("delay %v: %v late", delays[i], late)
		msg.Ack()
	}
	require.GreaterOrEqual(t, punctual, len(delays)/2)
}
