// Command worker uses PGMQ without Watermill: a queue of e-mails, and a worker that sends them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

const queue = "emails"

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) (err error) {
	// A server for this demonstration; yours is there already, and pgxpool.New finds it.
	db, stop, err := pgmqtest.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	client := pgmq.New(db)
	if _, err := client.Install(ctx); err != nil {
		return err
	}
	if err := client.CreateQueue(ctx, queue); err != nil {
		return err
	}
	for _, to := range []string{"ada@example.com", "bob@example.com", "cleo@example.com"} {
		if _, err := client.Send(ctx, queue, pgmq.Outgoing{Body: json.RawMessage(`{"to": "` + to + `"}`)}); err != nil {
			return err
		}
	}
	return work(ctx, db)
}

// work is a whole worker. It ends when three e-mails are sent; yours would go on until ctx ends.
func work(ctx context.Context, db *pgxpool.Pool) error {
	reader, err := pgmq.New(db).NewReader(ctx, queue, pgmq.ReaderConfig{})
	if err != nil {
		return err
	}
	for sent := 0; sent < 3; {
		lease, err := reader.Next(ctx)
		if err != nil {
			return errors.Join(err, reader.Close(ctx))
		}
		if err := send(lease.Context(), lease.Message); err != nil {
			fmt.Println(err)
			lease.Nack(100 * time.Millisecond) // it comes back then
			continue
		}
		lease.Ack()
		sent++
	}
	return reader.Close(ctx)
}

// send fails when an e-mail is tried for the first time, for bob.
func send(_ context.Context, msg pgmq.Message) error {
	type email struct {
		To string `json:"to"`
	}
	mail, err := pgmq.Decode[email](msg)
	if err != nil {
		return err
	}
	if mail.To == "bob@example.com" && msg.ReadCount == 1 {
		return fmt.Errorf("to %s: mailbox busy, trying again", mail.To)
	}
	fmt.Printf("to %s: sent at attempt %d\n", mail.To, msg.ReadCount)
	return nil
}
