package watermillpgmq_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// What plain SQL sends is a Watermill message: headers are its metadata, and its UUID is the same at every
// delivery.
func TestInterop_FromSQL(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		sql      string
		payload  string
		metadata message.Metadata
	}{
		"to a topic": {
			sql:      `select pgmq.send_topic('orders.created', '{"id": 7, "tags": ["a", "b"]}')`,
			payload:  `{"id": 7, "tags": ["a", "b"]}`,
			metadata: message.Metadata{},
		},
		"with headers": {
			sql:      `select pgmq.send_topic('orders.created', '"text"', '{"tenant": "a", "attempt": 2, "x-pgmq-group": "g"}', 0)`,
			payload:  `"text"`,
			metadata: message.Metadata{"tenant": "a", "attempt": "2", "x-pgmq-group": "g"},
		},
		"many at once": {
			sql:      `select pgmq.send_batch_topic('orders.created', array['[]']::jsonb[], array['{"k": "v"}']::jsonb[])`,
			payload:  `[]`,
			metadata: message.Metadata{"k": "v"},
		},
		"to the queue": {
			sql:      `select pgmq.send('orders.#:billing', 'null')`,
			payload:  `null`,
			metadata: message.Metadata{},
		},
		"SQL NULL": {
			sql:      `select pgmq.send('orders.#:billing', null)`,
			metadata: message.Metadata{},
		},
		"as a Watermill message": {
			sql:      `select pgmq.send_topic('orders.created', '"caf\u00e9"', '{"_watermill_message_uuid": "u-1", "_watermill_payload_encoding": "text", "k": "v"}', 0)`,
			payload:  `café`,
			metadata: message.Metadata{"k": "v"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t).Pool
			messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{
				ConsumerGroup: "billing", NackDelay: watermillpgmq.ConstantNackDelay(0),
			}), "orders.#")
			execute(t, db, test.sql)
			first := receive(t, messages)
			first.Nack()
			again := receiveAll(t, messages, 1)[0]
			for _, msg := range []*message.Message{first, again} {
				require.Equal(t, test.payload, string(msg.Payload))
				require.Equal(t, test.metadata, msg.Metadata)
			}
			require.NotEmpty(t, first.UUID)
			require.Equal(t, first.UUID, again.UUID)
			if name == "as a Watermill message" {
				require.Equal(t, "u-1", first.UUID)
			}
		})
	}
}

// What nobody can make a message of does not stop those behind it.
func TestInterop_BrokenHeadersFromSQL(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{NackDelay: watermillpgmq.ConstantNackDelay(never)}), "orders")
	for _, headers := range []string{`{"_watermill_message_uuid": 5}`, `{"_watermill_payload_encoding": "rot13"}`, `[]`, `"text"`} {
		execute(t, db, `select pgmq.send_topic('orders', '1', $1::jsonb, 0)`, headers)
	}
	execute(t, db, `select pgmq.send_topic('orders', '"good"')`)
	require.Equal(t, `"good"`, string(receiveAll(t, messages, 1)[0].Payload))
	awaitRows(t, db, "orders", 4, 4)
}

// What is published reads well in SQL, and other clients can take it.
func TestInterop_ToSQL(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	bind(t, db, "orders.*", "billing", "shipping")
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{})
	sent := message.NewMessage("4c6b9a5e-7c0b-4c53-9f55-6c0a8d6a6c11", []byte(`{"id": 7, "amount": 12.50, "name": "Zoë"}`))
	sent.Metadata.Set("tenant", "a")
	require.NoError(t, publisher.Publish("orders.created", sent))
	require.NoError(t, publisher.Publish("orders.created", message.NewMessage("2", []byte("not JSON"))))

	for _, queue := range []string{"orders.*:billing", "orders.*:shipping"} {
		type seen struct {
			ID, Amount, Name, Tenant, UUID string
			Keys                           int
		}
		rows, err := db.Query(t.Context(), `
			select message->>'id', message->>'amount', message->>'name', headers->>'tenant', headers->>'_watermill_message_uuid',
				(select count(*) from jsonb_object_keys(headers))
			from pgmq.read($1::text, 0, 1)`, queue)
		require.NoError(t, err)
		got, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[seen])
		require.NoError(t, err)
		require.Equal(t, seen{"7", "12.50", "Zoë", "a", sent.UUID, 2}, got)
		require.Equal(t, `"not JSON"`, scalar[string](t, db, `select message::text from `+table(queue)+` where msg_id = 2`))
		require.Equal(t, []int64{1, 2}, scalar[[]int64](t, db, `select array_agg(msg_id order by msg_id) from pgmq.pop($1::text, 2)`, queue))
	}
}

// SQL and a subscriber share a queue: neither gets what the other one holds.
func TestInterop_CompetesWithSQL(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	execute(t, db, `select pgmq.create('jobs')`)
	execute(t, db, `select pgmq.send_batch('jobs', array['1', '2', '3']::jsonb[])`)
	read := `select coalesce(array_agg(msg_id), '{}') from pgmq.read('jobs', 3600, 10)`
	require.Equal(t, []int64{1}, scalar[[]int64](t, db, `select array_agg(msg_id) from pgmq.read('jobs', 3600, 1)`))
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{
		Topology: watermillpgmq.QueueTopology{}, Concurrency: 2, VisibilityTimeout: never,
	}), "jobs")
	two, three := receive(t, messages), receive(t, messages)
	require.Equal(t, []string{"2", "3"}, []string{string(two.Payload), string(three.Payload)})
	require.Empty(t, scalar[[]int64](t, db, read))

	require.True(t, scalar[bool](t, db, `select pgmq.delete('jobs', 3)`), "somebody decides that it is done")
	two.Ack()
	three.Ack()
	awaitRows(t, db, "jobs", 1, 1)
	execute(t, db, `select pgmq.set_vt('jobs', 1, 0)`)
	require.Equal(t, "1", string(receiveAll(t, messages, 1)[0].Payload), "given back by SQL")
}

// A queue with upper case in its name, as other clients create them, is read and written like any.
func TestInterop_UpperCaseQueue(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	execute(t, db, `select pgmq.create('Jobs')`)
	topology := watermillpgmq.QueueTopology{}
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{
		Topology: topology, PollInterval: never, VisibilityTimeout: never,
	}), "Jobs")
	awaitListener(t, db)
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Topology: topology})
	for range 3 {
		require.NoError(t, publisher.Publish("Jobs", newMessage("1")))
		receiveAll(t, messages, 1)
	}
}

// The database's own trigger (pgmq.enable_notify_insert) wakes a subscriber too, when SQL sends.
func TestInterop_NotifyTrigger(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	messages := subscribe(t, newSubscriber(t, db, watermillpgmq.SubscriberConfig{PollInterval: never, VisibilityTimeout: never}), "orders")
	awaitListener(t, db)
	execute(t, db, `select pgmq.enable_notify_insert('orders', 0)`)
	for range 3 {
		execute(t, db, `select pgmq.send_topic('orders', '1')`)
		receiveAll(t, messages, 1)
	}
}

// Delivery starts with the binding: what was published before SubscribeInitialize is nobody's, what comes
// after waits for the subscriber.
func TestInterop_BoundBeforeSubscribed(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	publisher := newPublisher(t, db, watermillpgmq.PublisherConfig{Unroutable: watermillpgmq.DropUnroutable()})
	require.NoError(t, publisher.Publish("orders", newMessage(`"before"`)))
	subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{})
	require.NoError(t, subscriber.SubscribeInitialize("orders"))
	require.NoError(t, publisher.Publish("orders", newMessage(`"after"`)))
	require.Equal(t, `"after"`, string(receiveAll(t, subscribe(t, subscriber, "orders"), 1)[0].Payload))
}
