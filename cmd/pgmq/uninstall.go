package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

func prepareUninstall(flags *flag.FlagSet) func(ctx context.Context, out io.Writer) error {
	db := declareDatabase(flags)
	name := flags.String("database", "", "the `name` of the database, which confirms that all its queues may go")

	return func(ctx context.Context, out io.Writer) error {
		if *name == "" {
			return usageError("confirm it with the name of the database: --database NAME")
		}
		return db.do(ctx, func(ctx context.Context, c *pgmq.Client) error {
			u, err := c.Uninstall(ctx, *name)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "Dropped PGMQ: %s, %d queues\n", u.Version, len(u.Queues))
			for _, q := range u.Queues {
				fmt.Fprintf(out, "  %-*s  %d messages, %d archived\n", pgmq.MaxQueueName, q.Name, q.Messages, q.Archived)
			}
			return nil
		})
	}
}
