package pgmqtest_test

import (
	"context"
	"fmt"
	"log"
	"testing"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// A program that needs no server to be there: it uses DATABASE_URL, or starts a server for itself.
func ExampleConnect() {
	ctx := context.Background()
	pool, stop, err := pgmqtest.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			log.Print(err)
		}
	}()

	var answer string
	if err := pool.QueryRow(ctx, `select 'Postgres answers'`).Scan(&answer); err != nil {
		log.Print(err)
	}
	fmt.Println(answer)
	// Output: Postgres answers
}

func ExampleNew() {
	_ = func(t *testing.T) {
		db := pgmqtest.New(t)
		if _, err := db.Pool.Exec(t.Context(), `select pgmq.create('orders'::text)`); err != nil {
			t.Fatal(err)
		}
	}
}

// A test of what happens to an application when Postgres crashes.
func ExampleStartServer() {
	_ = func(t *testing.T) {
		server := pgmqtest.StartServer(t)
		db := server.Database(t)

		// Use db, then:
		if err := server.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := db.Pool.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
