package watermillpgmq_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// Ten published, one acked, Close: nine are delivered again, to somebody who could only be woken. What was
// only prefetched counts as never read.
func TestClose_GivesBackWhatWasNotAcked(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	queue := watermillpgmq.QueueName("orders", "")
	slow := watermillpgmq.SubscriberConfig{
		Concurrency:       10, // so that all ten are taken at once
		VisibilityTimeout: never,
		PollInterval:      never,
		CloseTimeout:      -1,
	}
	first := newSubscriber(t, db, slow)
	messages := subscribe(t, first, "orders")
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(10)...))
	require.True(t, receive(t, messages).Ack())
	unanswered := receive(t, messages)
	awaitRows(t, db, queue, 9, 9)

	again := subscribeIdly(t, db, slow, "orders")
	require.NoError(t, first.Close())

	for range 9 {
		msg := receive(t, again)
		info, ok := watermillpgmq.MessageFromContext(msg.Context())
		require.True(t, ok)
		wanted := 1
		if msg.UUID == unanswered.UUID {
			wanted = 2
		}
		require.Equal(t, wanted, info.ReadCount, "read count of message %s", msg.Payload)
		msg.Ack()
	}
	awaitRows(t, db, queue, 0, 0)
}

// A message that was being handled is given back to somebody who is idle and could only be woken.
func TestClose_WakesOthersForTheUnanswered(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	cfg := watermillpgmq.SubscriberConfig{VisibilityTimeout: never, PollInterval: never, CloseTimeout: -1}
	first := newSubscriber(t, db, cfg)
	messages := subscribe(t, first, "orders")
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessage("1")))
	unanswered := receive(t, messages)
	again := subscribeIdly(t, db, cfg, "orders")

	require.NoError(t, first.Close())
	msg := receive(t, again)
	require.Equal(t, unanswered.UUID, msg.UUID)
	msg.Ack()
}

// Only what was acked is gone, whatever became of the contexts: Subscribe's ends before the Acks.
func TestAck_CountsAfterTheContextHasEnded(t *testing.T) {
	t.Parallel()
	for name, archive := range map[string]bool{"delete": false, "archive": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			queue := watermillpgmq.QueueName("orders", "")
			subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{
				Concurrency: 6, VisibilityTimeout: never, ArchiveOnAck: archive, CloseTimeout: patience,
			})
			require.NoError(t, subscriber.SubscribeInitialize("orders"))
			require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(6)...))
			ctx, cancel := newContext(t)
			messages, err := subscriber.Subscribe(ctx, "orders")
			require.NoError(t, err)
			var handled []*message.Message
			for range 5 {
				handled = append(handled, receive(t, messages))
			}

			cancel()
			awaitRows(t, db, queue, 6, 5) // what nobody had received is given back
			var acked, kept []int64
			for i, msg := range handled {
				info, _ := watermillpgmq.MessageFromContext(msg.Context())
				require.NoError(t, msg.Context().Err(), "a handler may finish")
				if i%2 == 0 {
					acked = append(acked, info.ID)
					require.True(t, msg.Ack())
				} else {
					kept = append(kept, info.ID)
					require.True(t, msg.Nack())
				}
			}
			for range messages {
				require.Fail(t, "a message after the end of the context")
			}

			var left []int64
			for _, r := range rowsOf(t, db, queue) {
				left = append(left, r.ID)
			}
			require.Equal(t, append(kept, 6), left)
			require.Equal(t, archive, len(acked) == scalar[int](t, db, `select count(*) from pgmq.a_orders where msg_id = any($1::bigint[])`, acked))
		})
	}
}

func TestUnroutable(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		unroutable watermillpgmq.Unroutable
		check      func(*testing.T, error)
		written    int
	}{
		"fails by default": {
			check: func(t *testing.T, err error) {
				t.Helper()
				require.ErrorIs(t, err, watermillpgmq.ErrUnroutable)
				var unroutable *watermillpgmq.UnroutableError
				require.ErrorAs(t, err, &unroutable)
				require.Equal(t, watermillpgmq.UnroutableError{Topic: "nobody.cares", RoutingKey: "nobody.cares"}, *unroutable)
			},
		},
		"dropped": {
			unroutable: watermillpgmq.DropUnroutable(),
			check: func(t *testing.T, err error) {
				t.Helper()
				require.NoError(t, err)
			},
		},
		"kept": {
			unroutable: watermillpgmq.KeepUnroutable("strays"),
			written:    2,
			check: func(t *testing.T, err error) {
				t.Helper()
				require.NoError(t, err)
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			bind(t, db, "orders")
			publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Unroutable: test.unroutable})
			sent := []*message.Message{newMessage(`{"n": 1}`), newMessage("not JSON \x00\xff")}
			sent[0].Metadata.Set("tenant", "a")

			test.check(t, publisher.Publish("nobody.cares", sent...))
			require.Equal(t, test.written, written(t, db))
			require.NoError(t, publisher.Publish("orders", newMessage("1")), "the others are as before")
			if test.written == 0 {
				return
			}
			strays := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: watermillpgmq.QueueTopology{}}), "strays")
			for i, got := range receiveAll(t, strays, 2) {
				require.True(t, sent[i].Equals(got), "sent %v, got %v", sent[i], got)
			}
		})
	}
}

// Calls that wait for the same flush share a transaction, but not the fate of those that fail in it.
func TestPublish_OneBadCallInAFlush(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		topology  watermillpgmq.Topology
		marshaler watermillpgmq.Marshaler
		wanted    error
	}{
		"unroutable":            {topology: watermillpgmq.TopicTopology{}, wanted: watermillpgmq.ErrUnroutable},
		"refused by the server": {topology: watermillpgmq.QueueTopology{}, wanted: pgmq.ErrQueueNotFound},
		"refused by the client": {topology: watermillpgmq.TopicTopology{}, marshaler: brokenMarshaler{}, wanted: errNotJSON},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			require.NoError(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{Topology: test.topology}).SubscribeInitialize("good"))
			publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: test.topology, Marshaler: test.marshaler})

			unlock := lockQueue(t, db, "good")
			results := make(chan error, 12)
			publish := func(topic string) {
				ctx := announce(t.Context())
				msg := newMessage(`"` + topic + `"`)
				msg.SetContext(ctx)
				go func() {
					err := publisher.Publish(topic, msg)
					if topic == "bad" {
						err = unless(errors.Is(err, test.wanted) || isValueError(err, test.wanted), fmt.Errorf("the bad call: %w", err))
					}
					results <- err
				}()
				await(t, ctx.awaited, "the call is queued")
			}
			for n := range 2 { // as many as are under way at a time
				publish("good")
				awaitLockWaiters(t, db, n+1)
			}
			for n := range 10 {
				publish(map[bool]string{true: "bad", false: "good"}[n == 5])
			}
			unlock()
			for range cap(results) {
				select {
				case err := <-results:
					require.NoError(t, err)
				case <-time.After(patience):
					require.FailNow(t, "Publish does not return")
				}
			}
			require.Len(t, rowsOf(t, db, "good"), 11)
			require.Equal(t, 11, written(t, db))
			if name == "unroutable" {
				require.Equal(t, 3, scalar[int](t, db, `select count(distinct xmin::text) from pgmq.q_good`), "transactions")
			}
		})
	}
}

func unless(good bool, err error) error {
	if good {
		return nil
	}
	return err
}

// One message fails for ever. The others come through, one at a time, and its retries become rarer.
func TestNack_PoisonBlocksNobody(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	var (
		mu       sync.Mutex
		attempts []int
	)
	subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{
		PollInterval: never,
		NackDelay: func(params watermillpgmq.NackDelayParams) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			attempts = append(attempts, params.Attempt)
			if params.Topic != "orders" || string(params.Message.Payload) != `"poison"` {
				t.Errorf("%+v", params)
			}
			return 10 * time.Millisecond
		},
	})
	messages := subscribe(t, subscriber, "orders")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	require.NoError(t, publisher.Publish("orders", append([]*message.Message{newMessage(`"poison"`)}, newMessages(100)...)...))

	good, poison := 0, 0
	for good < 100 || poison < 3 {
		msg := receive(t, messages)
		if string(msg.Payload) == `"poison"` {
			poison++
			msg.Nack()
			continue
		}
		good++
		require.Equal(t, fmt.Sprint(good), string(msg.Payload), "in order")
		msg.Ack()
	}
	mu.Lock()
	defer mu.Unlock()
	for i, attempt := range attempts {
		require.Equal(t, i+1, attempt)
	}
	require.GreaterOrEqual(t, len(attempts), 2)
}

func TestExponentialNackDelay(t *testing.T) {
	t.Parallel()
	delay := watermillpgmq.ExponentialNackDelay(time.Second, time.Minute)
	for attempt, wanted := range map[int]time.Duration{
		0: time.Second, 1: time.Second, 2: 2 * time.Second, 3: 4 * time.Second, 6: 32 * time.Second, 7: time.Minute, 10_000: time.Minute,
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			d := delay(watermillpgmq.NackDelayParams{Attempt: attempt})
			require.InDelta(t, wanted.Seconds(), d.Seconds(), wanted.Seconds()/5+1e-6, "attempt %d", attempt)
			seen[d] = true
		}
		require.Greater(t, len(seen), 10, "attempt %d: no jitter", attempt)
	}
}

// moody cannot unmarshal one of the messages, at first.
type moody struct {
	watermillpgmq.JSONMarshaler
	failures atomic.Int32
}

var errMoody = errors.New("not in the mood")

func (m *moody) Unmarshal(queue string, msg pgmq.Message) (*message.Message, error) {
	if string(msg.Body) == "1" && m.failures.Add(1) <= 2 {
		return nil, errMoody
	}
	return m.JSONMarshaler.Unmarshal(queue, msg)
}

// What cannot be unmarshaled is tried again like what is nacked. Nobody gets a nil message.
func TestUnmarshal_FailureIsANack(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{
		Unmarshaler:  &moody{},
		PollInterval: never,
		NackDelay: func(params watermillpgmq.NackDelayParams) time.Duration {
			return time.Duration(params.Attempt) * 50 * time.Millisecond
		},
	}), "orders")
	require.NoError(t, newPublisher(t, db, watermillpgmq.PublisherConfig{}).Publish("orders", newMessages(2)...))

	received := receiveAll(t, messages, 2)
	require.Equal(t, "2", string(received[0].Payload), "it is not blocked")
	require.Equal(t, "1", string(received[1].Payload), "it comes back")
	info, _ := watermillpgmq.MessageFromContext(received[1].Context())
	require.Equal(t, 3, info.ReadCount)
}

// brokenMarshaler makes of messages for the topic "bad" what is not JSON.
type brokenMarshaler struct{ watermillpgmq.JSONMarshaler }

func (m brokenMarshaler) Marshal(topic string, msg *message.Message) (pgmq.Outgoing, error) {
	out, err := m.JSONMarshaler.Marshal(topic, msg)
	if topic == "bad" {
		out.Body = []byte("not JSON")
	}
	return out, err
}

// errNotJSON stands for the *pgmq.ValueError of such a message.
var errNotJSON = errors.New("not JSON")

func isValueError(err, wanted error) bool {
	var value *pgmq.ValueError
	return errors.Is(wanted, errNotJSON) && errors.As(err, &value)
}
