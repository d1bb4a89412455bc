package watermillpgmq_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// A handler works for three times the visibility timeout. Another subscriber, who gets everything else,
// never gets its message.
func TestLease_IsKeptWhileTheHandlerWorks(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	queue := watermillpgmq.QueueName("orders", "")
	const timeout = time.Second
	cfg := watermillpgmq.SubscriberConfig{VisibilityTimeout: timeout, PollInterval: 20 * time.Millisecond}
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})

	busy := subscribe(t, newSubscriber(t, db, cfg), "orders")
	require.NoError(t, publisher.Publish("orders", newMessage(`"long work"`)))
	working := receive(t, busy)
	other := subscribe(t, newSubscriber(t, db, cfg), "orders")
	done := time.After(3 * timeout)
	for n, over := 0, false; !over || n == 0; {
		select {
		case <-done:
			over = true
		default:
		}
		require.NoError(t, publisher.Publish("orders", newMessage(fmt.Sprint(n))))
		require.Equal(t, fmt.Sprint(n), string(receiveAll(t, other, 1)[0].Payload))
		n++
	}
	require.NoError(t, working.Context().Err())
	rows := rowsOf(t, db, queue)
	require.Equal(t, row{ID: 1, ReadCount: 1, Hidden: true}, rows[0])
	require.True(t, working.Ack())
	awaitRows(t, db, queue, 0, 0)
}

// Somebody else takes a message while it is being handled, as a reader does whose turn came when the
// visibility timeout ran out. The handler is told, and its answer changes nothing any more.
func TestLease_Lost(t *testing.T) {
	t.Parallel()
	answers := map[string]func(*message.Message) bool{
		"ack":  (*message.Message).Ack,
		"nack": (*message.Message).Nack,
	}
	for name, answer := range answers {
		for _, archive := range []bool{false, true} {
			for _, told := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/archive=%t/told=%t", name, archive, told), func(t *testing.T) {
					t.Parallel()
					db := pgmqtest.New(t).Pool
					cfg := watermillpgmq.SubscriberConfig{VisibilityTimeout: time.Second, ArchiveOnAck: archive}
					if !told { // it answers before it could be
						cfg.VisibilityTimeout = never
					}
					subscriber := newSubscriber(t, db, cfg)
					messages := subscribe(t, subscriber, "orders")
					require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(2)...))
					msg := receive(t, messages)
					stolen := steal(t, db, "orders")
					if told {
						await(t, msg.Context().Done(), "the end of the message's context")
						require.ErrorIs(t, context.Cause(msg.Context()), pgmq.ErrLeaseLost)
					}
					require.True(t, answer(msg))

					require.True(t, receive(t, messages).Ack(), "the next message")
					require.NoError(t, subscriber.Close())
					require.Equal(t, stolen, rowText(t, db, "orders"))
					require.Equal(t, 1, scalar[int](t, db, `select count(*) from pgmq.q_orders`))
					if archive {
						require.Zero(t, scalar[int](t, db, `select count(*) from pgmq.a_orders where msg_id = 1`))
					}
				})
			}
		}
	}
}

// A lease that is lost while nobody reads the channel never reaches it.
func TestLease_LostBeforeDelivery(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(4)...))
	subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{
		Concurrency: 4, VisibilityTimeout: time.Second, PollInterval: 20 * time.Millisecond, CloseTimeout: -1,
	})
	messages := subscribe(t, subscriber, "orders")
	first := receive(t, messages)
	awaitRows(t, db, "orders", 4, 4)
	stolen := steal(t, db, "orders") // number 1 is handled, 2 is offered to whoever reads the channel, 3 and 4 are buffered
	execute(t, db, `
		update pgmq.q_orders
		set vt = clock_timestamp() + interval '1 hour', last_read_at = clock_timestamp(), read_ct = read_ct + 1
		where msg_id in (2, 3)`)
	await(t, first.Context().Done(), "the loss of the first lease, which is found together with the others")
	require.Equal(t, stolen, rowText(t, db, "orders"))

	require.Equal(t, "4", string(receive(t, messages).Payload))
	require.NoError(t, subscriber.Close())
	require.Equal(t, stolen, rowText(t, db, "orders"))
	require.Equal(t, []row{{1, 2, true}, {2, 2, true}, {3, 2, true}, {4, 1, false}}, rowsOf(t, db, "orders"))
}

// The network falls silent for longer than the visibility timeout. Somebody else gets the message that is
// being handled, and the handler is told that it has lost it, although nobody can be asked.
func TestLease_LostWhileCutOff(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	cutOff, network := throughProxy(t, db)
	cfg := watermillpgmq.SubscriberConfig{
		VisibilityTimeout: time.Second, PollInterval: 20 * time.Millisecond, NackDelay: watermillpgmq.ConstantNackDelay(0),
	}
	messages := subscribe(t, newSubscriber(t, cutOff, cfg), "orders")
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessage("1")))
	msg := receive(t, messages)
	network.stall()
	healed := sync.OnceFunc(network.heal)
	defer healed()

	other := subscribe(t, newSubscriber(t, db, cfg), "orders")
	again := receive(t, other)
	require.Equal(t, msg.UUID, again.UUID)
	await(t, msg.Context().Done(), "the end of the message's context")
	require.ErrorIs(t, context.Cause(msg.Context()), pgmq.ErrLeaseLost)
	healed()
	msg.Ack() // too late
	require.True(t, again.Nack())
	select { // both may get it now
	case again = <-messages:
	case again = <-other:
	case <-time.After(patience):
		require.FailNow(t, "it is not delivered again: the late Ack has deleted it")
	}
	require.Equal(t, msg.UUID, again.UUID)
	require.True(t, again.Ack())
}

// steal takes the first message of a queue as another reader would, and returns its row.
func steal(t *testing.T, db *pgxpool.Pool, queue string) string {
	t.Helper()
	execute(t, db, `
		update `+table(queue)+`
		set vt = clock_timestamp() + interval '1 hour', last_read_at = clock_timestamp(), read_ct = read_ct + 1
		where msg_id = 1`)
	return rowText(t, db, queue)
}

func rowText(t *testing.T, db *pgxpool.Pool, queue string) string {
	t.Helper()
	return scalar[string](t, db, `select q::text from `+table(queue)+` as q where q.msg_id = 1`)
}

// Nobody takes more than it handles soon, so a second subscriber gets what is left of a backlog. The
// visibility timeout is of no help to it.
func TestBuffer_DoesNotHoard(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		quick int           // messages that the first handler is quick about
		then  time.Duration // how long it takes for each that follows; 0: it hangs
	}{
		"slow":                   {then: 200 * time.Millisecond},
		"quick, then it hangs":   {quick: 300},
		"quick, then it is slow": {quick: 300, then: 200 * time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			bind(t, db, "orders")
			cfg := watermillpgmq.SubscriberConfig{VisibilityTimeout: never, CloseTimeout: -1}
			const backlog = 200
			publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
			require.NoError(t, publisher.Publish("orders", newMessages(test.quick+backlog)...))

			slow := subscribe(t, newSubscriber(t, db, cfg), "orders")
			receiveAll(t, slow, test.quick)
			held := receive(t, slow)
			started := time.Now()
			idle := subscribe(t, newSubscriber(t, db, cfg), "orders")

			slowly, quickly := 1, 0
			var due <-chan time.Time
			if test.then > 0 {
				tick := time.NewTicker(test.then)
				defer tick.Stop()
				due = tick.C
			}
			for deadline := time.After(patience); slowly+quickly < backlog; {
				select {
				case msg := <-idle:
					msg.Ack()
					quickly++
				case <-due:
					held.Ack()
					select {
					case held = <-slow:
						slowly++
					default: // nothing is left for it
					}
				case <-deadline:
					require.FailNow(t, "messages are withheld", "slow: %d, idle: %d", slowly, quickly)
				}
			}
			took := time.Since(started)
			t.Logf("the idle subscriber got %d of %d messages in %v", quickly, backlog, took)
			require.GreaterOrEqual(t, quickly, backlog*8/10)
			require.Less(t, took, 10*time.Second)
			held.Ack()
		})
	}
}

// While handlers work, no connection is used and no transaction open, and there are far more handlers
// than connections.
func TestHandler_HoldsNoConnection(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	pool := poolLike(t, db.Pool, func(cfg *pgxpool.Config) {
		cfg.MaxConns = 2
		cfg.ConnConfig.RuntimeParams["application_name"] = "adapter"
	})
	const handlers = 20
	messages := subscribe(t, newSubscriber(t, pool, watermillpgmq.SubscriberConfig{Concurrency: handlers}), "orders")
	publisher := newPublisher(t, pool, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("orders", newMessages(handlers)...))
	var blocked []*message.Message
	for range handlers {
		blocked = append(blocked, receive(t, messages))
	}

	eventually(t, func() error {
		open := scalar[int](t, db.Pool, `
			select count(*)
			from pg_catalog.pg_stat_activity
			where datname = current_database() and application_name = 'adapter' and xact_start is not null`)
		if acquired := pool.Stat().AcquiredConns(); open > 0 || acquired > 0 {
			return fmt.Errorf("%d open transactions, %d connections in use", open, acquired)
		}
		return nil
	})
	require.NoError(t, publisher.Publish("orders", newMessage("1")), "the connections are free for others")
	for _, msg := range blocked {
		require.NoError(t, msg.Context().Err())
		msg.Ack()
	}
	receiveAll(t, messages, 1)
}
