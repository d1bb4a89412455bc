package pgmqtest_test

import (
	"context"
	"fmt"
	"log"

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
