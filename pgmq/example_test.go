package pgmq_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func Example() {
	withDatabase(func(ctx context.Context, pool *pgxpool.Pool) error {
		client := pgmq.New(pool)
		if _, err := client.Install(ctx); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, "orders"); err != nil {
			return err
		}
		id, err := client.Send(ctx, "orders", pgmq.Outgoing{Body: []byte(`{"item": "lamp"}`)})
		if err != nil {
			return err
		}
		fmt.Println("sent", id)

		// Nobody else gets the message for 30 seconds. If it is not deleted by then, it comes back.
		msgs, err := client.Read(ctx, "orders", 30*time.Second, pgmq.Limit(10))
		if err != nil {
			return err
		}
		for _, msg := range msgs {
			fmt.Println("handling", msg.ID, string(msg.Body))
			if _, err := client.Delete(ctx, "orders", msg.ID); err != nil {
				return err
			}
		}
		return nil
	})
	// Output:
	// sent 1
	// handling 1 {"item": "lamp"}
}

func ExampleClient_CreateQueue() {
	withDatabase(func(ctx context.Context, pool *pgxpool.Pool) error {
		client := pgmq.New(pool)
		if _, err := client.Install(ctx); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, "orders"); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, "clicks", pgmq.Unlogged()); err != nil {
			return err
		}
		fmt.Println(errors.Is(client.CreateQueue(ctx, "no;name"), pgmq.ErrInvalidQueueName))

		queues, err := client.Queues(ctx)
		for _, q := range queues {
			fmt.Println(q.Name, q.Unlogged)
		}
		if err != nil {
			return err
		}
		purged, err := client.Purge(ctx, "clicks")
		if err != nil {
			return err
		}
		dropped, err := client.DropQueue(ctx, "clicks")
		fmt.Println(purged, dropped)
		return err
	})
	// Output:
	// true
	// clicks true
	// orders false
	// 0 true
}

// A message can carry headers and be delayed, and many can be sent at once.
func ExampleClient_Send() {
	withQueue("orders", func(ctx context.Context, client *pgmq.Client) error {
		id, err := client.Send(ctx, "orders", pgmq.Outgoing{
			Body:    []byte(`{"item": "lamp"}`),
			Headers: []byte(`{"trace": "7f3a"}`),
		})
		if err != nil {
			return err
		}
		fmt.Println("sent", id)
		ids, err := client.SendBatch(ctx, "orders", []pgmq.Outgoing{
			{Body: []byte(`{"item": "chair"}`)},
			{Body: []byte(`{"item": "table"}`)},
		}, pgmq.VisibleIn(90*time.Minute))
		if err != nil {
			return err
		}
		fmt.Println("sent", ids)

		msgs, err := client.Read(ctx, "orders", time.Minute, pgmq.Limit(10))
		for _, msg := range msgs {
			fmt.Println("visible", msg.ID, string(msg.Headers))
		}
		return err
	})
	// Output:
	// sent 1
	// sent [2 3]
	// visible 1 {"trace": "7f3a"}
}

// Read can wait for a message, choose by content, and keep the order within groups.
func ExampleClient_Read() {
	withQueue("orders", func(ctx context.Context, client *pgmq.Client) error {
		_, err := client.SendBatch(ctx, "orders", []pgmq.Outgoing{
			{Body: []byte(`{"step": "placed"}`), Headers: []byte(`{"x-pgmq-group": "alice"}`)},
			{Body: []byte(`{"step": "paid"}`), Headers: []byte(`{"x-pgmq-group": "alice"}`)},
			{Body: []byte(`{"step": "placed"}`), Headers: []byte(`{"x-pgmq-group": "bob"}`)},
		})
		if err != nil {
			return err
		}
		// One of each group; while it is hidden, the later ones of its group stay where they are.
		heads, err := client.Read(ctx, "orders", time.Minute, pgmq.Limit(10), pgmq.Grouped(pgmq.Head))
		if err != nil {
			return err
		}
		for _, msg := range heads {
			fmt.Println("head", msg.ID)
		}
		paid, err := client.Read(ctx, "orders", time.Minute, pgmq.Where([]byte(`{"step": "paid"}`)))
		if err != nil {
			return err
		}
		fmt.Println("paid", paid[0].ID)

		// Nothing is visible any more. Wait for something, a little.
		later, err := client.Read(ctx, "orders", time.Minute, pgmq.Poll(50*time.Millisecond, 10*time.Millisecond))
		fmt.Println(len(later), err)
		return nil
	})
	// Output:
	// head 1
	// head 3
	// paid 2
	// 0 <nil>
}

// What was read is deleted, archived, or hidden for longer. Ids that are not there are not returned.
func ExampleClient_SetVisibility() {
	withQueue("orders", func(ctx context.Context, client *pgmq.Client) error {
		if _, err := client.SendBatch(ctx, "orders", make([]pgmq.Outgoing, 4)); err != nil {
			return err
		}
		msgs, err := client.SetVisibility(ctx, "orders", pgmq.VisibleIn(time.Hour), 1, 2)
		if err != nil {
			return err
		}
		fmt.Println("hidden", msgs[0].ID, msgs[1].ID)
		deleted, err := client.Delete(ctx, "orders", 1, 99)
		if err != nil {
			return err
		}
		archived, err := client.Archive(ctx, "orders", 2)
		if err != nil {
			return err
		}
		popped, err := client.Pop(ctx, "orders", 1) // read and deleted at once
		if err != nil {
			return err
		}
		fmt.Println("deleted", deleted, "archived", archived, "popped", popped[0].ID)
		return nil
	})
	// Output:
	// hidden 1 2
	// deleted [1] archived [2] popped 3
}

// A message to a topic goes to every queue that is bound to a matching pattern.
func ExampleClient_SendTopic() {
	withQueue("billing", func(ctx context.Context, client *pgmq.Client) error {
		if err := client.CreateQueue(ctx, "audit"); err != nil {
			return err
		}
		if err := client.BindTopic(ctx, "orders.*", "billing"); err != nil {
			return err
		}
		if err := client.BindTopic(ctx, "#", "audit"); err != nil {
			return err
		}
		routes, err := client.Routes(ctx, "orders.placed")
		if err != nil {
			return err
		}
		for _, route := range routes {
			fmt.Println(route.Pattern, "leads to", route.Queue)
		}

		deliveries, err := client.SendTopic(ctx, "orders.eu.placed", pgmq.Outgoing{Body: []byte(`1`)})
		if err != nil {
			return err
		}
		fmt.Println("sent to", deliveries)
		unbound, err := client.UnbindTopic(ctx, "#", "audit")
		fmt.Println(unbound)
		return err
	})
	// Output:
	// # leads to audit
	// orders.* leads to billing
	// sent to [{audit 1}]
	// true
}

func ExampleClient_Metrics() {
	withQueue("orders", func(ctx context.Context, client *pgmq.Client) error {
		if _, err := client.SendBatch(ctx, "orders", make([]pgmq.Outgoing, 3)); err != nil {
			return err
		}
		if _, err := client.Read(ctx, "orders", time.Minute); err != nil {
			return err
		}
		m, err := client.Metrics(ctx, "orders")
		if err != nil {
			return err
		}
		fmt.Println(m.Length, "waiting,", *m.Visible, "visible,", m.Total, "ever sent")
		return nil
	})
	// Output: 3 waiting, 2 visible, 3 ever sent
}

// Whoever waits for messages can be woken instead of asking all the time.
func ExampleClient_EnableNotify() {
	withQueue("orders", func(ctx context.Context, client *pgmq.Client) error {
		if err := client.EnableNotify(ctx, "orders", 250*time.Millisecond); err != nil {
			return err
		}
		listener, err := client.NewListener(ctx, nil) // one for all
		if err != nil {
			return err
		}
		defer listener.Close()

		sent := make(chan error, 1)
		go func() {
			_, err := client.Send(ctx, "orders", pgmq.Outgoing{Body: []byte(`{"item": "lamp"}`)})
			sent <- err
		}()
		msgs, err := client.Read(ctx, "orders", time.Minute, pgmq.Poll(time.Minute, 10*time.Second), pgmq.WokenBy(listener))
		if err != nil {
			return err
		}
		fmt.Println(string(msgs[0].Body))
		return <-sent
	})
	// Output: {"item": "lamp"}
}

// What is sent in a transaction appears and disappears with it: either the order is stored and its message
// sent, or neither.
func ExampleNew_transaction() {
	withDatabase(func(ctx context.Context, pool *pgxpool.Pool) error {
		client := pgmq.New(pool)
		if _, err := client.Install(ctx); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, "orders"); err != nil {
			return err
		}
		if _, err := pool.Exec(ctx, `create table orders (item text primary key)`); err != nil {
			return err
		}
		place := func(item string) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				body, err := json.Marshal(map[string]string{"item": item})
				if err != nil {
					return err
				}
				if _, err := pgmq.New(tx).Send(ctx, "orders", pgmq.Outgoing{Body: body}); err != nil {
					return err
				}
				_, err = tx.Exec(ctx, `insert into orders (item) values ($1::text)`, item)
				return err
			})
		}
		fmt.Println(place("lamp") == nil, place("lamp") == nil)
		m, err := client.Metrics(ctx, "orders")
		fmt.Println(m.Length)
		return err
	})
	// Output:
	// true false
	// 1
}

func ExampleTypedQueue() {
	type Order struct {
		Item string `json:"item"`
	}
	withQueue("orders", func(ctx context.Context, client *pgmq.Client) error {
		orders := pgmq.NewTypedQueue[Order](client, "orders")
		if _, err := orders.Send(ctx, Order{Item: "lamp"}); err != nil {
			return err
		}
		msgs, err := orders.Read(ctx, time.Minute)
		if err != nil {
			return err
		}
		fmt.Println(msgs[0].Value.Item, msgs[0].Err)
		return nil
	})
	// Output: lamp <nil>
}

// Both intervals of a partitioned queue are of one kind.
func ExampleInterval() {
	fmt.Println(pgmq.Messages(10_000), pgmq.Messages(1_000_000))
	fmt.Println(pgmq.Span(24*time.Hour), pgmq.Interval("1 month"))
	// Output:
	// 10000 1000000
	// 1 days 1 month
}

func ExampleDecode() {
	amount, err := pgmq.Decode[int](pgmq.Message{ID: 7, Body: []byte(`42`)})
	fmt.Println(amount, err)
	_, err = pgmq.Decode[int](pgmq.Message{ID: 8, Body: []byte(`"many"`)})
	fmt.Println(err)
	// Output:
	// 42 <nil>
	// message 8 is no int: json: cannot unmarshal string into Go value of type int
}

func ExampleMatchTopic() {
	fmt.Println(pgmq.MatchTopic("orders.*", "orders.placed"), pgmq.MatchTopic("orders.*", "orders.eu.placed"))
	fmt.Println(pgmq.ValidateRoutingKey("orders.*"))
	// Output:
	// true false
	// invalid routing key "orders.*": it contains a wildcard (* or #), which only a pattern may
}

// A worker: the reader fetches in batches, keeps messages hidden while they are handled, and settles them.
func ExampleClient_NewReader() {
	withQueue("orders", func(ctx context.Context, client *pgmq.Client) error {
		if _, err := client.Send(ctx, "orders", pgmq.Outgoing{Body: []byte(`{"item": "lamp"}`)}); err != nil {
			return err
		}
		reader, err := client.NewReader(ctx, "orders", pgmq.ReaderConfig{})
		if err != nil {
			return err
		}
		lease, err := reader.Next(ctx)
		if err != nil {
			return err
		}
		fmt.Println(string(lease.Body))
		lease.Ack()
		return reader.Close(ctx)
	})
	// Output: {"item": "lamp"}
}

// withQueue runs an example on a database with one queue.
func withQueue(name string, example func(context.Context, *pgmq.Client) error) {
	withDatabase(func(ctx context.Context, pool *pgxpool.Pool) error {
		client := pgmq.New(pool)
		if _, err := client.Install(ctx); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, name); err != nil {
			return err
		}
		return example(ctx, client)
	})
}

// withDatabase runs an example on an empty database. It leaves the one of DATABASE_URL alone, which a
// program may use and a test may not.
func withDatabase(example func(context.Context, *pgxpool.Pool) error) {
	ctx := context.Background()
	err := os.Unsetenv("DATABASE_URL")
	if err == nil {
		var (
			pool *pgxpool.Pool
			stop func() error
		)
		if pool, stop, err = pgmqtest.Connect(ctx); err == nil {
			err = errors.Join(example(ctx, pool), stop())
		}
	}
	if err != nil {
		fmt.Println(err) // so that the output is not the expected one
	}
}
