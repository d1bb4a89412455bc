package watermillpgmq_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func Example() {
	withDatabase(func(ctx context.Context, db *pgxpool.Pool, logger watermill.LoggerAdapter) error {
		if _, err := pgmq.New(db).Install(ctx); err != nil {
			return err
		}
		publisher, err := watermillpgmq.NewPublisher(db, watermillpgmq.PublisherConfig{}, logger)
		if err != nil {
			return err
		}
		subscriber, err := watermillpgmq.NewSubscriber(db, watermillpgmq.SubscriberConfig{ConsumerGroup: "billing"}, logger)
		if err != nil {
			return err
		}
		messages, err := subscriber.Subscribe(ctx, "orders.*")
		if err != nil {
			return err
		}

		order := message.NewMessage(watermill.NewUUID(), []byte(`{"id": 1, "item": "lamp"}`))
		if err := publisher.Publish("orders.placed", order); err != nil {
			return err
		}

		msg := <-messages
		fmt.Println(string(msg.Payload))
		msg.Ack()
		return errors.Join(publisher.Close(), subscriber.Close())
	})
	// Output: {"id": 1, "item": "lamp"}
}

func ExampleWithTx() {
	withDatabase(func(ctx context.Context, db *pgxpool.Pool, logger watermill.LoggerAdapter) error {
		client := pgmq.New(db)
		if _, err := client.Install(ctx); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, "orders"); err != nil {
			return err
		}
		if _, err := db.Exec(ctx, `create table orders (id bigint primary key)`); err != nil {
			return err
		}
		publisher, err := watermillpgmq.NewPublisher(db, watermillpgmq.PublisherConfig{
			Topology: watermillpgmq.QueueTopology{},
		}, logger)
		if err != nil {
			return err
		}

		place := func(id int64) error {
			return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
				msg := message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, `{"id": %d}`, id))
				msg.SetContext(watermillpgmq.WithTx(ctx, tx))
				if err := publisher.Publish("orders", msg); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, `insert into orders (id) values ($1::bigint)`, id)
				return err
			})
		}

		fmt.Println("first order fails:", place(1) != nil)
		fmt.Println("same order again fails:", place(1) != nil)
		metrics, err := client.Metrics(ctx, "orders")
		fmt.Println("messages:", metrics.Length)
		return err
	})
	// Output:
	// first order fails: false
	// same order again fails: true
	// messages: 1
}

func ExampleUnroutable() {
	withDatabase(func(ctx context.Context, db *pgxpool.Pool, logger watermill.LoggerAdapter) error {
		if _, err := pgmq.New(db).Install(ctx); err != nil {
			return err
		}
		for _, unroutable := range []watermillpgmq.Unroutable{
			watermillpgmq.FailUnroutable(), // the default
			watermillpgmq.DropUnroutable(),
			watermillpgmq.KeepUnroutable("unroutable"),
		} {
			publisher, err := watermillpgmq.NewPublisher(db, watermillpgmq.PublisherConfig{Unroutable: unroutable}, logger)
			if err != nil {
				return err
			}
			err = publisher.Publish("nobody.listens", message.NewMessage(watermill.NewUUID(), nil))
			fmt.Println("unroutable:", errors.Is(err, watermillpgmq.ErrUnroutable))
			if err := publisher.Close(); err != nil {
				return err
			}
		}
		metrics, err := pgmq.New(db).Metrics(ctx, "unroutable")
		fmt.Println("kept:", metrics.Length)
		return err
	})
	// Output:
	// unroutable: true
	// unroutable: false
	// unroutable: false
	// kept: 1
}

// What SQL sends is a Watermill message like any other.
func ExampleSubscriber_sql() {
	withDatabase(func(ctx context.Context, db *pgxpool.Pool, logger watermill.LoggerAdapter) error {
		if _, err := pgmq.New(db).Install(ctx); err != nil {
			return err
		}
		subscriber, err := watermillpgmq.NewSubscriber(db, watermillpgmq.SubscriberConfig{}, logger)
		if err != nil {
			return err
		}
		messages, err := subscriber.Subscribe(ctx, "orders.#")
		if err != nil {
			return err
		}

		_, err = db.Exec(ctx, `select pgmq.send_topic('orders.placed', '{"id": 7}', '{"source": "psql"}', 0)`)
		if err != nil {
			return err
		}

		msg := <-messages
		info, _ := watermillpgmq.MessageFromContext(msg.Context())
		fmt.Println(info.Queue, info.ID, string(msg.Payload), msg.Metadata.Get("source"))
		msg.Ack()
		return subscriber.Close()
	})
	// Output: orders.# 1 {"id": 7} psql
}

// An application that shares the database with others keeps its topics apart by a prefix, on both sides.
func ExampleTopicTopology() {
	topology := watermillpgmq.TopicTopology{
		GenerateRoutingKey: func(params watermillpgmq.RoutingKeyParams) (string, error) {
			return "shop." + params.Topic, nil
		},
	}
	to, err := topology.PublishTo("orders.placed")
	fmt.Println(to.RoutingKey, err)
	from, err := topology.SubscribeTo("orders.*", "billing")
	fmt.Println(from.Pattern, from.Queue, err)
	// Output:
	// shop.orders.placed <nil>
	// shop.orders.* shop.orders.*:billing <nil>
}

// White space and the order of members survive, at the price of a payload that is a string to SQL.
func ExampleExactMarshaler() {
	msg := message.NewMessage("order-1", []byte(`{"item":"lamp",  "id":1}`))
	stored, err := watermillpgmq.ExactMarshaler{}.Marshal("orders.placed", msg)
	fmt.Println(string(stored.Body), err)
	fmt.Println(string(stored.Headers))
	// Output:
	// "{\"item\":\"lamp\",  \"id\":1}" <nil>
	// {"_watermill_message_uuid":"order-1","_watermill_payload_encoding":"text"}
}

func TestBilling(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool // a database of its own, with PGMQ, gone after the test
	publisher, err := watermillpgmq.NewPublisher(db, watermillpgmq.PublisherConfig{}, nil)
	require.NoError(t, err)
	subscriber, err := watermillpgmq.NewSubscriber(db, watermillpgmq.SubscriberConfig{ConsumerGroup: "billing"}, nil)
	require.NoError(t, err)
	orders, err := subscriber.Subscribe(t.Context(), "orders.placed")
	require.NoError(t, err)

	require.NoError(t, publisher.Publish("orders.placed", message.NewMessage("order-1", []byte(`{"id": 1}`))))

	order := <-orders
	require.Equal(t, "order-1", order.UUID)
	require.JSONEq(t, `{"id": 1}`, string(order.Payload))
	order.Ack()
	require.NoError(t, subscriber.Close())
	require.NoError(t, publisher.Close())
}

// withDatabase runs an example on an empty database. It leaves the one of DATABASE_URL alone, which a program may use
// and a test may not.
func withDatabase(example func(context.Context, *pgxpool.Pool, watermill.LoggerAdapter) error) {
	ctx := context.Background()
	err := os.Unsetenv("DATABASE_URL")
	if err == nil {
		var (
			db   *pgxpool.Pool
			stop func() error
		)
		if db, stop, err = pgmqtest.Connect(ctx); err == nil {
			err = errors.Join(example(ctx, db, watermill.NopLogger{}), stop())
		}
	}
	if err != nil {
		fmt.Println(err) // so that the output is not the expected one
	}
}
