package watermillpgmq_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// A hundred idle subscriptions of one Subscriber cost five statements a second at most, and one connection
// that listens.
func TestCost_IdleSubscriptions(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	pool, sent := traced(t, db)
	subscriber := newSubscriber(t, pool, watermillpgmq.SubscriberConfig{})
	const subscriptions = 100
	channels := make([]<-chan *message.Message, subscriptions)
	for i := range channels {
		channels[i] = subscribe(t, subscriber, fmt.Sprintf("topic.%d", i))
	}
	sent.awaitListens(t, subscriptions)
	awaitListener(t, db)
	const window = 3 * time.Second
	sent.awaitQuiet(t)

	before := sent.all.Load()
	<-time.After(window)
	perSecond := float64(sent.all.Load()-before) / window.Seconds()
	t.Logf("%d idle subscriptions: %.1f statements a second", subscriptions, perSecond)
	require.Positive(t, perSecond, "nobody polls")
	require.LessOrEqual(t, perSecond, 5.0)

	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("topic.42", newMessage("1")))
	receiveAll(t, channels[42], 1)
}

// However large the backlog and however quick the handler, a Subscriber never holds more than its Buffer.
func TestCost_BufferIsBounded(t *testing.T) {
	t.Parallel()
	const (
		backlog = 50_000
		buffer  = 100
	)
	for _, concurrency := range []int{1, 16} {
		t.Run(fmt.Sprint(concurrency), func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			bind(t, db, "orders")
			execute(t, db, `
				select count(*)
				from pgmq.send_batch('orders', array(select to_jsonb(n) from generate_series(1, $1::int) as n))`, backlog)
			messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{
				Concurrency: concurrency, Buffer: buffer, VisibilityTimeout: never,
			}), "orders")

			most, samples := 0, 0
			for handled := range 10_000 {
				receive(t, messages).Ack()
				if handled%500 == 499 {
					held := scalar[int](t, db, `select count(*) from pgmq.q_orders where vt > clock_timestamp()`)
					require.LessOrEqual(t, held, buffer)
					most, samples = max(most, held), samples+1
				}
			}
			t.Logf("at most %d of %d held in %d samples", most, buffer, samples)
			require.Greater(t, most, buffer/2, "the buffer is not used")
		})
	}
}

// A publisher that is alone waits for nobody: each call is one round trip, and there is no timer. Many
// share round trips.
func TestCost_PublishCoalesces(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	for range 5 {
		require.NoError(t, publisher.Publish("orders", newMessage(`"alone"`)))
	}
	require.Equal(t, 5, transactions(t, db, "alone"))

	unlock := lockQueue(t, db, "orders")
	const calls = 100
	results := make(chan error, calls)
	for n := range calls {
		ctx := announce(t.Context())
		msg := newMessage(`"together"`)
		msg.SetContext(ctx)
		go func() { results <- publisher.Publish("orders", msg) }()
		await(t, ctx.awaited, "the call is queued")
		if n < 2 {
			awaitLockWaiters(t, db, n+1)
		}
	}
	unlock()
	var errs []error
	for range calls {
		errs = append(errs, <-results)
	}
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, 3, transactions(t, db, "together"), "two that were under way, and one for all that waited")
}

func transactions(t *testing.T, db *pgxpool.Pool, payload string) int {
	t.Helper()
	return scalar[int](t, db, `select count(distinct xmin::text) from pgmq.q_orders where message = to_jsonb($1::text)`, payload)
}
