package main

import (
	"context"
	"flag"
	"time"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// connectTimeout bounds how long a server may take to answer at first.
const connectTimeout = 30 * time.Second

// database is the one that a command is about.
type database struct{ dsn *string }

func declareDatabase(flags *flag.FlagSet) database {
	return database{flags.String("dsn", "", "the database: a URL or a string of keywords and values\n"+
		"(default DATABASE_URL, else PGHOST, PGUSER, PGPASSWORD, ...)")}
}

// do calls f with a client.
func (d database) do(ctx context.Context, f func(ctx context.Context, c *pgmq.Client) error) error {
	connecting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := pgmq.Connect(connecting, *d.dsn)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}
