package pgmq_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// The shop sends orders and cannot read them; an error names the right that is missing.
func ExampleClient_Grant() {
	withDatabase(func(ctx context.Context, pool *pgxpool.Pool) error {
		client := pgmq.New(pool)
		if _, err := client.Install(ctx); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, "orders"); err != nil {
			return err
		}
		undone := errors.New("undone") // a role belongs to the whole server: this one does not stay
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, `create role pgmq_example_shop`); err != nil {
				return err
			}
			client := pgmq.New(tx)
			if err := client.Grant(ctx, "pgmq_example_shop", pgmq.Publish("orders")); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `set local role pgmq_example_shop`); err != nil {
				return err
			}
			id, err := client.Send(ctx, "orders", pgmq.Outgoing{Body: []byte(`{"item": "lamp"}`)})
			if err != nil {
				return err
			}
			fmt.Println("sent", id)
			_, err = client.Read(ctx, "orders", 0)
			fmt.Println("may read:", !errors.Is(err, pgmq.ErrPermissionDenied))
			return undone
		})
		if !errors.Is(err, undone) {
			return err
		}
		return nil
	})
	// Output:
	// sent 1
	// may read: false
}

func ExampleClient_Uninstall() {
	withDatabase(func(ctx context.Context, pool *pgxpool.Pool) error {
		client := pgmq.New(pool)
		if _, err := client.Install(ctx, pgmq.EmbeddedSchema()); err != nil {
			return err
		}
		if err := client.CreateQueue(ctx, "orders"); err != nil {
			return err
		}
		if _, err := client.Uninstall(ctx, "production"); err != nil {
			fmt.Println("not the name of this database")
		}
		dropped, err := client.Uninstall(ctx, pool.Config().ConnConfig.Database)
		if err != nil {
			return err
		}
		for _, queue := range dropped.Queues {
			fmt.Println(queue.Name, queue.Messages)
		}
		return nil
	})
	// Output:
	// not the name of this database
	// orders 0
}
